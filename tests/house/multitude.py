"""Many devices in one process: `python -m tests.house.multitude KIND PORT COUNT [CA]`.

They connect, say so, and are silent. Each line on stdin is `publish DEVICES MESSAGES`:
so many of them publish so many messages with QoS 1, one after the other, and the
answer is how many PUBACKs came. At the end of stdin they are gone.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect, Publish
from tests.broker.wires import Wire, request

AT_ONCE = 50


async def main(kind: str, port: int, count: int, authority: str = "") -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = ssl.create_default_context(cafile=authority) if authority else None
    name = "localhost" if context is not None else None

    async def come(number: int):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        if kind in ("ws", "wss"):
            reader = writer = wire = Wire(reader, writer)
            assert await wire.upgrade(request()) == 101
        writer.write(encode(Connect(f"device-{number}", 4), 4))
        assert await reader.read(4) == b"\x20\x02\x00\x00"
        return reader, writer

    async def publish(reader, writer, messages: int) -> int:
        for number in range(1, messages + 1):
            writer.write(encode(Publish("plant/many", b"x" * 64, 1, packet_id=number), 4))
            answer = await reader.read(4)
            if answer != b"\x40\x02" + number.to_bytes(2):
                return number - 1
        return messages

    devices = []
    for first in range(0, count, AT_ONCE):
        devices += await asyncio.gather(*(come(first + n) for n in range(min(AT_ONCE, count - first))))
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        _, many, messages = line.split()
        done = await asyncio.gather(*(publish(*each, int(messages)) for each in devices[: int(many)]))
        print(sum(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
