"""A device that speaks MQTT by hand: packets in, packets out, and nothing done by itself."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from bridge.message import Properties
from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import (
    PINGREQ,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Will,
)

__all__ = ["Device"]

P = TypeVar("P")
WAIT_S = 5.0


class Device:
    """One connection. `connack` is what the gateway said to CONNECT."""

    def __init__(self, port: int, version: int = 5) -> None:
        self.port = port
        self.version = version
        self.reads: list[bytes] = []  # what each read brought
        self._held = b""

    @classmethod
    async def connect(
        cls,
        port: int,
        client_id: str = "device",
        version: int = 5,
        *,
        clean: bool = True,
        keep_alive_s: int = 0,
        will: Will | None = None,
        expiry_s: int | None = None,
        **properties: Any,
    ) -> Device:
        device = cls(port, version)
        await device.open()
        about = Properties(session_expiry_interval_s=expiry_s, **properties)
        device.send(
            Connect(
                client_id, version, clean, keep_alive_s, None, None, will, about if version == 5 else None
            )
        )
        device.connack = await device.expect(Connack)
        return device

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    # ---- out ----

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def publish(
        self, topic: str, payload: bytes = b"x", qos: int = 1, packet_id: int = 1, **more: Any
    ) -> None:
        self.send(Publish(topic, payload, qos, packet_id=packet_id if qos else 0, **more))

    async def published(self, topic: str, payload: bytes = b"x", packet_id: int = 1) -> Puback:
        """Publish with QoS 1 and wait for PUBACK."""
        self.publish(topic, payload, 1, packet_id)
        puback = await self.expect(Puback)
        assert puback.packet_id == packet_id
        return puback

    async def subscribe(self, *filters: str | Subscription, qos: int = 1, identifier: int = 0) -> Suback:
        about = Properties(subscription_identifiers=(identifier,)) if identifier else None
        wanted = tuple(Subscription(one, qos) if isinstance(one, str) else one for one in filters)
        self.send(Subscribe(1, wanted, about))
        return await self.expect(Suback)

    # ---- in ----

    async def next(self, wait_s: float = WAIT_S) -> Packet | None:
        """The next packet; None when the gateway has closed."""
        async with asyncio.timeout(wait_s):
            while True:
                found = decode(self._held, self.version)
                if found is not None:
                    packet, at = found
                    self._held = self._held[at:]
                    return packet
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    data = b""
                if not data:
                    return None
                self.reads.append(data)
                self._held += data

    async def expect(self, kind: type[P]) -> P:
        """The next packet, which must be of this kind."""
        packet = await self.next()
        assert isinstance(packet, kind), packet
        return packet

    async def several(self, kind: type[P], count: int) -> list[P]:
        return [await self.expect(kind) for _ in range(count)]

    async def receive(self, count: int) -> list[bytes]:
        """The payloads of the next PUBLISH packets, each acknowledged where it wants that."""
        payloads = []
        for _ in range(count):
            packet = await self.expect(Publish)
            payloads.append(packet.payload)
            if packet.qos == 1:
                self.send(Puback(packet.packet_id))
        return payloads

    async def quiet(self) -> None:
        """Nothing has come that was not asked for: the next packet answers our PINGREQ."""
        self.send(PINGREQ)
        await self.expect(Pingresp)

    async def goodbye(self) -> int | None:
        """Wait until the gateway has closed; the reason it gave, None for none."""
        reason = None
        while (packet := await self.next()) is not None:
            if isinstance(packet, Disconnect | Connack):
                reason = packet.reason
        return reason

    # ---- away ----

    def drop(self) -> None:
        """Be gone without a word."""
        self._writer.transport.abort()

    async def leave(self, reason: int = 0) -> None:
        """DISCONNECT, and wait until the gateway has closed."""
        self.send(Disconnect(reason))
        await self.goodbye()
        self.drop()
