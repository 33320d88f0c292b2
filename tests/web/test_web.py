"""Real sockets, a real client, and the loop of the house in between."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from bridge.observe.status import Status
from bridge.policy.hosts import names_of
from bridge.web.app import create_app
from bridge.web.hosts import HostGuard
from bridge.web.server import WebServer
from tests.observe.samples import STATUS


class House:
    """One server, and what it says of itself."""

    def __init__(self) -> None:
        self.status: Status = STATUS
        self.web = WebServer(create_app(lambda: self.status, names=["gateway"]))

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        assert self.web.address is not None
        return await asyncio.to_thread(self._ask, method, path, headers)

    def _ask(self, method, path, headers):
        assert self.web.address is not None
        wire = http.client.HTTPConnection(*self.web.address, timeout=5)
        try:
            wire.request(method, path, headers=headers)
            answer = wire.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            wire.close()


@pytest.fixture
async def house():
    house = House()
    await house.web.start("127.0.0.1", 0)
    yield house
    await house.web.stop()


async def test_the_status_document_is_the_snapshot_as_json(house):
    code, headers, body = await house.ask("/api/v1/status")
    assert code == 200
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert msgspec.json.decode(body, type=Status) == STATUS
    assert json.loads(body)["routes"]["telemetry"]["backlog_messages"] == 12_345


async def test_metrics_come_in_the_form_that_was_asked_for(house):
    code, headers, body = await house.ask("/metrics")
    assert code == 200
    assert headers["content-type"].startswith("text/plain")
    assert b'edgespool_route_backlog_messages{route="telemetry"} 12345.0\n' in body
    _, headers, body = await house.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_given_a_full_store_then_alive_but_not_ready_and_it_says_why(house):
    assert (await house.ask("/readyz"))[0] == 200
    house.status = msgspec.structs.replace(STATUS, ready=False, reasons=["store full", "sink cloud down"])
    code, _, body = await house.ask("/readyz")
    assert (code, body) == (503, b"store full\nsink cloud down\n")
    assert (await house.ask("/livez"))[0] == 200


async def test_the_index_names_what_there_is_and_nothing_else_is_there(house):
    _, _, body = await house.ask("/")
    for path in ("/api/v1/status", "/metrics", "/livez", "/readyz"):
        assert path in body.decode()
        assert (await house.ask(path))[0] == 200
        assert (await house.ask(path, "POST"))[0] == 405
    assert (await house.ask("/etc/passwd"))[0] == 404


HOSTS = [
    ("127.0.0.1:8080", 200),
    ("[::1]:8080", 200),
    ("192.168.1.7", 200),
    ("localhost:8080", 200),
    ("localhost.", 200),
    ("status.localhost", 200),
    ("gateway:8080", 200),
    ("GateWay", 200),
    ("evil.example", 421),
    ("evil.example:8080", 421),
    ("127.0.0.1.evil.example", 421),
    ("localhost.evil.example", 421),
    ("notlocalhost", 421),
    ("", 421),
]


@pytest.mark.parametrize(("host", "code"), HOSTS)
async def test_given_a_rebound_name_when_asked_then_misdirected(house, host, code):
    answer = await house.ask("/api/v1/status", host=host)
    assert answer[0] == code
    assert code == 200 or b"plant-7" not in answer[2]


def test_this_machine_and_probes_without_a_host_are_welcome():
    guard = HostGuard(create_app(lambda: STATUS))
    assert all(guard.welcomes(name) for name in names_of(socket.gethostname()))
    assert guard.welcomes(None)
    assert not guard.welcomes("gateway")


async def test_given_a_port_in_use_when_started_then_oserror_and_the_house_stands(house):
    assert house.web.address is not None
    second = WebServer(create_app(lambda: STATUS))
    with pytest.raises(OSError, match="in use"):
        await second.start(*house.web.address)
    await second.stop()
    assert (await house.ask("/livez"))[0] == 200


async def test_given_an_open_connection_when_stopped_then_soon_and_the_port_is_free(house):
    assert house.web.address is not None
    idle = socket.create_connection(house.web.address)
    kept = http.client.HTTPConnection(*house.web.address, timeout=5)
    await asyncio.to_thread(kept.request, "GET", "/livez")
    assert (await asyncio.to_thread(kept.getresponse)).status == 200
    begun = time.monotonic()
    await house.web.stop()
    await house.web.stop()
    assert time.monotonic() - begun < 2
    again = WebServer(create_app(lambda: STATUS))
    await again.start(*house.web.address)
    await again.stop()
    kept.close()
    idle.close()


async def test_given_garbage_and_silence_then_others_are_still_answered(house):
    assert house.web.address is not None
    wires = [socket.create_connection(house.web.address) for _ in range(5)]
    for wire, junk in zip(
        wires, [b"\x10\x0c\x00\x04MQTT", b"GET", b"\0" * 100_000, b"", b"\r\n\r\n"], strict=True
    ):
        wire.sendall(junk)
    assert (await house.ask("/livez"))[0] == 200
    for wire in wires:
        wire.close()


async def test_a_snapshot_that_fails_is_one_500_and_not_the_end(house):
    house.status = None
    assert (await house.ask("/readyz"))[0] == 500
    house.status = STATUS
    assert (await house.ask("/readyz"))[0] == 200


async def test_signals_stay_with_the_house(house):
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, seen.set)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await seen.wait()
        assert (await house.ask("/livez"))[0] == 200
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def test_the_package_costs_nothing_until_it_is_used():
    code = "import sys, bridge.web; print({'uvicorn', 'starlette', 'prometheus_client'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
