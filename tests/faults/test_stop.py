"""How it ends, and who may not begin: SIGTERM, a second process, a newer store, a bad SIGHUP (D16)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.test_damage import contents
from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.house.verdict import judge

STOP_S_MAX = 5.0
STOPS = 5
BAD_CONFIGURATIONS = 50


async def test_given_sigterms_under_load_then_each_takes_less_than_5_s_and_nothing_is_lost_or_sent_twice(
    tmp_path: Path,
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    devices = [
        Device("once", gateway.port, 10_000_000, 800),
        Device("twice", gateway.port, 10_000_000, 200, qos=2),
    ]
    far_end.start()
    gateway.start()
    running = [asyncio.create_task(device.run()) for device in devices]
    slowest_s = 0.0
    try:
        for number in range(STOPS):
            before = len(far_end.received())
            await until(lambda before=before: len(far_end.received()) > before + 200, 30)
            began = time.monotonic()
            assert await asyncio.to_thread(gateway.stop) == 0
            slowest_s = max(slowest_s, time.monotonic() - began)
            if number == STOPS - 1:
                # What is left waits for the next start.
                far_end.kill()
                far_end.start()
            await asyncio.to_thread(gateway.start)
        for device in devices:
            device.finish()
        await asyncio.wait_for(asyncio.gather(*running), 60)
        acknowledged = {f"{device.name}:{number}" for device in devices for number in device.acknowledged}
        assert not await asyncio.to_thread(far_end.wait_for, acknowledged)
        assert gateway.stop() == 0
    finally:
        for task in running:
            task.cancel()
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], devices)
    print(f"{STOPS} stops under load, the slowest {slowest_s:.2f} s; {verdict}")
    assert slowest_s <= STOP_S_MAX
    assert verdict.repeated == 0
    assert "Traceback" not in gateway.output()


async def test_given_a_second_process_on_the_store_it_says_so_and_the_first_one_works_on(
    tmp_path: Path,
) -> None:
    gateway, second = Shipped(tmp_path / "gateway"), Shipped(tmp_path / "second")
    second.state = gateway.state
    device = Device("d", gateway.port, 20, 1000)
    gateway.start()
    try:
        before = contents(gateway.state)
        done = subprocess.run(
            second.command(), env=second.environ(), capture_output=True, text=True, timeout=30
        )
        assert done.returncode not in (0, -signal.SIGKILL)
        assert "in use by another process" in done.stderr
        assert "Traceback" not in done.stderr
        assert contents(gateway.state) == before
        await asyncio.wait_for(device.run(), 20)
        assert len(device.acknowledged) == 20
        assert gateway.stop() == 0
    finally:
        gateway.kill()


def _spoiled(text: str, luck: random.Random) -> str:
    """The configuration with a mistake in it, of the kinds that an editor leaves behind."""
    document = json.loads(text)
    kind = luck.randrange(5)
    if kind == 0:
        return text[: luck.randrange(20, len(text) - 1)]  # the disk was full while it was saved
    if kind == 1:
        document[luck.choice(list(document)) + "s"] = "and more"
    elif kind == 2:
        document["routes"]["all"] = {"from": luck.choice(["a/#/b", "+a", ""]), "to": "cloud"}
    elif kind == 3:
        document["limits"] = {"packet_bytes": luck.choice(["many", -1, [], "1 MB/s"])}
    else:
        document["routes"]["all"]["to"] = f"cloud-{luck.randrange(100)}"
    return json.dumps(document)


async def test_given_50_bad_configurations_and_a_sighup_for_each_then_all_are_refused_and_nobody_notices(
    tmp_path: Path,
) -> None:
    luck = random.Random(1)
    gateway = Gateway(tmp_path / "gateway")
    device = Device("d", gateway.port, 10_000_000, 300)
    file = tmp_path / "gateway" / "gateway.yaml"
    sound = file.read_text()
    gateway.start()
    running = asyncio.create_task(device.run())
    try:
        await until(lambda: device.acknowledged)
        for _ in range(BAD_CONFIGURATIONS):
            said = gateway.output().count("not reloaded")
            file.write_text(_spoiled(sound, luck))
            os.kill(gateway.pid, signal.SIGHUP)
            await until(lambda said=said: gateway.output().count("not reloaded") > said)
            acknowledged = len(device.acknowledged)
            await until(lambda acknowledged=acknowledged: len(device.acknowledged) > acknowledged)
        assert "reloaded users=" not in gateway.output()
        file.write_text(sound)
        os.kill(gateway.pid, signal.SIGHUP)
        await until(lambda: "reloaded users=" in gateway.output())
        device.finish()
        await asyncio.wait_for(running, 20)
        assert max(device.sent.values()) == 1, "the device was cut off"
        assert gateway.stop() == 0
    finally:
        running.cancel()
        gateway.kill()
    assert "Traceback" not in gateway.output()


async def test_given_a_store_of_a_newer_version_the_gateway_says_so_and_touches_nothing(
    tmp_path: Path,
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    device = Device("d", gateway.port, 20, 1000)
    gateway.start()
    try:
        await asyncio.wait_for(device.run(), 20)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    [segment] = gateway.state.glob("uplink/*.seg")
    with segment.open("r+b") as file:
        for at in (8, 64 + 8):
            file.seek(at)
            file.write(b"\x63")
    before = contents(gateway.state)
    done = subprocess.run(
        gateway.command(), env=gateway.environ(), capture_output=True, text=True, timeout=30
    )
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "format 99" in done.stderr
    assert "run the newer edgespool" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(gateway.state) == before
