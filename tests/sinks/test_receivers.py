"""The receivers that we hand out take messages, in both ways of connecting, and survive a kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SinkUnavailable
from bridge.forward.packing import Packer
from bridge.policy.pack import Compression, Format, Pack
from bridge.sinks.kit import outgoing
from bridge.sinks.options import ZeromqOptions
from bridge.sinks.zeromq import ZeromqSink
from tests.node import installed
from tests.servers import binary, free_port
from tests.sinks.keyring import Keyring

RECEIVERS = Path(__file__).parents[2] / "deploy" / "receivers"
PATIENCE_S = 30


def python_receiver() -> list[str]:
    return [sys.executable, str(RECEIVERS / "receiver.py")]


def javascript_receiver() -> list[str]:
    folder = installed(RECEIVERS, "receivers")
    shutil.copy(RECEIVERS / "receiver.js", folder)  # beside its modules
    return [binary("node"), str(folder / "receiver.js")]


@pytest.fixture(params=[python_receiver, javascript_receiver], ids=["python", "javascript"])
def receiver(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param()
    return command


@contextlib.contextmanager
def running(command: list[str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*command, *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@contextlib.asynccontextmanager
async def sink_at(**where: Any) -> AsyncIterator[ZeromqSink]:
    sink = ZeromqSink("lab", ZeromqOptions.model_validate(where), "plant-7")
    try:
        async with asyncio.timeout(PATIENCE_S):
            await sink.open()
            yield sink
    finally:
        await sink.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]  # not of text: U+2028 ends no line


async def test_a_receiver_that_calls_gets_all(receiver: list[str], tmp_path: Path) -> None:
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    with running(receiver, endpoint, str(out)):
        async with sink_at(bind=endpoint) as sink:
            batch = [outgoing("a.b", "x", n, b"ol\xc3\xa1") for n in range(1200)]
            assert await sink.send_batch(batch) == []
    assert [line["id"] for line in lines(out)] == [message.id for message in batch]
    first = lines(out)[0]
    assert (first["topic"], first["address"], first["payload"], first["qos"]) == ("kit/x", "a.b", "olá", 1)
    assert first["received_at"] == "2025-11-23T22:45:01.123456789Z"


async def test_a_receiver_that_is_called_gets_all(receiver: list[str], tmp_path: Path) -> None:
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    with running(receiver, endpoint, str(out), "--bind"):
        async with sink_at(connect=endpoint) as sink:
            assert await sink.send_batch([outgoing("a", "x", n) for n in range(10)]) == []
    assert len(lines(out)) == 10


PAYLOADS = [b"21.5", "ol\u00e1\n\u2028".encode(), b"", b"\xff\x00\n", b"x" * 3000]


@pytest.mark.parametrize(
    ("pack", "compress"), [("ndjson", "zlib"), ("json", None), ("length_prefixed", "zlib"), ("json", "zstd")]
)
async def test_a_receiver_unpacks_what_a_route_has_packed(
    receiver: list[str], tmp_path: Path, pack: Format, compress: Compression | None
) -> None:
    if compress == "zstd" and "node" in receiver[0] and not _node_has_zstd(receiver[0]):
        pytest.skip("this Node.js cannot unpack zstd")
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    batch = [outgoing("a.b", "x", n, PAYLOADS[n % 5]) for n in range(50)]
    with running(receiver, endpoint, str(out)):
        async with sink_at(bind=endpoint) as sink:
            send = Packer(Pack(pack, compress)).over(sink.send_batch)
            assert await send(batch) == []
            assert await sink.send_batch(batch[:1]) == [], "what is no pack comes between packs"
    told = lines(out)
    assert [line["id"] for line in told] == [message.id for message in [*batch, batch[0]]]
    assert [line["payload"] for line in told[:5]] == [one.decode(errors="replace") for one in PAYLOADS]
    assert told[0] == told[-1], "a message is told in the same way"


def _node_has_zstd(node: str) -> bool:
    asked = [node, "-e", "process.exit(require('zlib').zstdDecompressSync ? 0 : 1)"]
    return subprocess.run(asked, check=False).returncode == 0


@pytest.mark.parametrize("calls", [True, False], ids=["that calls", "that is called"])
async def test_a_receiver_with_keys_gets_all(receiver: list[str], tmp_path: Path, calls: bool) -> None:
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    keyring = Keyring(tmp_path)
    flags = keyring.flags(bind=not calls) + ([] if calls else ["--bind"])
    where = {"bind" if calls else "connect": endpoint, "curve": keyring.options(bind=calls)}
    with running(receiver, endpoint, str(out), *flags):
        async with sink_at(**where) as sink:
            assert await sink.send_batch([outgoing("a", "x", n) for n in range(10)]) == []
    assert len(lines(out)) == 10


@pytest.mark.parametrize("who", ["a stranger", "without keys"])
async def test_a_receiver_that_is_not_let_in_says_so_and_leaves(
    receiver: list[str], tmp_path: Path, who: str
) -> None:
    endpoint, keyring = f"tcp://127.0.0.1:{free_port()}", Keyring(tmp_path)
    sink = ZeromqSink(
        "lab",
        ZeromqOptions.model_validate({"bind": endpoint, "curve": keyring.options(bind=True)}),
        "plant-7",
    )
    opening = asyncio.ensure_future(sink.open())
    flags = keyring.flags(bind=False, who="stranger") if who == "a stranger" else []
    left = await asyncio.create_subprocess_exec(
        *receiver, endpoint, str(tmp_path / "out.jsonl"), *flags, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(left.communicate(), PATIENCE_S)
    assert left.returncode == 1
    assert b"is our key among its clients" in said
    assert not opening.done()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await sink.close()


async def test_a_receiver_that_is_called_lets_no_stranger_in(receiver: list[str], tmp_path: Path) -> None:
    endpoint, out, keyring = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl", Keyring(tmp_path)
    with running(receiver, endpoint, str(out), "--bind", *keyring.flags(bind=True)):
        async with sink_at(connect=endpoint, curve=keyring.options(bind=False)):
            pass  # it is there, and lets the right one in
        stranger = ZeromqSink(
            "lab",
            ZeromqOptions.model_validate(
                {
                    "connect": endpoint,
                    "curve": keyring.options(bind=False, who="stranger"),
                    "open_timeout": "1s",
                }
            ),
            "plant-7",
        )
        with pytest.raises(SinkUnavailable, match="our public key is not among the clients there"):
            await stranger.open()


async def test_given_a_gateway_that_comes_back_then_the_receiver_says_hello_again(
    receiver: list[str], tmp_path: Path
) -> None:
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    sink = ZeromqSink("lab", ZeromqOptions(bind=endpoint), "plant-7")
    with running(receiver, endpoint, str(out)):
        for turn in range(2):
            async with asyncio.timeout(PATIENCE_S):
                await sink.open()
                await sink.send_batch([outgoing("a", "x", turn)])
            await sink.close()
    assert [line["id"] for line in lines(out)] == ["kit/x/0", "kit/x/1"]


async def test_given_ten_kills_then_nothing_acknowledged_is_missing(tmp_path: Path) -> None:
    endpoint, out = f"tcp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    owned: list[str] = []
    sink = ZeromqSink("lab", ZeromqOptions(bind=endpoint), "plant-7")
    async with asyncio.timeout(2 * PATIENCE_S):
        for turn in range(10):
            with running(python_receiver(), endpoint, str(out)) as process:
                await sink.open()
                sending = [
                    asyncio.ensure_future(
                        sink.send_batch([outgoing("a", f"t{turn}", 1000 * b + n) for n in range(200)])
                    )
                    for b in range(10)
                ]
                await sending[turn % 5]
                process.kill()
                await asyncio.gather(*sending, return_exceptions=True)
                for b, task in enumerate(sending):
                    if task.exception() is None:
                        owned += [f"kit/t{turn}/{1000 * b + n}" for n in range(200)]
                await sink.close()
    written = {line["id"] for line in map(_whole, out.read_text(encoding="utf-8").splitlines()) if line}
    assert set(owned) <= written


def _whole(line: str) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:  # the kill came in the middle of it
        return None
    return parsed
