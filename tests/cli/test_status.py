"""`edgespool status`, against a real web server and against nobody."""

import asyncio
import socket
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from bridge.cli.status import render
from bridge.observe.status import Status
from bridge.web.app import create_app
from bridge.web.server import WebServer
from tests.observe.samples import STATUS

NOW = datetime(2025, 11, 23, 22, 0, tzinfo=UTC)


async def edgespool(*args: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge.cli",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"},
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def address():
    web = WebServer(create_app(lambda: STATUS))
    await web.start("127.0.0.1", 0)
    assert web.address is not None
    yield f"127.0.0.1:{web.address[1]}"
    await web.stop()


async def test_given_a_gateway_when_asked_then_a_table(address):
    code, out, err = await edgespool("status", "--web", address)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "edgespool 0.1.0  plant-7  up 1 d 2 h  ready"
    route, account, *_ = (line.split() for line in lines if line.startswith("telemetry"))
    assert route == ["telemetry", "cloud", "12,345", "4.4", "MiB", "1", "h", "2", "min"]
    assert account == ["telemetry", "13,260", "900", "12,345", "4", "2", "3", "5"]
    assert "in memory: it may lose messages, and counts since the start" in out
    why = "1 oldest, the store was full, 3 newest, the route was at its bound, 1 damaged"
    assert why in " ".join(out.split())
    assert "may lose commands (confirm: none); 39 came here and were lost" in " ".join(out.split())
    (sink,) = [at for at, line in enumerate(lines) if line.startswith("cloud")]
    assert "down" in lines[sink]
    assert lines[sink + 1] == "  connection refused"


async def test_given_dead_letters_when_asked_then_by_route_and_reason(address):
    _, out, _ = await edgespool("status", "--web", address)
    lines = [line.split() for line in out.splitlines()]
    at = lines.index(["DEAD", "LETTERS", "OF", "COUNT", "REASON"])
    assert lines[at + 1] == ["telemetry", "2", "no", "queue", "takes", "it"]
    assert lines[at + 2] == [
        "7",
        "more",
        "of",
        "telemetry",
        "had",
        "to",
        "make",
        "way",
        "for",
        "newer",
        "ones",
    ]


async def test_given_json_when_asked_then_the_document_as_it_is(address):
    code, out, _ = await edgespool("status", "--web", address, "--json")
    assert code == 0
    assert msgspec.json.decode(out, type=Status) == STATUS


async def test_given_nobody_when_asked_then_one_line_with_address_and_flag():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = await edgespool("status", "--web", address)
    assert (code, out) == (1, "")
    assert err == (
        f"edgespool: no status from {address}: Connection refused; "
        "is the gateway running? name its address with --web HOST:PORT\n"
    )


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:http", "::1", "", "a b"])
async def test_given_a_wrong_address_when_asked_then_one_line(address):
    code, out, err = await edgespool("status", "--web", address)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "--web HOST:PORT" in err


async def test_given_somebody_else_at_the_address_when_asked_then_one_line():
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"\x20\x02\x00\x00", b""]

    async def answer(reader, writer):
        await reader.read(1000)
        writer.write(answers.pop())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for _ in range(3):
            code, out, err = await edgespool("status", "--web", address)
            assert (code, out) == (1, "")
            assert err.count("\n") == 1
            assert address in err


def replace(status, **changes):
    return msgspec.structs.replace(status, **changes)


CROWDED = replace(
    STATUS,
    ready=False,
    gateway="g" * 64,
    reasons=["the store is full " * 8],
    dead_letters_by_route={"r" * 60: {"refused " * 15: 987_654_321}},
    dead_letters_dropped={"r" * 60: 987_654_321},
    sinks={"s" * 60: replace(STATUS.sinks["cloud"], address="amqps://" + "h" * 200, reason="refused " * 40)},
    routes={
        "r" * 60: replace(STATUS.routes["telemetry"], sink="s" * 60, stored=987_654_321_012, delivered=10**12)
    },
)
HOSTILE = replace(
    STATUS,
    gateway="\x1b[2J",
    reasons=["a\nb\x1b[31m"],
    sinks={"x\x1b]0;y\x07": STATUS.sinks["cloud"]},
    routes={"\u202e": STATUS.routes["all"]},
    dead_letters_by_route={"\u202e": {"no\x1b[2J": 1}},
    dead_letters_dropped={"\u202e": 1},
)
EMPTY = replace(STATUS, sinks={}, routes={}, mqtt=replace(STATUS.mqtt, listeners=[]))


@pytest.mark.parametrize("status", [STATUS, CROWDED, HOSTILE, EMPTY])
def test_a_person_sees_80_printable_columns(status):
    for line in render(status, NOW):
        assert len(line) <= 80, line
        assert line.isprintable()


def test_numbers_are_never_cut():
    text = "\n".join(render(CROWDED, NOW))
    assert "987.65G" in text
    assert "NOT READY" in text
