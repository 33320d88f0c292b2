"""A device that publishes one message at a time and says how each one went."""

from __future__ import annotations

import asyncio

from bridge.mqtt import codec
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import Connack, Connect, Disconnect, Packet, Puback, Publish
from tests.house.device import read_packets

__all__ = ["Publisher"]

ANSWER_S = 10.0


class Publisher:
    """`acknowledged` are payloads whose PUBACK came; `farewell` the reason of the last DISCONNECT, if any."""

    def __init__(
        self, port: int, version: int = 5, name: str = "publisher", topic: str = "plant/a/7"
    ) -> None:
        self.acknowledged: list[str] = []
        self.farewell: int | None = None
        self._port = port
        self._version = version
        self._name = name
        self._topic = topic
        self._id = 0
        self._writer: asyncio.StreamWriter | None = None

    async def publish(self, payload: str, padding: int = 0) -> bool:
        """Publish with QoS 1, on a new connection where the last one ended; False when sent away.

        `padding` is how many bytes are put behind the payload and a bar.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer, framer = await self._connection()
                self._id = self._id % 65_535 + 1
                body = payload.encode() + (b"|" + bytes([120]) * padding if padding else b"")
                writer.write(codec.encode(Publish(self._topic, body, 1, packet_id=self._id), self._version))
                [answer, *_] = await read_packets(reader, framer)
        except (OSError, EOFError):
            self.close()
            return False
        return self._judge(answer, payload)

    def _judge(self, answer: Packet, payload: str) -> bool:
        if isinstance(answer, Disconnect):
            self.farewell = answer.reason
            self.close()
            return False
        assert isinstance(answer, Puback)
        assert answer.packet_id == self._id
        # A negative PUBACK would be final: the device would forget the message [MQTT-4.4.0-2].
        assert answer.reason == 0
        self.acknowledged.append(payload)
        return True

    async def say(self, payload: bytes) -> None:
        """Publish with QoS 0; nobody answers."""
        _, writer, _ = await self._connection()
        writer.write(codec.encode(Publish(self._topic, payload, 0), self._version))
        await writer.drain()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Framer]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._framer = Framer(self._version)
            connect = Connect(self._name, version=self._version, keep_alive_s=60)
            self._writer.write(codec.encode(connect, self._version))
            [connack] = await read_packets(self._reader, self._framer)
            assert isinstance(connack, Connack)
            assert connack.reason == 0
        return self._reader, self._writer, self._framer

    def close(self) -> None:
        """Leave without a word. Safe twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
