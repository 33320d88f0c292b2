"""A device as the specification wants it: it keeps what is not acknowledged and sends it again.

Written with raw sockets so that a test knows, for every payload, how often the
device itself had to send it, and when it was told that it is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from bridge.mqtt import codec
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
)

__all__ = ["Device", "Listener", "Sleeper", "read_packets"]

WINDOW = 50  # PUBLISH packets unanswered at once
RECONNECT_S = 0.05


class Device:
    """Publishes `count` numbered messages, at most `rate` a second, whatever happens to the broker.

    `acknowledged` are the numbers whose PUBACK or PUBREC came; `sent` counts the
    PUBLISH packets written for each number. Payloads are `name:number`.
    """

    def __init__(
        self, name: str, port: int, count: int, rate: float, *, qos: int = 1, topic: str = ""
    ) -> None:
        self.name = name
        self.acknowledged: set[int] = set()
        self.sent: Counter[int] = Counter()
        self._port = port
        self._count = count
        self._rate = rate
        self._qos = qos
        self._topic = topic or f"plant/{name}/count"
        self._next = 0
        self._unanswered: dict[int, int] = {}  # packet identifier → number, in the order of sending
        self._released: dict[int, None] = {}  # packet identifiers whose PUBCOMP has not come

    @property
    def done(self) -> bool:
        """Whether everything is acknowledged."""
        return len(self.acknowledged) >= self._count and not self._released

    def finish(self) -> None:
        """Begin nothing new: `run` returns when what was sent is acknowledged."""
        self._count = self._next

    async def run(self) -> None:
        """Return when every message is acknowledged."""
        while not self.done:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await self._talk(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(RECONNECT_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer(4)
        writer.write(codec.encode(Connect(self.name, clean_start=False, keep_alive_s=60), 4))
        [connack] = await read_packets(reader, framer)
        assert isinstance(connack, Connack)
        assert connack.reason == 0
        for packet_id in self._released:
            writer.write(codec.encode(Pubrel(packet_id), 4))
        for packet_id, number in list(self._unanswered.items()):
            self._publish(writer, packet_id, number, dup=True)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self._next
        while not self.done:
            allowed = before + int((loop.time() - began) * self._rate) + 1
            while self._next < min(self._count, allowed) and len(self._unanswered) < WINDOW:
                packet_id = self._next % 65_535 + 1
                self._unanswered[packet_id] = self._next
                self._publish(writer, packet_id, self._next, dup=False)
                self._next += 1
            await writer.drain()
            if not self._unanswered and not self._released:
                await asyncio.sleep(1 / self._rate)
                continue
            for packet in await read_packets(reader, framer):
                self._take(writer, packet)

    def _take(self, writer: asyncio.StreamWriter, packet: Packet) -> None:
        match packet:
            case Puback(packet_id):
                self.acknowledged.add(self._unanswered.pop(packet_id))
            case Pubrec(packet_id):
                if packet_id in self._unanswered:
                    self.acknowledged.add(self._unanswered.pop(packet_id))
                self._released[packet_id] = None
                writer.write(codec.encode(Pubrel(packet_id), 4))
            case Pubcomp(packet_id):
                self._released.pop(packet_id, None)
            case _:
                raise AssertionError(f"nobody asked for {packet}")

    def _publish(self, writer: asyncio.StreamWriter, packet_id: int, number: int, *, dup: bool) -> None:
        self.sent[number] += 1
        payload = f"{self.name}:{number}".encode()
        writer.write(codec.encode(Publish(self._topic, payload, self._qos, False, dup, packet_id), 4))


class Sleeper:
    """A device with a session that waits for it while it sleeps; `received` counts each payload."""

    def __init__(self, name: str, port: int, topic_filter: str, qos: int = 1) -> None:
        self.received: Counter[str] = Counter()
        self._name = name
        self._port = port
        self._subscribe = Subscribe(1, (Subscription(topic_filter, qos),))

    async def subscribe(self) -> None:
        """Subscribe and go to sleep."""
        async with self._awake() as (reader, writer, framer, connack):
            assert not connack.session_present
            writer.write(codec.encode(self._subscribe, 4))
            [suback] = await read_packets(reader, framer)
            assert isinstance(suback, Suback)

    async def collect(self, wanted: set[str], wait_s: float = 20) -> set[str]:
        """Wake up and take what waits until all of `wanted` has come; return what has not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._awake() as (reader, writer, framer, connack):
                assert connack.session_present, "the session is gone"
                while not wanted <= self.received.keys():
                    self._take(writer, await read_packets(reader, framer))
        return wanted - self.received.keys()

    @contextlib.asynccontextmanager
    async def _awake(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Framer, Connack]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(codec.encode(Connect(self._name, clean_start=False, keep_alive_s=60), 4))
            framer = Framer(4)
            connack, *early = await read_packets(reader, framer)
            assert isinstance(connack, Connack)
            self._take(writer, early)
            yield reader, writer, framer, connack
            writer.write(codec.encode(Disconnect(), 4))
            await writer.drain()
        finally:
            writer.close()

    def _take(self, writer: asyncio.StreamWriter, packets: list[Packet]) -> None:
        for packet in packets:
            assert isinstance(packet, Publish)
            self.received[packet.payload.decode()] += 1
            if packet.qos == 1:
                writer.write(codec.encode(Puback(packet.packet_id), 4))


class Listener:
    """A device with a session that is there all the time, and comes back whenever it is cut off.

    `fresh` counts, for each payload, the messages it took for new: those without DUP,
    and with QoS 2 those whose packet identifier it did not hold. `again` counts the
    others with QoS 1.
    """

    def __init__(self, name: str, port: int, *subscriptions: Subscription) -> None:
        self.fresh: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.subscribed = asyncio.Event()
        self._name = name
        self._port = port
        self._subscribe = Subscribe(1, subscriptions)
        self._held: set[int] = set()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await self._listen(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer(4)
        writer.write(codec.encode(Connect(self._name, clean_start=False, keep_alive_s=60), 4))
        [connack, *packets] = await read_packets(reader, framer)
        assert isinstance(connack, Connack)
        assert connack.session_present or not self.subscribed.is_set(), "the session is gone"
        if not self.subscribed.is_set():
            writer.write(codec.encode(self._subscribe, 4))
        while True:
            for packet in packets:
                self._take(writer, packet)
            await writer.drain()
            packets = await read_packets(reader, framer)

    def _take(self, writer: asyncio.StreamWriter, packet: Packet) -> None:
        match packet:
            case Suback():
                self.subscribed.set()
            case Publish(qos=1):
                payload = packet.payload.decode()
                # One that was on its way when the gateway died is the first we see of it.
                (self.again if packet.dup and payload in self.fresh else self.fresh)[payload] += 1
                writer.write(codec.encode(Puback(packet.packet_id), 4))
            case Publish(qos=2):
                if packet.packet_id not in self._held:
                    self._held.add(packet.packet_id)
                    self.fresh[packet.payload.decode()] += 1
                writer.write(codec.encode(Pubrec(packet.packet_id), 4))
            case Pubrel(packet_id):
                self._held.discard(packet_id)
                writer.write(codec.encode(Pubcomp(packet_id), 4))
            case _:
                raise AssertionError(f"nobody asked for {packet}")


async def read_packets(reader: asyncio.StreamReader, framer: Framer) -> list[Packet]:
    """At least one packet. Raises EOFError when the broker is gone."""
    while True:
        data = await reader.read(65_536)
        if not data:
            raise EOFError
        packets, fault = framer.receive(data)
        assert fault is None
        if packets:
            return packets
