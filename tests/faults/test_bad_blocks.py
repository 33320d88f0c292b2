"""A real block device stops writing, and lies about it afterwards (D9).

A sync that failed has thrown the bytes away, and the one after it succeeds without
them. Whoever tries again on the same file acknowledges what is nowhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.store import Spool
from tests.faults.disks import FailingDisk
from tests.faults.publisher import Publisher
from tests.house.shipped import Shipped

QUOTA = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    disk = FailingDisk(tmp_path)
    yield disk
    disk.close()


async def _uplink(state: Path) -> list[str]:
    """Recover the store there; the payloads in its uplink, in order."""
    spool = Spool.open(str(state), QUOTA)
    try:
        found, position = [], spool.uplink.head
        while entries := spool.uplink.read(position):
            position = entries[-1].end
            found += [entry.message.payload.decode().partition("|")[0] for entry in entries]
        return found
    finally:
        await spool.close()


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [
        pytest.param(2, 1, id="2-rounds"),
        pytest.param(50, 2, id="50-rounds", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_given_a_device_that_fails_and_then_lies_then_all_that_was_acknowledged_is_on_it(
    tmp_path: Path, disk: FailingDisk, rounds: int, seed: int
) -> None:
    luck = random.Random(seed)
    gateway = Shipped(tmp_path / "gateway")
    publisher = Publisher(gateway.port)
    number = 0
    try:
        for _ in range(rounds):
            with disk.plugged_in() as place:
                gateway.state = place / "state"
                gateway.start()
                try:
                    refused = 0
                    for _ in range(luck.randint(1, 60)):
                        assert await publisher.publish(str(number), luck.choice((0, 3000)))
                        number += 1
                    with disk.failing():
                        while refused < 3:
                            refused += not await publisher.publish(str(number), luck.choice((0, 3000)))
                            number += 1
                    # Whatever it says now: ext4 may have given up, and then nothing is acknowledged.
                    for _ in range(luck.randint(0, 20)):
                        await publisher.publish(str(number))
                        number += 1
                finally:
                    publisher.close()
                    gateway.kill()
            with disk.plugged_in() as place:
                found = await _uplink(place / "state")
            lost = set(publisher.acknowledged) - set(found)
            assert not lost, f"{len(lost)} acknowledged and not there, such as {sorted(lost)[:5]}"
            assert [one for one in found if one in set(publisher.acknowledged)] == publisher.acknowledged
    finally:
        gateway.kill()
    print(f"{rounds} times the device failed, {len(publisher.acknowledged)} acknowledged, 0 lost")
    assert "Traceback" not in gateway.output()
