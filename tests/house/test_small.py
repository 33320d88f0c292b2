"""Small, quick to start, clean to stop, and clear about what is wrong: as its operator meets it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.house.device import Device
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.house.verdict import judge
from tests.servers import missing

RSS_BYTES_MAX = 64 * 1024**2
READY_S_MAX = 1.5
STOP_S_MAX = 5.0
CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x"


def _connack(port: int) -> bool:
    """Whether a gateway takes us in on this port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as device:
            device.sendall(CONNECT)
            return device.recv(4) == b"\x20\x02\x00\x00"
    except ConnectionRefusedError:
        return False


def _measured_start(gateway: Shipped) -> tuple[float, float, int]:
    """Start it; return wall seconds and its own CPU seconds until CONNACK, and its RSS then."""
    began = time.perf_counter()
    process = subprocess.Popen(gateway.command(), env=gateway.environ(), stderr=subprocess.DEVNULL)
    try:
        while not _connack(gateway.port):
            assert process.poll() is None, "it ended"
            assert time.perf_counter() - began < 30, "it never took us in"
            time.sleep(0.005)
        wall_s = time.perf_counter() - began
        told = psutil.Process(process.pid)
        cpu = told.cpu_times()
        return wall_s, cpu.user + cpu.system, told.memory_info().rss
    finally:
        process.kill()
        process.wait(10)


def test_the_default_configuration_is_ready_soon_and_small(tmp_path: Path) -> None:
    measured = [_measured_start(Shipped(tmp_path / str(turn))) for turn in range(3)]
    wall_s, cpu_s, rss = (statistics.median(column) for column in zip(*measured, strict=True))
    told = f"ready after {wall_s:.2f} s ({cpu_s:.2f} s of CPU), RSS {rss / 1024**2:.1f} MiB"
    print(told)
    assert rss <= RSS_BYTES_MAX, told
    # A start waits for nothing but the processor. Where other processes have it, the
    # clock on the wall measures them; what the start itself costs is its CPU time.
    assert min(wall_s, cpu_s) <= READY_S_MAX, told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_given_traffic_when_asked_to_stop_then_soon_gone_and_nothing_lost_or_repeated(
    tmp_path: Path, number: signal.Signals
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    devices = [
        Device("once", gateway.port, 10_000_000, 1500),
        Device("twice", gateway.port, 10_000_000, 500, qos=2),
    ]
    gateway.start()
    far_end.start()
    running = [asyncio.create_task(device.run()) for device in devices]
    try:
        while not far_end.received() or min(len(device.acknowledged) for device in devices) < 500:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        os.kill(gateway.pid, number)
        code = await asyncio.to_thread(gateway.wait)
        took_s = time.monotonic() - began
        await asyncio.to_thread(gateway.start)
        for device in devices:
            device.finish()
        await asyncio.wait_for(asyncio.gather(*running), 20)
        wanted = {f"{device.name}:{each}" for device in devices for each in device.acknowledged}
        await asyncio.to_thread(far_end.wait_for, wanted)
        await asyncio.to_thread(gateway.stop)
    finally:
        for task in running:
            task.cancel()
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], devices)
    print(f"gone after {took_s:.2f} s; {verdict}")
    assert code == 0
    assert took_s <= STOP_S_MAX
    assert verdict.repeated == 0, str(verdict)
    assert "Traceback" not in gateway.output()


def _told(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)


def _assert_one_line(told: subprocess.CompletedProcess[str], *words: str) -> None:
    assert told.returncode not in (0, None)
    assert told.returncode > 0
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1, told.stderr
    for word in words:
        assert word in told.stderr


@pytest.mark.parametrize("flag", ["mqtt", "zeromq", "web"])
def test_given_a_port_in_use_when_run_then_one_line_names_the_port_and_the_flag(
    tmp_path: Path, flag: str
) -> None:
    gateway = Shipped(tmp_path)
    zeromq = int((gateway.endpoint or "").rpartition(":")[2])
    port = {"mqtt": gateway.port, "zeromq": zeromq, "web": gateway.web}[flag]
    with socket.create_server(("127.0.0.1", port)):
        told = _told(gateway.command(), gateway.environ())
    _assert_one_line(told, str(port), "in use", f"--{flag} ")


def test_given_a_gateway_on_the_folder_when_a_second_is_run_then_one_line_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    first, second = Shipped(tmp_path / "one"), Shipped(tmp_path / "two")
    second.state = first.state
    first.start()
    try:
        _assert_one_line(_told(second.command(), second.environ()), str(first.state), "--state")
        assert _connack(first.port)
        assert first.status()["ready"]
    finally:
        first.kill()


def test_given_a_file_in_the_way_when_run_then_one_line_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = tmp_path / "file" / "state"
    _assert_one_line(_told(gateway.command(), gateway.environ()), str(gateway.state))


def test_given_a_read_only_file_system_when_run_then_one_line_names_the_folder(tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        missing("root, to mount something read-only")
    gateway = Shipped(tmp_path / "gateway")
    gateway.state = tmp_path / "mounted" / "state"
    gateway.state.parent.mkdir()
    mounted = f'mount -t tmpfs -o ro none "{gateway.state.parent}" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *gateway.command()]
    _assert_one_line(_told(command, gateway.environ()), str(gateway.state), "Read-only")


def test_given_a_mistake_in_the_file_when_run_then_78_and_a_caret_under_it(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    wrong = "  all: {from: '#', to: cluod}"
    path.write_text(f"version: 1\nroutes:\n{wrong}\nsinks: {{cloud: {{memory: {{}}}}}}\n")
    told = _told(Shipped(tmp_path, path, zeromq=None).command(), dict(os.environ))
    assert told.returncode == 78
    lines = told.stderr.splitlines()
    assert lines[0].startswith(f"{path}:3:{wrong.index('cluod') + 1}")
    carets = next(number for number, line in enumerate(lines) if line.strip().startswith("^"))
    assert lines[carets - 1][lines[carets].index("^") :].startswith("cluod")
    assert "Traceback" not in told.stderr
