"""Somebody who tries passwords: `python -m tests.faults.guesser PORT PER_SECOND SECONDS`.

Prints as JSON how often each reason was given.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import Connack, Connect

__all__ = ["login"]


async def login(port: int, user: str, password: str, address: str = "127.0.0.1") -> tuple[int, float]:
    """The reason in CONNACK, and how long it took from CONNECT on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        began = time.perf_counter()
        writer.write(encode(Connect("", 5, user_name=user, password=password.encode()), 5))
        data = await asyncio.wait_for(reader.read(1024), 15)
        took = time.perf_counter() - began
        found = decode(data, 5)
        assert found is not None
        assert isinstance(found[0], Connack)
        return found[0].reason, took
    finally:
        writer.transport.abort()


async def guess(port: int, per_second: float, seconds: float) -> Counter[int]:
    """Guesses at an even rate, half of them for users that are not there."""
    began, number = time.monotonic(), 0
    tasks: set[Any] = set()
    counts: Counter[int] = Counter()

    async def one(number: int) -> None:
        reason, _ = await login(port, f"user-{number % 40}", f"guess-{number}")
        counts[reason] += 1

    while (elapsed := time.monotonic() - began) < seconds:
        while number < elapsed * per_second:
            task = asyncio.ensure_future(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return counts


if __name__ == "__main__":
    print(json.dumps(asyncio.run(guess(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
