"""A start with a great deal that waits (D12): quick, and in no more memory than with nothing."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from bridge.message import Message
from bridge.mqtt import codec
from bridge.mqtt.packet import Connect
from bridge.store import Log
from bridge.store.files import Files
from tests.gateway import Gateway, until
from tests.house.receiver import FarEnd
from tests.servers import free_port

QUOTA = 2 << 30
UPLINK = QUOTA * 8 // 10
CONNACK_S_MAX = 2.0
MORE_RSS_MAX = 32 << 20
PAYLOAD = bytes(1000)
BATCH = 5000


class UnsyncedFiles(Files):
    """What this lays down no power cut will meet."""

    def sync(self, fd: int) -> None:
        pass


def lay_down(path: Path, count: int, received_ns: int = 0) -> int:
    """A store with this many messages that no route has seen; how many bytes they take."""
    log = Log.open(str(path / "uplink"), max_bytes=UPLINK, segment_bytes=None, files=UnsyncedFiles())
    log.cursor("all")
    for begin in range(0, count, BATCH):
        numbers = range(begin, min(begin + BATCH, count))
        log.extend(
            [
                Message("plant/a/7", b"%d|" % nth + PAYLOAD, 1, False, "d", received_ns + nth)
                for nth in numbers
            ]
        )
        batch = log.take()
        log.write(batch)
        log.settle(batch)
    log.close()
    return log.size


def seconds_to_connack(gateway: Gateway) -> float:
    """Launch it, and try until a device is let in."""
    began = time.monotonic()
    gateway.launch()
    while time.monotonic() - began < 60:
        try:
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as device:
                device.sendall(codec.encode(Connect("d", keep_alive_s=60), 4))
                if device.recv(4) == b"\x20\x02\x00\x00":
                    return time.monotonic() - began
        except OSError:
            time.sleep(0.01)
    raise AssertionError("nobody is let in")


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(60_000, id="60-MB"),
        pytest.param(
            1_050_000, id="1-GiB", marks=[pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(900)]
        ),
    ],
)
async def test_given_a_backlog_when_started_then_devices_are_let_in_at_once_and_memory_does_not_grow_with_it(
    tmp_path: Path, count: int
) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    parts = {"sinks": {"cloud": {"zeromq": {"bind": endpoint}}}}

    def build(name: str) -> Gateway:
        store = {"path": str(tmp_path / name / "state"), "max_bytes": "2GiB"}
        return Gateway(tmp_path / name, store=store, **parts)

    empty, full = build("empty"), build("full")
    far_end = FarEnd(tmp_path / "far", endpoint)
    size = lay_down(tmp_path / "full" / "state", count)
    try:
        empty_s = seconds_to_connack(empty)
        least = empty.rss_most()
        assert empty.stop() == 0
        took_s = seconds_to_connack(full)
        # Counting the backlog reads all of it, in the background.
        status = full.status
        await until(lambda: status()["routes"]["all"]["backlog_messages"] == count, 120)
        counted = full.rss_most()
        far_end.start()
        await until(lambda: len(far_end.received()) >= 2000, 60)
        numbers = [one["payload"].partition("|")[0] for one in far_end.received()[:2000]]
        assert numbers == [str(number) for number in range(2000)]
    finally:
        empty.kill()
        full.kill()
        far_end.kill()
    print(
        f"{count:,} messages, {size / 2**30:.2f} GiB: CONNACK after {took_s:.2f} s (empty: {empty_s:.2f} s),"
        f" {(counted - least) / 2**20:.1f} MiB more than with an empty store"
    )
    # Starting Python is no part of it, and takes what the machine makes of it.
    assert took_s - empty_s <= CONNACK_S_MAX
    assert counted - least <= MORE_RSS_MAX
    assert "Traceback" not in full.output()
