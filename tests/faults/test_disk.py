"""The disk fails, fills up, or is the last thing that the process ever touches (D4, D8, D10, D11)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import mounted
from tests.faults.publisher import Publisher
from tests.faults.tracer import Tampered, killing
from tests.gateway import Gateway, until
from tests.house.device import Device, Sleeper
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.house.verdict import judge
from tests.servers import free_port

QUOTA_EXCEEDED = 0x97
BACK_S_MAX = 5.0
ROOM_S_MAX = 2.0
KIB = 1024


def ready(gateway: Gateway) -> tuple[int, str]:
    """What /readyz says: its status and its text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def _publish_until_refused(publisher: Publisher, padding: int = 0, most: int = 10_000) -> str:
    """Publish numbers until one is not acknowledged, and return that one."""
    for number in range(len(publisher.acknowledged), most):
        if not await publisher.publish(str(number), padding):
            return str(number)
    raise AssertionError(f"all {most} were acknowledged")


async def _publish_until_taken(publisher: Publisher, payload: str, padding: int = 0) -> float:
    """Publish the same until it is acknowledged; return how long that took, in seconds."""
    began = time.monotonic()
    while not await publisher.publish(payload, padding):
        assert time.monotonic() - began < 30, "it is never taken again"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _payloads(far_end: FarEnd) -> list[str]:
    return [one["payload"].partition("|")[0] for one in far_end.received()]


async def _everything(far_end: FarEnd, publisher: Publisher) -> list[str]:
    """Wait until the far end has all that was acknowledged; return what it has, in order."""
    wanted = set(publisher.acknowledged)
    await until(lambda: wanted <= set(_payloads(far_end)), 30)
    return _payloads(far_end)


# ---- fdatasync fails ---------------------------------------------------------------


@pytest.mark.parametrize(("when", "version"), [("1", 4), ("4", 5), ("2..3", 5), ("3+", 4)])
async def test_given_fdatasync_fails_then_no_puback_and_readyz_says_why_and_it_comes_back_by_itself(
    tmp_path: Path, when: str, version: int
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    publisher = Publisher(gateway.port, version)
    gateway.start()
    try:
        assert await publisher.publish("before")
        with Tampered(gateway.pid, "fdatasync", f"error=EIO:when={when}"):
            refused = await _publish_until_refused(publisher)
            assert publisher.farewell == (QUOTA_EXCEEDED if version == 5 else None)
            code, why = await asyncio.to_thread(ready, gateway)
            assert code == 503
            assert "Input/output error" in why
        took_s = await _publish_until_taken(publisher, refused)
        assert took_s <= BACK_S_MAX
        assert (await asyncio.to_thread(ready, gateway))[0] == 200
        assert await publisher.publish("after")
        assert gateway.output().count("store failed") == gateway.output().count("store back") == 1
        gateway.kill()
        gateway.start()
        far_end.start()
        assert await _everything(far_end, publisher) == publisher.acknowledged
    finally:
        publisher.close()
        gateway.kill()
        far_end.kill()
    assert "Traceback" not in gateway.output()


@pytest.mark.parametrize(
    ("injections", "seed"),
    [
        pytest.param(20, 1, id="20-injections"),
        pytest.param(200, 2, id="200-injections", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
async def test_given_fdatasync_fails_again_and_again_then_no_ack_was_for_what_is_not_on_the_disk(
    tmp_path: Path, injections: int, seed: int
) -> None:
    luck = random.Random(seed)
    gateway = Shipped(tmp_path / "gateway")
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    publisher = Publisher(gateway.port)
    slowest_s = said_s = 0.0
    gateway.start()
    try:
        for _ in range(injections):
            segments = {path.name for path in gateway.state.glob("uplink/*.seg")}
            with Tampered(gateway.pid, "fdatasync", f"error=EIO:when={luck.randint(1, 6)}"):
                refused = await _publish_until_refused(publisher)
                began = time.monotonic()
                code, why = await asyncio.to_thread(ready, gateway)
                said_s = max(said_s, time.monotonic() - began)
                assert (code, "Input/output error" in why) == (503, True)
            slowest_s = max(slowest_s, await _publish_until_taken(publisher, refused))
            assert (await asyncio.to_thread(ready, gateway))[0] == 200
            new = {path.name for path in gateway.state.glob("uplink/*.seg")} - segments
            assert new, "what failed went to the same file again"
        gateway.kill()
        gateway.start()
        far_end.start()
        assert await _everything(far_end, publisher) == publisher.acknowledged
    finally:
        publisher.close()
        gateway.kill()
        far_end.kill()
    print(
        f"{injections} failed syncs, {len(publisher.acknowledged)} acknowledged, 0 lost; readyz said why"
        f" within {said_s:.2f} s, acknowledging again after {slowest_s:.2f} s at most"
    )
    assert said_s <= 1
    assert slowest_s <= BACK_S_MAX
    assert "Traceback" not in gateway.output()


# ---- killed at an exact call -------------------------------------------------------


class Mortal(Gateway):
    """A gateway with something in front of its command."""

    before: Sequence[str] = ()

    def command(self) -> list[str]:
        return [*self.before, *super().command()]


LONG = [pytest.mark.long, pytest.mark.timeout(1200)]
EVERY_CALL = {
    "fdatasync": range(1, 61),
    "fsync": range(1, 25),
    "rename,renameat,renameat2": range(1, 16),
    "unlink,unlinkat": range(1, 8),
    "fallocate": range(1, 8),
    "ftruncate": range(1, 4),
    "pwrite64": range(1, 61),
}


@pytest.mark.parametrize(
    ("call", "moments"),
    [
        pytest.param("fdatasync", [1, 2, 5, 8, 13, 30], id="fdatasync-6-moments"),
        pytest.param("rename,renameat,renameat2", [1, 4, 5, 8], id="rename-4-moments"),
        *(
            pytest.param(call, moments, id=f"{call}-{len(moments)}-moments", marks=LONG)
            for call, moments in EVERY_CALL.items()
        ),
    ],
)
async def test_given_a_kill_at_exactly_the_nth_call_then_no_acknowledged_message_is_lost(
    tmp_path: Path, call: str, moments: Sequence[int]
) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    # Small segments: they begin, end and are let go all the time, and so are all these calls made.
    parts: dict[str, Any] = {
        "store": {"path": str(tmp_path / "spool"), "max_bytes": "2MiB"},
        "sinks": {"cloud": {"zeromq": {"bind": endpoint}}},
    }
    gateway = Mortal(tmp_path / "gateway", **parts)
    far_end = FarEnd(tmp_path / "far", endpoint)
    device = Device("d", gateway.port, 10_000_000, 1500, topic="plant/" + "long" * 100)
    running = asyncio.create_task(device.run())
    far_end.start()
    killed = 0
    try:
        for moment in moments:
            # Tables are put in their places, where there are none; the rest are segments and spares.
            if call.startswith("rename") and moment < 3:
                shutil.rmtree(tmp_path / "spool" / "tables", ignore_errors=True)
            gateway.before = killing(call, moment)
            gateway.launch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert await asyncio.to_thread(gateway.wait, 20) == -9
                killed += 1
            gateway.kill()  # no further call of this kind came: it lived, and dies like this
            assert not running.done(), running.result()
        gateway.before = ()
        await asyncio.to_thread(gateway.start)
        await until(lambda: device.acknowledged)
        device.finish()
        await asyncio.wait_for(running, 20)
        await asyncio.to_thread(far_end.wait_for, {f"d:{number}" for number in device.acknowledged})
        assert gateway.stop() == 0
    finally:
        running.cancel()
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], [device])
    assert killed > len(moments) // 2
    print(f"{killed} kills at {call}, {len(device.acknowledged)} acknowledged, 0 lost; {verdict}")
    assert "Traceback" not in gateway.output()


# ---- no room -----------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB: room for two segments, and not for three."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=48m", "none") as folder:
        yield folder


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB: less than one segment would like to have."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "none") as folder:
        yield folder


async def test_given_a_full_disk_then_nothing_is_promised_and_it_resumes_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = small_disk / "state"
    publisher = Publisher(gateway.port)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.start()
    try:
        assert await publisher.publish("0")  # takes the room of the first segment
        ballast = small_disk / "ballast"
        _fill(ballast)
        refused = await _publish_until_refused(publisher, 200 * KIB)
        assert publisher.farewell == QUOTA_EXCEEDED
        code, why = await asyncio.to_thread(ready, gateway)
        assert code == 503
        assert "No space left" in why
        dropped = gateway.status()["mqtt"]["dropped"]
        for _ in range(10):
            await publisher.say(b"y" * 200 * KIB)
        await until(lambda: gateway.status()["mqtt"]["dropped"] == dropped + 10)
        publisher.close()
        ballast.unlink()
        took_s = await _publish_until_taken(publisher, refused, 200 * KIB)
        print(
            f"full after {len(publisher.acknowledged)} messages, resumed {took_s:.2f} s after there was room"
        )
        assert took_s <= ROOM_S_MAX
        gateway.kill()
        gateway.start()
        far_end.start()
        await until(lambda: set(publisher.acknowledged) <= set(_payloads(far_end)), 30)
        numbers = [payload for payload in _payloads(far_end) if not payload.startswith("y")]
        assert numbers == publisher.acknowledged
    finally:
        publisher.close()
        gateway.kill()
        far_end.kill()
    assert "Traceback" not in gateway.output()


def _fill(path: Path) -> None:
    """Leave not one byte."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 * KIB))
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")


async def test_given_a_full_disk_when_killed_and_started_again_then_it_drains_and_makes_its_own_room(
    tmp_path: Path, small_disk: Path
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = small_disk / "state"
    publisher = Publisher(gateway.port)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.start()
    try:
        refused = await _publish_until_refused(publisher, 200 * KIB)
        _fill(small_disk / "ballast")
        assert os.statvfs(small_disk).f_bavail == 0
        # The box is switched off and on again: it has to come up without a byte to write to.
        gateway.kill()
        gateway.start()
        far_end.start()
        received = await _everything(far_end, publisher)
        assert received == publisher.acknowledged
        took_s = await _publish_until_taken(publisher, refused, 200 * KIB)
        print(f"{len(received)} drained at 0 bytes free; resumed after {took_s:.2f} s")
        assert took_s <= ROOM_S_MAX
    finally:
        publisher.close()
        gateway.kill()
        far_end.kill()
    assert "Traceback" not in gateway.output()


async def test_given_not_one_byte_free_then_a_sleeping_device_still_gets_what_waits_for_it(
    tmp_path: Path, tiny_disk: Path
) -> None:
    """What a session has taken is written down before it goes out: a few bytes are kept for that."""
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = tiny_disk / "state"
    publisher = Publisher(gateway.port, topic="alarm/a")
    sleeper = Sleeper("sleeper", gateway.port, "alarm/#")
    gateway.start()
    try:
        await sleeper.subscribe()
        for number in range(500):
            assert await publisher.publish(str(number))
        ballast = tiny_disk / "ballast"
        _fill(ballast)
        assert os.statvfs(tiny_disk).f_bavail == 0
        refused = await _publish_until_refused(publisher, 200 * KIB)
        missing_ones = await sleeper.collect({str(number) for number in range(500)})
        assert not missing_ones, f"{len(missing_ones)} did not come"
        # And again where the gateway has to come up without a byte to write to.
        gateway.kill()
        gateway.start()
        assert not await sleeper.collect({str(number) for number in range(500)})
        publisher.close()
        ballast.unlink()
        took_s = await _publish_until_taken(publisher, refused, 200 * KIB)
        print(f"500 taken at 0 bytes free; resumed after {took_s:.2f} s")
        assert took_s <= ROOM_S_MAX
    finally:
        publisher.close()
        gateway.kill()
    assert "Traceback" not in gateway.output()


async def test_given_a_full_quota_then_accepted_is_delivered_to_the_message(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    parts: dict[str, Any] = {
        "store": {"path": str(tmp_path / "spool"), "max_bytes": "2MiB"},
        "sinks": {"cloud": {"zeromq": {"bind": endpoint}}},
    }
    gateway = Gateway(tmp_path / "gateway", **parts)
    far_end = FarEnd(tmp_path / "far", endpoint)
    publisher = Publisher(gateway.port)
    device = Device("d", gateway.port, 20_000, 5_000)
    gateway.start()
    running = None
    try:
        await _publish_until_refused(publisher, 20 * KIB)
        assert publisher.farewell == QUOTA_EXCEEDED
        assert gateway.status()["store"]["state"] == "full"
        running = asyncio.create_task(device.run())
        await until(lambda: gateway.status()["mqtt"]["refused"] > 1)
        far_end.start()
        await asyncio.wait_for(running, 60)
        wanted = {f"d:{number}" for number in range(20_000)}
        assert not await asyncio.to_thread(far_end.wait_for, wanted)
        assert set(publisher.acknowledged) <= set(_payloads(far_end))
        await until(lambda: gateway.status()["routes"]["all"]["backlog_messages"] == 0)
        status = gateway.status()
        assert gateway.stop() == 0
    finally:
        if running is not None:
            running.cancel()
        publisher.close()
        gateway.kill()
        far_end.kill()
    arrivals = [(one["id"], one["payload"]) for one in far_end.received() if one["payload"].startswith("d:")]
    verdict = judge(arrivals, [device])
    assert verdict.repeated == 0
    assert status["mqtt"]["acknowledged"] <= status["store"]["appended"]
    assert status["store"]["appended"] == status["routes"]["all"]["delivered"] == len(far_end.received())
    assert status["routes"]["all"]["lost"] == status["dead_letters"] == 0
