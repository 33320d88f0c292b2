"""systemd hears what it should, and its absence costs nothing."""

import os
import socket

import pytest

from bridge.observe import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    name = str(tmp_path / "notify") if request.param == "path" else f"\0edgespool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(name)
        wire.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield wire


def test_a_life_as_systemd_hears_it(manager):
    assert notify.ready("listening on\n127.0.0.1:1883")
    assert notify.watchdog()
    assert notify.stopping()
    assert [manager.recv(100) for _ in range(3)] == [
        b"READY=1\nSTATUS=listening on 127.0.0.1:1883",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_given_no_manager_or_a_dead_one_then_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    assert not notify.ready()


WATCHDOGS = [
    ({"WATCHDOG_USEC": "30000000"}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("environ", "interval_s"), WATCHDOGS)
def test_the_heartbeat_is_twice_as_fast_as_the_unit_asks(environ, interval_s):
    assert notify.watchdog_interval_s(environ) == interval_s
