"""A device as the specification wants it: it keeps what is not acknowledged and sends it again.

Written with raw sockets so that a test knows, for every payload, how often the
device itself had to send it, and when it was told that it is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from bridge.mqtt import codec
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import Connack, Connect, Packet, Puback, Publish

WINDOW = 50  # PUBLISH packets unanswered at once
RECONNECT_S = 0.05


class Device:
    """Publishes `count` numbered messages with QoS 1, at most `rate` a second, whatever happens to the broker.

    `acknowledged` are the numbers whose PUBACK came; `sent` counts the PUBLISH
    packets written for each number.
    """

    def __init__(self, name: str, port: int, count: int, rate: float) -> None:
        self.name = name
        self.acknowledged: set[int] = set()
        self.sent: Counter[int] = Counter()
        self._port = port
        self._count = count
        self._rate = rate
        self._next = 0
        self._unanswered: dict[int, int] = {}  # packet identifier → number, in the order of sending

    async def run(self) -> None:
        """Return when every message is acknowledged."""
        while len(self.acknowledged) < self._count:
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
        [connack] = await _read(reader, framer)
        assert isinstance(connack, Connack)
        assert connack.reason == 0
        for packet_id, number in list(self._unanswered.items()):
            self._publish(writer, packet_id, number, dup=True)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self._next
        while len(self.acknowledged) < self._count:
            allowed = before + int((loop.time() - began) * self._rate) + 1
            while self._next < min(self._count, allowed) and len(self._unanswered) < WINDOW:
                packet_id = self._next % 65_535 + 1
                self._unanswered[packet_id] = self._next
                self._publish(writer, packet_id, self._next, dup=False)
                self._next += 1
            await writer.drain()
            if not self._unanswered:
                await asyncio.sleep(1 / self._rate)
                continue
            for packet in await _read(reader, framer):
                assert isinstance(packet, Puback)
                self.acknowledged.add(self._unanswered.pop(packet.packet_id))

    def _publish(self, writer: asyncio.StreamWriter, packet_id: int, number: int, *, dup: bool) -> None:
        self.sent[number] += 1
        payload = f"{self.name}:{number}".encode()
        packet = Publish(f"plant/{self.name}/count", payload, 1, False, dup, packet_id)
        writer.write(codec.encode(packet, 4))


async def _read(reader: asyncio.StreamReader, framer: Framer) -> list[Packet]:
    """At least one packet. Raises EOFError when the broker is gone."""
    while True:
        data = await reader.read(65_536)
        if not data:
            raise EOFError
        packets, fault = framer.receive(data)
        assert fault is None
        if packets:
            return packets
