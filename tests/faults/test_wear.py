"""What the flash is made to bear, counted at the device (the row "flash wear" of issue 4).

`/sys/block` says what a disk was sent: data, metadata, journal and all. What the gateway
counts itself (`written_bytes`) is only the first of these.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import CountedDisk
from tests.gateway import Gateway

PAYLOAD_BYTES = 1024
PAYLOADS = {
    # Enough in flight that commits are as large as they get: the target is for this.
    "full-load": {"connections": 50, "window": 20},
    # One message a commit: what a small plant does all day, and the most that a byte can cost.
    "one-at-a-time": {"connections": 1, "window": 1},
}
TOPIC_BYTES = len("bench/0")
WRITTEN_PER_BYTE_MAX = 1.15
JOURNAL_MAX = 1.3  # what the device is sent for each byte that we write; without files used again 1.6


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[CountedDisk]:
    with CountedDisk(tmp_path) as disk:
        yield disk


def load(gateway: Gateway, shape: dict[str, int], seconds: float) -> float:
    """Send for as long, and return how many messages were acknowledged."""
    assert gateway.pid
    arguments = {**shape, "qos": 1, "payload_bytes": PAYLOAD_BYTES, "port": gateway.port, "pid": gateway.pid}
    arguments |= {"warm_s": 0.0, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load", json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    return float(json.loads(done.stdout)["acknowledged"])


def used_again(gateway: Gateway, disk: CountedDisk) -> bool:
    """Whether the newest segment is in a file that was another's: the second version of its header."""
    newest = max((disk.path / "spool" / "uplink").glob("*.seg"), default=None)
    return newest is not None and newest.read_bytes()[8] == 2


def test_at_full_load_a_byte_costs_1_15_bytes_of_flash_at_most_and_the_journal_is_not_written_every_time(
    tmp_path: Path, disk: CountedDisk
) -> None:
    gateway = Gateway(
        tmp_path / "gateway",
        store={"path": str(disk.path / "spool"), "max_bytes": "64MiB"},
        sinks={"cloud": {"memory": {}}},
    )
    gateway.start()
    try:
        for name, shape in PAYLOADS.items():
            # What it is like in the long run: all segments so far were in new files.
            while not used_again(gateway, disk):
                load(gateway, PAYLOADS["full-load"], 0.5)
            before = gateway.status()["store"]
            disk.settle()
            sent, commits = disk.written_bytes, before["commits"]
            acknowledged = load(gateway, shape, 3)
            disk.settle()
            after = gateway.status()["store"]
            bytes_taken = acknowledged * (TOPIC_BYTES + PAYLOAD_BYTES)
            at_the_device = (disk.written_bytes - sent) / bytes_taken
            said = (after["written_bytes"] - before["written_bytes"]) / bytes_taken
            commits = after["commits"] - commits
            if name == "full-load":
                assert at_the_device <= WRITTEN_PER_BYTE_MAX
            assert at_the_device <= said * JOURNAL_MAX
            print(
                f"{name}: {acknowledged:,.0f} messages in {commits:,} commits of {after['commit_ms']:.2f} ms:"
                f" {at_the_device:.3f} bytes a byte at the device, {said:.3f} of them ours"
            )
    finally:
        gateway.kill()
