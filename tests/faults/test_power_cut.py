"""The power goes, on a real file system (D2).

What was acknowledged is remembered here, in another process than the gateway's, so
every image of the disk can be held against what devices had been told by then. The
hostile model of `tests/store/disk.py` loses more than any real disk does; this one
is here because nobody believes a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.store import Spool
from tests.faults.disks import PluggedDisk
from tests.gateway import Gateway
from tests.house.device import Device
from tests.house.receiver import FarEnd
from tests.house.verdict import judge
from tests.servers import free_port

ENDLESS = 10_000_000
QUOTA = 4 << 20
LONG_TOPIC = "plant/" + "long" * 100
FAR_END_EVERY = 8  # images between two visits of the far end, which moves cursors and frees segments


@pytest.fixture
def disk(tmp_path: Path, kind: str) -> Iterator[PluggedDisk]:
    with contextlib.ExitStack() as rooms:
        yield PluggedDisk(tmp_path, rooms, kind)


class Told:
    """What one device knew at one moment."""

    def __init__(self, device: Device) -> None:
        self.name = device.name
        self.acknowledged = set(device.acknowledged)
        self.sent = device.sent


async def _uplink(state: Path) -> list[tuple[str, str]]:
    """Recover the store there; every message in its uplink as (id, payload)."""
    spool = Spool.open(str(state), QUOTA)
    try:
        found, position = [], spool.uplink.head
        while entries := spool.uplink.read(position):
            position = entries[-1].end
            found += [(str(entry.sequence), entry.message.payload.decode()) for entry in entries]
        return found
    finally:
        await spool.close()


@pytest.mark.parametrize(
    ("kind", "images", "seed"),
    [
        pytest.param("ext4", 20, 1, id="ext4-20-images"),
        pytest.param("xfs", 8, 3, id="xfs-8-images"),
        *(
            pytest.param(
                kind, 200, seed, id=f"{kind}-200-images", marks=[pytest.mark.long, pytest.mark.timeout(1200)]
            )
            for kind, seed in (("ext4", 2), ("xfs", 4))
        ),
    ],
)
async def test_given_power_cuts_at_random_moments_then_no_acknowledged_message_is_lost(
    tmp_path: Path, disk: PluggedDisk, kind: str, images: int, seed: int
) -> None:
    luck = random.Random(seed)
    # Small segments, so that they begin and end all the time, and their files are used again.
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = Gateway(
        tmp_path / "gateway",
        store={"path": str(disk.path / "state"), "max_bytes": "4MiB"},
        sinks={"cloud": {"zeromq": {"bind": endpoint}}},
    )
    far_end = FarEnd(tmp_path / "far", endpoint)
    devices = [
        Device("once", gateway.port, ENDLESS, 500, topic=LONG_TOPIC),
        Device("twice", gateway.port, ENDLESS, 150, qos=2, topic=LONG_TOPIC),
    ]
    used_again = 0
    acknowledged = 0
    gateway.start()
    running = [asyncio.create_task(device.run()) for device in devices]
    try:
        for number in range(images):
            if number % FAR_END_EVERY == FAR_END_EVERY // 2:
                far_end.start()
            elif number % FAR_END_EVERY == 0:
                far_end.kill()
            # Not a wait for anything: the moment of the cut is the random part of this test.
            await asyncio.sleep(luck.uniform(0, 0.3))
            # Nothing runs here between what devices know and the moment before the image.
            told = [Told(device) for device in devices]
            kept = tmp_path / "pool" / f"{number}.img"
            disk.keep(kept)
            delivered = {(one["id"].rpartition("/")[2], one["payload"]) for one in far_end.received()}
            with disk.found(kept) as place:
                newest = max((place / "state" / "uplink").glob("*.seg"), default=None)
                used_again += newest is not None and newest.read_bytes()[8] == 2
                there = dict(await _uplink(place / "state"))
            for message_id, payload in delivered:
                assert there.setdefault(message_id, payload) == payload, "one id, two contents"
            arrivals = sorted(there.items(), key=lambda one: int(one[0]))
            judge(arrivals, told)  # type: ignore[arg-type]
            acknowledged = sum(len(each.acknowledged) for each in told)
            for task in running:
                assert not task.done(), task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        gateway.kill()
        far_end.kill()
    assert acknowledged > images * 20, "too little was under way for this to mean anything"
    # In a few images it may happen that there is none.
    assert used_again or images < 20, "no file was used again"
    assert "Traceback" not in gateway.output()
    print(
        f"{images} images of a disk ({kind}) without power, in {used_again} the newest segment in a file"
        f" used again; {acknowledged:,} acknowledged, 0 lost, 0 unreadable"
    )
