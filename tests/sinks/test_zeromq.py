"""What the ZeroMQ sink does beyond the ten promises: many receivers, strangers, taken endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from bridge.errors import ConfigError, SinkUnavailable
from bridge.sinks.kit import outgoing
from bridge.sinks.options import ZeromqOptions
from bridge.sinks.zeromq import ZeromqSink
from tests.servers import free_port
from tests.sinks.rigs import FarReceiver, ipc


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
async def far(endpoint: str) -> AsyncIterator[Callable[..., FarReceiver]]:
    made: list[FarReceiver] = []

    def arrive(name: str = "", **options: int) -> FarReceiver:
        made.append(FarReceiver(endpoint, name=name, **options))
        return made[-1]

    yield arrive
    for each in made:
        await asyncio.to_thread(each.end)


@pytest.fixture
async def sink(endpoint: str) -> AsyncIterator[ZeromqSink]:
    sink = ZeromqSink("lab", ZeromqOptions(bind=endpoint, confirm_timeout="1s"), "plant-7")
    yield sink
    await sink.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_open_waits_for_a_receiver_and_says_so(
    sink: ZeromqSink, far: Callable[..., FarReceiver]
) -> None:
    opening = asyncio.ensure_future(sink.open())
    await until(lambda: bool(sink.waiting))
    assert sink.waiting.startswith("no receiver has said hello on tcp://")
    far("hall-3")
    await asyncio.wait_for(opening, 10)
    assert sink.waiting == ""
    assert sink.receivers == ["hall-3"]


@pytest.mark.parametrize("bye", [True, False], ids=["says bye", "dies"])
async def test_when_the_active_receiver_goes_the_next_gets_what_it_left(
    sink: ZeromqSink, far: Callable[..., FarReceiver], bye: bool
) -> None:
    first = far("first")
    await sink.open()
    second = far("second")
    await until(lambda: sink.receivers == ["first", "second"])
    await sink.send_batch([outgoing("a", "x", 0)])
    first.taking.clear()
    sending = [asyncio.ensure_future(sink.send_batch([outgoing("a", "x", n)])) for n in range(1, 6)]
    await asyncio.sleep(0)
    await asyncio.to_thread(first.end, bye=bye)
    assert await asyncio.wait_for(asyncio.gather(*sending), 10) == [[]] * 5
    assert [message.id for message in first.owned] == ["kit/x/0"]
    assert [message.id for message in second.owned] == [f"kit/x/{n}" for n in range(1, 6)]


async def test_when_the_active_receiver_falls_silent_the_next_takes_over(
    sink: ZeromqSink, far: Callable[..., FarReceiver]
) -> None:
    first = far("first")
    await sink.open()
    second = far("second")
    await until(lambda: len(sink.receivers) == 2)
    first.taking.clear()
    assert await asyncio.wait_for(sink.send_batch([outgoing("a", "x", 0)]), 10) == []
    assert len(second.owned) == 1


async def test_the_window_of_the_receiver_is_kept(sink: ZeromqSink, far: Callable[..., FarReceiver]) -> None:
    receiver = far(window=7)
    await sink.open()
    await sink.send_batch([outgoing("a", "x", n) for n in range(50)])
    assert receiver.batches == 8
    assert [message.id for message in receiver.owned] == [f"kit/x/{n}" for n in range(50)]


async def test_a_taken_endpoint_is_the_operators_to_solve(tmp_path: Path) -> None:
    for endpoint in (f"tcp://127.0.0.1:{free_port()}", ipc(tmp_path)):
        taken: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        taken.bind(endpoint)
        sink = ZeromqSink("lab", ZeromqOptions(bind=endpoint), "plant-7")
        with pytest.raises(ConfigError, match="is already in use") as raised:
            await sink.open()
        assert endpoint in str(raised.value)
        taken.close(linger=0)


async def test_calling_nobody_ends_in_time(endpoint: str) -> None:
    sink = ZeromqSink("lab", ZeromqOptions(connect=endpoint, open_timeout="200ms"), "plant-7")
    with pytest.raises(SinkUnavailable, match="no receiver has said hello"):
        await sink.open()


STRANGE = [
    [b"HELLO", b"not json"],
    [b"HELLO", b'{"version": 9, "window": 1}'],
    [b"HELLO", b'{"version": 1, "window": 0}'],
    [b"HELLO", b'{"version": 1}'],
    [b"HELLO"],
    [b"hello", b"{}"],
    [b"\xff" * 1000] * 50,
]


async def test_strangers_are_told_and_do_no_harm(
    sink: ZeromqSink, far: Callable[..., FarReceiver], endpoint: str
) -> None:
    receiver = far("good")
    await sink.open()
    stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    stranger.connect(endpoint)
    try:
        for frames in STRANGE:
            stranger.send_multipart(frames)
            await until(lambda: bool(stranger.poll(0)))
            assert stranger.recv_multipart()[0] == b"SORRY", frames
        for frames in ([b"ACK", b"1"], [b"REFUSE", b"1", b"0", b"x"], [b"BYE"]):
            stranger.send_multipart(frames)
            await until(lambda: bool(stranger.poll(0)))
            assert stranger.recv_multipart()[0] == b"WHO", frames
        stranger.send_multipart([b"HELLO", msgspec.json.encode({"version": 1, "window": 1})])
        await until(lambda: len(sink.receivers) == 2)
        for frames in ([b"ACK", b"x"], [b"ACK", b"-1"], [b"ACK", b"999"], [b"REFUSE", b"1", b"-5", b""]):
            stranger.send_multipart(frames)
        assert await sink.send_batch([outgoing("a", "x", 0)]) == []
        assert len(receiver.owned) == 1
    finally:
        stranger.close(linger=0)


async def test_a_second_standby_does_not_answer_for_the_active(
    sink: ZeromqSink, far: Callable[..., FarReceiver], endpoint: str
) -> None:
    receiver = far("good")
    await sink.open()
    liar: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    liar.connect(endpoint)
    try:
        liar.send_multipart([b"HELLO", msgspec.json.encode({"version": 1, "window": 1})])
        await until(lambda: len(sink.receivers) == 2)
        receiver.taking.clear()
        sending = asyncio.ensure_future(sink.send_batch([outgoing("a", "x", 0)]))
        for number in range(5):
            liar.send_multipart([b"ACK", b"%d" % number])
        liar.send_multipart([b"nonsense"])  # its answer shows that the lies have been read
        while True:
            await until(lambda: bool(liar.poll(0)))
            if liar.recv_multipart()[0] == b"SORRY":
                break
        assert not sending.done()
        receiver.taking.set()
        assert await asyncio.wait_for(sending, 5) == []
    finally:
        liar.close(linger=0)
