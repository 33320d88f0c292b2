"""A partition of 16 MB, with the configuration that runs when nobody writes one; and a store that does
not wait for the disk, killed all the same."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.faults.disks import mounted, run
from tests.faults.publisher import Publisher
from tests.faults.test_disk import QUOTA_EXCEEDED, _everything, _publish_until_refused
from tests.gateway import Gateway, until
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.servers import free_port

KIB = 1024
MIB = 1 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def partition(request, tmp_path):
    """16 MB, of which a file system takes its part."""
    what: list[str | Path] = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"]
    if request.param == "ext4":
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(16 * MIB)
        run("mkfs.ext4", "-q", image)
        what = ["-o", "loop", image]
    with mounted(tmp_path / "partition", *what) as place:
        yield place


async def test_on_a_partition_of_16_mb_the_store_is_full_before_the_disk_and_goes_on_for_ever(
    tmp_path: Path, partition: Path
) -> None:
    """Three times full, killed, drained: nothing lost, and never a write that found no room."""
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = partition / "state"
    assert gateway.endpoint is not None
    publisher = Publisher(gateway.port)
    gateway.start()
    received: list[str] = []
    try:
        for fill in range(3):
            far_end = FarEnd(tmp_path / f"far-{fill}", gateway.endpoint)
            begin = len(publisher.acknowledged)
            await _publish_until_refused(publisher, 8 * KIB)
            assert publisher.farewell == QUOTA_EXCEEDED
            taken = len(publisher.acknowledged) - begin
            assert taken * 8 * KIB > 16 * MIB // 2, "most of the partition is for messages"
            assert os.statvfs(partition).f_bavail > 0
            gateway.kill()
            gateway.start()
            far_end.start()
            fresh = Publisher(gateway.port)
            fresh.acknowledged = publisher.acknowledged[begin:]
            received += await _everything(far_end, fresh)
            far_end.kill()
            await until(lambda: gateway.status()["routes"]["default"]["backlog_messages"] == 0)
        assert list(dict.fromkeys(received)) == publisher.acknowledged
        status = gateway.status()["store"]
        assert (status["state"], status["reason"]) == ("ok", "")
        assert status["max_bytes"] < 16 * MIB
        assert gateway.stop() == 0
    finally:
        publisher.close()
        gateway.kill()
    output = gateway.output()
    assert "quota lowered" in output
    assert "store failed" not in output
    assert "Traceback" not in output


async def test_given_durability_write_then_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """The kernel has it; `tests/store/test_files.py` shows that no sync is asked for."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = Gateway(
        tmp_path / "gateway",
        store={"path": str(tmp_path / "spool"), "max_bytes": "64MiB", "durability": "write"},
        sinks={"cloud": {"zeromq": {"bind": endpoint}}},
    )
    luck = random.Random(7)
    publisher = Publisher(gateway.port)
    far_end = FarEnd(tmp_path / "far", endpoint)
    gateway.start()
    number = 0
    try:
        for _ in range(10):
            for _ in range(luck.randrange(20, 200)):
                assert await publisher.publish(str(number), 100)
                number += 1
            gateway.kill()
            publisher.close()
            await asyncio.to_thread(gateway.start)
        assert gateway.status()["store"]["durability"] == "write"
        far_end.start()
        assert await _everything(far_end, publisher) == publisher.acknowledged
    finally:
        publisher.close()
        gateway.kill()
        far_end.kill()
