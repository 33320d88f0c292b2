"""Ten thousand sleeping sessions, each with messages waiting, do not slow a publish to one of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median

import psutil
import pytest

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Publish
from tests.broker.device import Device
from tests.gateway import Gateway

AT_ONCE = 500  # PUBLISH packets unanswered: half of what the gateway allows
ROOMY = {
    "store": {"max_bytes": "8GiB"},
    "limits": {"session_messages": 10_000_000, "session_bytes": "4GiB", "failed_logins": 1},
    "routes": {},
    "sinks": {},
    "sys": "off",
}
ROUNDS = 7
LEAST = 0.9  # of the rate with one session


def _gateway(folder: Path) -> Gateway:
    store = {"path": str(folder / "spool"), **ROOMY["store"]}
    return Gateway(folder, **{**ROOMY, "store": store})


async def _fall_asleep(gateway: Gateway, count: int) -> None:
    """So many sessions, each with a filter of its own, and none of them connected any more."""

    async def one(number: int) -> None:
        device = await Device.connect(gateway.port, f"sleeper-{number}", 4, clean=False)
        await device.subscribe(f"for/{number}/#")
        await device.leave()

    for begin in range(0, count, 100):
        await asyncio.gather(*(one(number) for number in range(begin, min(begin + 100, count))))


async def _publish(sender: Device, topics: list[str]) -> float:
    """Publish to each topic, as quickly as it is acknowledged; seconds."""
    chunks = [
        b"".join(
            encode(Publish(topic, b"x" * 64, 1, packet_id=nth + 1), 4)
            for nth, topic in enumerate(topics[begin : begin + AT_ONCE])
        )
        for begin in range(0, len(topics), AT_ONCE)
    ]
    began = time.perf_counter()
    for chunk in chunks:
        sender.send_bytes(chunk)
        answers = 0
        while answers < AT_ONCE * 4:
            read = await sender._reader.read(65_536)
            assert read, "the gateway has closed"
            answers += len(read)
    return time.perf_counter() - began


@pytest.mark.parametrize(
    ("sessions", "waiting"),
    [
        (1_000, 10),
        pytest.param(10_000, 100, marks=[pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(900)]),
    ],
)
async def test_a_publish_to_one_of_many_sleepers_costs_what_one_to_the_only_one_costs(
    tmp_path, sessions, waiting
):
    alone, crowd = _gateway(tmp_path / "alone"), _gateway(tmp_path / "crowd")
    alone.start()
    crowd.start()
    try:
        before = psutil.Process(crowd.pid).memory_info().rss
        await _fall_asleep(alone, 1)
        await _fall_asleep(crowd, sessions)
        one, many = await Device.connect(alone.port, "one", 4), await Device.connect(crowd.port, "many", 4)
        everyone = [f"for/{number}/a" for number in range(sessions)]
        for _ in range(waiting):
            await _publish(many, everyone)
        grown = psutil.Process(crowd.pid).memory_info().rss - before
        ratios = []
        topics = ["for/0/a"] * AT_ONCE * 20
        for _ in range(ROUNDS):
            taken_alone = await _publish(one, topics)
            taken_crowded = await _publish(many, topics)
            ratios.append(taken_alone / taken_crowded)
        print(
            f"{sessions:,} sleepers, {waiting} messages each: {median(ratios):.2f} of the rate with one "
            f"({min(ratios):.2f}–{max(ratios):.2f}), {len(topics) / taken_crowded:,.0f}/s; "
            f"{grown / sessions / 1024:.1f} KiB a session, {grown / sessions / waiting:.0f} B a message"
        )
        assert median(ratios) >= LEAST
        status = await asyncio.to_thread(crowd.status)
        assert status["mqtt"]["dropped"] == 0
        assert status["mqtt"]["sessions"] == sessions + 1
    finally:
        alone.kill()
        crowd.kill()
