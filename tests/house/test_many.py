"""Ten thousand devices at once, and too many: what one of them costs, and what it costs to have no room."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.gateway import Gateway
from tests.house.shipped import Shipped
from tests.pki import Authority
from tests.servers import free_port, missing

CONNECT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02"  # and two bytes of a Client Identifier
PUBLISH = b"\x32\x06\x00\x01a\x00\x01x"
CONNACK, PUBACK = b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"
BASIS = 100  # devices that are there before the first measurement: what the first one needs, all have
LOOPS = {
    "asyncio": "import sys; sys.modules['uvloop'] = None; from bridge.cli import main; main()",
    "uvloop": "import uvloop; from bridge.cli import main; main()",
}


class Looped(Gateway):
    """A gateway on an event loop that the test has chosen."""

    loop = "asyncio"

    def command(self) -> list[str]:
        return [sys.executable, "-c", LOOPS[self.loop], *super().command()[3:]]


@contextlib.contextmanager
def devices(kind: str, port: int, count: int, *authority: str) -> Iterator[subprocess.Popen[str]]:
    """So many devices in a process of their own, all of them connected."""
    command = [sys.executable, "-m", "tests.house.multitude", kind, str(port), str(count), *authority]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def _rss(gateway: Gateway) -> int:
    time.sleep(1.5)  # what is freed a moment later, such as the first answers, is not the devices'
    return psutil.Process(gateway.pid).memory_info().rss


# Kind, how many, and the bound of what one may cost. Of TLS most is OpenSSL's.
COSTS = [
    ("mqtt", 10_000, 16, "asyncio"),
    ("mqtt", 2_000, 16, "uvloop"),
    ("ws", 2_000, 16, "asyncio"),
    ("mqtts", 500, 64, "asyncio"),
    ("wss", 500, 64, "uvloop"),
]


@pytest.mark.parametrize(
    ("kind", "count", "kib_max", "loop"), COSTS, ids=[f"{row[0]}-{row[1]}-{row[3]}" for row in COSTS]
)
def test_an_idle_device_costs_little_and_many_of_them_publish(
    tmp_path: Path, kind: str, count: int, kib_max: int, loop: str
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count + 1000:
        missing(f"a bound of open files (ulimit -Hn) above {count + 1000}")
    plant = Authority(tmp_path / "plant")
    server, port = plant.server(), free_port()
    tls = {"certificate": str(server.certificate), "key": str(server.key)}
    secure = kind in ("mqtts", "wss")
    entry = {kind: f"127.0.0.1:{port}"} | (tls if secure else {})
    gateway = Looped(tmp_path / "gateway", listeners=[entry])
    gateway.loop = loop
    authority = [str(plant.certificate)] if secure else []
    gateway.start()
    try:
        with devices(kind, port, BASIS, *authority):
            before = _rss(gateway)
        began = time.monotonic()
        with devices(kind, port, count, *authority) as crowd:
            came_s = time.monotonic() - began
            each = (_rss(gateway) - before) / (count - BASIS) / 1024
            assert gateway.status()["mqtt"]["connections"] == count
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            publishing = min(count, 1_000)
            began = time.monotonic()
            crowd.stdin.write(f"publish {publishing} 5\n")
            crowd.stdin.flush()
            acknowledged = int(crowd.stdout.readline())
            took_s = time.monotonic() - began
            told = (
                f"{each:.1f} KiB each; all came in {came_s:.1f} s; {acknowledged} PUBACKs in {took_s:.1f} s"
            )
            print(f"{kind} {count} {loop}: {told}")
            assert acknowledged == publishing * 5
            assert gateway.status()["mqtt"]["connections"] == count
            assert each <= kib_max, told
    finally:
        gateway.kill()
    assert "Traceback" not in gateway.output()


def _connect(port: int, number: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 5)
    sock.sendall(CONNECT + b"%02d" % (number % 100))
    return sock


def _answer(sock: socket.socket, wait_s: float) -> bytes:
    sock.settimeout(wait_s)
    with contextlib.suppress(OSError):
        return sock.recv(4)
    return b""


@pytest.mark.parametrize("loop", LOOPS)
def test_given_no_file_descriptor_left_when_devices_come_then_they_wait_and_the_house_is_at_rest(
    tmp_path: Path, loop: str
) -> None:
    """Accepting at once again, for ever, is how others use a whole processor for nothing."""
    if not shutil.which("prlimit"):
        missing("prlimit")
    port = free_port()
    gateway = Looped(tmp_path / "gateway", listeners=[{"mqtt": f"127.0.0.1:{port}"}])
    gateway.loop = loop
    limited = ["prlimit", "--nofile=256", *gateway.command()]
    gateway.command = lambda: limited  # type: ignore[method-assign]
    gateway.start()
    sockets: list[socket.socket] = []
    try:
        for number in range(50):
            sockets.append(_connect(port, number))
            assert _answer(sockets[-1], 5) == CONNACK
        inside, process = list(sockets), psutil.Process(gateway.pid)
        sockets += [socket.create_connection(("127.0.0.1", port), 5) for _ in range(300)]
        time.sleep(1)
        cpu_s, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(3)
        busy = (sum(process.cpu_times()[:2]) - cpu_s) / (time.monotonic() - began)
        assert process.num_fds() < 256
        assert busy <= 0.20, f"{busy:.0%} of a processor"
        # Whoever is inside is served, and the store may still open what it needs.
        for sock in inside:
            sock.sendall(PUBLISH)
            assert _answer(sock, 5) == PUBACK
        for sock in sockets[100:]:
            sock.close()
        began = time.monotonic()
        while True:
            late = _connect(port, 77)
            sockets.append(late)
            if _answer(late, 2) == CONNACK:
                break
            assert time.monotonic() - began < 5, "it does not recover"
        told = gateway.output()
        assert "no room for connections" in told
        assert "Traceback" not in told
        assert told.count("\n") < 120, told
    finally:
        for sock in sockets:
            sock.close()
        gateway.kill()


@pytest.mark.long
@pytest.mark.alone
def test_given_two_thousand_half_connects_that_trickle_when_a_good_device_comes_then_it_is_served_at_once(
    tmp_path: Path,
) -> None:
    """A byte every few seconds holds a place for ever where the deadline starts anew with each."""
    gateway = Shipped(tmp_path / "gateway")
    gateway.start()
    slow: list[socket.socket] = []
    try:
        began = time.monotonic()
        for _ in range(2_000):
            sock = socket.create_connection(("127.0.0.1", gateway.port), 5)
            sock.sendall(b"\x10\x20")
            slow.append(sock)
        last_came = time.monotonic()
        worst_s = 0.0
        while gateway.status()["mqtt"]["connections"] and time.monotonic() - last_came < 20:
            for sock in slow[::10]:
                with contextlib.suppress(OSError):
                    sock.send(b"\0")
            asked = time.monotonic()
            good = _connect(gateway.port, 1)
            assert _answer(good, 5) == CONNACK
            good.close()
            worst_s = max(worst_s, time.monotonic() - asked)
            time.sleep(0.5)
        freed_s = time.monotonic() - last_came
        print(
            f"all came in {last_came - began:.1f} s, free after {freed_s:.1f} s, CONNACK in {worst_s:.3f} s"
        )
        assert worst_s <= 1
        assert freed_s <= 12
    finally:
        for sock in slow:
            sock.close()
        gateway.kill()
