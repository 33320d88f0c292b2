"""Plain PULL and SUB keep the promises that a lossy source can keep, in front of real ZeroMQ senders."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode

import pytest
import zmq
import zmq.asyncio

from bridge.errors import SinkUnavailable
from bridge.sinks.keys import read_key_pair
from bridge.sources import create
from bridge.sources.base import Settlement
from bridge.sources.kit import CHECKS, LOSSY_CHECKS, NOT_OF_LOSSY, PREFETCH
from bridge.sources.options import ZeromqSourceOptions
from bridge.sources.zeromq_plain import PlainZeromqSource
from tests.gateway import until
from tests.servers import free_port
from tests.sinks.keyring import Keyring

SENDERS = {"pull": zmq.PUSH, "sub": zmq.XPUB}  # an XPUB is a PUB that hears who has subscribed
QUIET_MS = 200


class PlainRig:
    """A PUSH or PUB, and the source that it sends to."""

    can_bury = can_reply = False
    routing_key = ""

    def __init__(self, socket, *, bind, curve=None, **options):
        self.kind, self.bind = socket, bind
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.options = {"bind" if bind else "connect": self.endpoint, "socket": socket, "confirm": "none"}
        self.options |= options | ({"curve": curve} if curve else {})
        self.secure = None
        self.sender = None

    def source(self):
        options = ZeromqSourceOptions.model_validate(self.options)
        source = create("zeromq", "lamps", options, None, PREFETCH, "plant-7")
        assert isinstance(source, PlainZeromqSource)
        return source

    def start(self):
        self.sender = zmq.asyncio.Context.instance().socket(SENDERS[self.kind])
        self.sender.linger = 0
        self.sender.sndhwm = 100_000
        self.subscriptions = 0
        if self.kind == "sub":
            self.sender.setsockopt(zmq.XPUB_VERBOSER, 1)
        if self.secure:
            self.secure.secure(self.sender)
        if self.bind:
            self.sender.connect(self.endpoint)
        else:
            self._bind()

    def _bind(self):
        """libzmq lets go of a port a moment after it was told to."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self.sender.bind(self.endpoint)
                return
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def stop(self):
        if self.sender is not None:
            self.sender.close()
            self.sender = None

    async def subscribed(self):
        """Before that a PUB sends nothing. Of a source that was cancelled it hears yes and no, late."""
        if self.kind != "sub":
            return
        async with asyncio.timeout(10):
            while await self.sender.poll(QUIET_MS) or self.subscriptions < 1:
                self.subscriptions += 1 if (await self.sender.recv())[:1] == b"\1" else -1

    async def send(self, *messages):
        await self.subscribed()
        for one in messages:
            about = {"id": one.message_id, "headers": one.headers, "content_type": one.content_type}
            if "user_properties" in one.headers:
                about |= {"user_properties": one.headers["user_properties"], "headers": {}}
            if one.correlation_id is not None:
                about["correlation_data"] = b64encode(one.correlation_id).decode()
            await self.sender.send_multipart([one.routing_key.encode(), json.dumps(about).encode(), one.body])


HOW = [
    ("pull", True),
    ("sub", False),
    pytest.param(("pull", False), marks=pytest.mark.long),
    pytest.param(("sub", True), marks=pytest.mark.long),
]


@pytest.fixture(params=HOW, ids=lambda how: f"{how[0]} {'bind' if how[1] else 'connect'}")
async def rig(request):
    rig = PlainRig(request.param[0], bind=request.param[1])
    rig.start()
    yield rig
    rig.stop()


@pytest.mark.parametrize("number", LOSSY_CHECKS)
async def test_promise(number, rig):
    await CHECKS[number](rig)


def test_each_promise_is_kept_or_left_out_with_its_reason():
    assert sorted([*LOSSY_CHECKS, *NOT_OF_LOSSY]) == sorted(CHECKS)
    assert all(NOT_OF_LOSSY.values())


async def opened(rig):
    source = rig.source()
    async with asyncio.timeout(20):
        await source.open()
    return source


async def taken(source, count, *, settle=True):
    got = []
    async with asyncio.timeout(20):
        while len(got) < count:
            batch = await source.receive()
            got += batch
            if settle:
                source.settle([Settlement(one.tag) for one in batch])
    return got


async def test_a_command_is_an_address_and_a_payload(rig):
    source = await opened(rig)
    await rig.subscribed()
    await rig.sender.send_multipart([b"plant.press-1", b"on"])
    [got] = await taken(source, 1)
    assert (got.routing_key, got.body, got.message_id, got.unfit) == ("plant.press-1", b"on", "", "")
    await source.close()


UNREADABLE = [
    [b"only one"],
    [b"a", b"{}", b"x", b"y"],
    [b"\xff", b"x"],
    [b"a", b"{", b"x"],
    [b"a", b"[]", b"x"],
    [b"a", b'{"id": 7}', b"x"],
    [b"a", b'{"headers": 7}', b"x"],
    [b"a", b'{"correlation_data": "?"}', b"x"],
    [b"a", b'{"headers":' + b"[" * 100_000, b"x"],
]


async def test_what_cannot_be_read_is_unfit_and_harms_no_other(rig):
    source = await opened(rig)
    await rig.subscribed()
    for frames in UNREADABLE:
        await rig.sender.send_multipart(frames)
        await rig.sender.send_multipart([b"a", b"good"])
    got = await taken(source, 2 * len(UNREADABLE))
    assert [bool(one.unfit) for one in got] == [True, False] * len(UNREADABLE)
    assert [one.body for one in got[1::2]] == [b"good"] * len(UNREADABLE)
    await source.close()


async def test_a_sender_that_dies_and_comes_back_is_heard_again_and_what_it_had_sent_is_not_lost(
    rig,
):
    source = await opened(rig)
    lost = asyncio.ensure_future(source.lost())
    await rig.subscribed()
    for number in range(PREFETCH):
        await rig.sender.send_multipart([b"a", b"%d" % number])
    got = await taken(source, PREFETCH, settle=False)  # nothing more is read before one is settled
    await rig.sender.send_multipart([b"a", b"last"])
    if rig.kind == "pull":
        await asyncio.sleep(0.3)  # it lies in libzmq, where nobody can look
    else:
        await until(lambda: source.kept)
    rig.stop()
    await until(lambda: "nobody is connected" in source.waiting)
    source.settle([Settlement(one.tag) for one in got])
    assert [one.body for one in await taken(source, 1)] == [b"last"]
    rig.start()
    await rig.subscribed()
    await until(lambda: not source.waiting)
    await rig.sender.send_multipart([b"a", b"new"])
    assert [one.body for one in await taken(source, 1)] == [b"new"]
    assert not lost.done()
    await source.close()
    assert source.dropped == 0
    await lost


async def test_a_pull_that_is_full_makes_its_sender_wait_and_loses_nothing():
    rig = PlainRig("pull", bind=True, high_water_mark=10)
    rig.start()
    rig.sender.close()
    rig.sender = zmq.asyncio.Context.instance().socket(zmq.PUSH)
    rig.sender.linger, rig.sender.sndhwm = 0, 10
    rig.sender.connect(rig.endpoint)
    source = await opened(rig)
    payload, count = b"x" * 100_000, 300  # more than the buffers of a connection hold

    async def pour():
        for number in range(count):
            await rig.sender.send_multipart([b"%d" % number, payload])

    pouring = asyncio.ensure_future(pour())
    got = await taken(source, PREFETCH, settle=False)
    await asyncio.sleep(0.3)
    assert not pouring.done()
    source.settle([Settlement(one.tag) for one in got])
    got += await taken(source, count - PREFETCH)
    await pouring
    assert [one.routing_key for one in got] == [str(number) for number in range(count)]
    await source.close()
    assert source.dropped == 0
    rig.stop()


async def test_a_sub_drops_the_newest_beyond_its_mark_and_counts_each():
    rig = PlainRig("sub", bind=False, high_water_mark=10)
    rig.start()
    source = await opened(rig)
    await rig.subscribed()
    await rig.sender.send_multipart([b"a", b"first"])
    [first] = await taken(source, 1, settle=False)
    for number in range(100):
        await rig.sender.send_multipart([b"a", b"%d" % number])
        await asyncio.sleep(0)  # so that it is the source, and not libzmq, that has too many
        await until(lambda number=number: source.kept + source.dropped > number)
    assert source.dropped == 90
    source.settle([Settlement(first.tag)])
    assert [one.body for one in await taken(source, 10)] == [b"%d" % number for number in range(10)]
    await source.close()
    assert source.dropped == 90
    rig.stop()


async def test_what_is_not_settled_at_a_close_counts_as_dropped_until_it_is_settled_yet():
    rig = PlainRig("pull", bind=True)
    rig.start()
    source = await opened(rig)
    for number in range(PREFETCH + 500):
        await rig.sender.send_multipart([b"a", b"%d" % number])
    got = await taken(source, PREFETCH, settle=False)
    await asyncio.sleep(0.3)  # the rest lies in libzmq
    source.settle([Settlement(got[0].tag)])
    await source.close()
    assert source.dropped == PREFETCH + 500 - 1
    source.settle([Settlement(got[1].tag)])  # its commit came after the close
    assert source.dropped == PREFETCH + 500 - 2
    rig.stop()


async def test_a_sub_hears_only_what_it_has_subscribed_to():
    rig = PlainRig("sub", bind=False, subscribe=["lamps.", "doors.3"])
    rig.start()
    source = await opened(rig)
    await rig.subscribed()
    for address in (b"lamps.1", b"doors.1", b"doors.3", b"x", b"lamps.2"):
        await rig.sender.send_multipart([address, b""])
    assert [one.routing_key for one in await taken(source, 3)] == ["lamps.1", "doors.3", "lamps.2"]
    await source.close()
    rig.stop()


async def test_with_keys_it_hears_those_it_knows_and_no_stranger(tmp_path):
    keyring = Keyring(tmp_path)
    rig = PlainRig("pull", bind=True, curve=keyring.options(bind=True))
    source = rig.source()
    opening = asyncio.ensure_future(source.open())
    rig.secure = keyring.receiver(bind=False, who="stranger")
    rig.start()
    await rig.sender.send_multipart([b"a", b"strange"])
    await until(lambda: "was turned away" in source.waiting)
    assert not opening.done()
    rig.stop()
    rig.secure = keyring.receiver(bind=False)
    rig.start()
    await rig.sender.send_multipart([b"a", b"known"])
    await asyncio.wait_for(opening, 20)
    assert [one.body for one in await taken(source, 1)] == [b"known"]
    await source.close()
    rig.stop()


async def test_nobody_there_is_said_and_the_next_try_is_a_new_socket():
    rig = PlainRig("pull", bind=False, open_timeout="1s")
    source = rig.source()
    with pytest.raises(SinkUnavailable, match="nobody is connected to tcp://"):
        await source.open()
    rig.start()
    async with asyncio.timeout(20):
        await source.open()
    assert source.waiting == ""
    await source.close()
    rig.stop()


class KeysOf:
    """A sender that binds and shows who it is; whom it lets in is not the matter here."""

    def __init__(self, keyring, name):
        self.keys = read_key_pair(keyring.secret(name))

    def secure(self, socket):
        socket.curve_server = True
        socket.curve_secretkey = self.keys.secret


async def test_it_calls_with_keys_and_a_sender_that_comes_back_as_another_one_breaks_the_link(tmp_path):
    keyring = Keyring(tmp_path)
    rig = PlainRig("sub", bind=False, curve=keyring.options(bind=False))
    rig.secure = KeysOf(keyring, "receiver")
    rig.start()
    source = await opened(rig)
    await rig.subscribed()
    await rig.sender.send_multipart([b"a", b"known"])
    got = await taken(source, 1, settle=False)
    rig.stop()
    rig.secure = None  # libzmq calls once more, and then never again
    rig.start()
    await until(lambda: "one end uses keys" in source.waiting, 20)
    lost = asyncio.ensure_future(source.lost())
    source.settle([Settlement(one.tag) for one in got])
    assert "one end uses keys" in await asyncio.wait_for(lost, 20)
    with pytest.raises(SinkUnavailable, match="one end uses keys"):
        await source.receive()
    rig.stop()
    rig.secure = KeysOf(keyring, "receiver")
    rig.start()
    async with asyncio.timeout(20):
        await source.open()
    await source.close()
    rig.stop()
