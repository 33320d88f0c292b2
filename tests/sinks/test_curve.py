"""Who holds a key is let in, and nobody else: 0 of 100, however they try (P5)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from bridge.errors import ConfigError, SinkUnavailable
from bridge.sinks import create
from bridge.sinks.curve import Client, Server, from_options
from bridge.sinks.keys import KeyPair, read_public_key
from bridge.sinks.kit import outgoing
from bridge.sinks.options import CurveOptions, ZeromqOptions
from bridge.sinks.receiver import Receiver
from bridge.sinks.zeromq import ZeromqSink
from tests.servers import free_port
from tests.sinks.keyring import Keyring
from tests.sinks.rigs import FarReceiver

STRANGERS = 100


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def options(endpoint: str, keyring: Keyring) -> ZeromqOptions:
    return ZeromqOptions.model_validate({"bind": endpoint, "curve": keyring.options(bind=True)})


@pytest.fixture
async def sink(endpoint: str, keyring: Keyring) -> AsyncIterator[ZeromqSink]:
    sink = ZeromqSink("lab", options(endpoint, keyring), "plant-7")
    yield sink
    await sink.close()


@pytest.fixture
def strangers(endpoint: str, keyring: Keyring) -> Iterator[list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]]:
    """A hundred sockets that call, and their monitors: unknown keys, the keys that all know, no keys."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server_key = read_public_key(keyring.public("gateway"))
    receiver_public = read_public_key(keyring.public("receiver"))
    made = []
    for number in range(STRANGERS):
        socket = context.socket((zmq.DEALER, zmq.ROUTER, zmq.REQ)[number % 3])
        socket.linger = 0
        public, secret = zmq.curve_keypair()
        match number % 5:
            case 0 | 1:
                Client(KeyPair(public, secret), server_key).secure(socket)
            case 2:  # the public key of one who is let in, without its secret
                Client(KeyPair(receiver_public, secret), server_key).secure(socket)
            case 3:
                socket.plain_username, socket.plain_password = b"receiver", b"let me in"
            case _:  # nothing at all
                pass
        socket.routing_id = b"good"  # nobody loses his place to a name either
        socket.setsockopt(zmq.PROBE_ROUTER, int(number % 3 < 2))
        made.append((socket, socket.get_monitor_socket()))
    yield made
    for socket, monitor in made:
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=0)
    context.term()


def knock(endpoint: str, curve: Client | Server) -> str:
    """Call, and return why we are not let in; "" when we are."""
    try:
        with Receiver(endpoint, curve=curve) as receiver:
            while not receiver.role:
                receiver.receive(0.1)
    except SinkUnavailable as error:
        return str(error)
    return ""


async def test_of_100_strangers_none_gets_in(
    sink: ZeromqSink,
    endpoint: str,
    keyring: Keyring,
    strangers: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]],
) -> None:
    good = FarReceiver(endpoint, name="good", curve=keyring.receiver(bind=False))
    try:
        async with asyncio.timeout(20):
            await sink.open()
            turned_away = set()
            for socket, _ in strangers:
                socket.connect(endpoint)
            while len(turned_away) < STRANGERS:
                await sink.send_batch([outgoing("a", "x", 0)])
                for number, (socket, monitor) in enumerate(strangers):
                    # Whether it waits for a connection that never is, or cannot be sent at all.
                    with contextlib.suppress(zmq.ZMQError):
                        socket.send_multipart([b"HELLO", b'{"version": 1, "window": 9}'], zmq.NOBLOCK)
                    while monitor.poll(0):
                        event = recv_monitor_message(monitor)["event"]
                        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED, number
                        if event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                            turned_away.add(number)
        assert sink.receivers == ["good"]
        assert [number for number, (socket, _) in enumerate(strangers) if socket.poll(0)] == []
    finally:
        await asyncio.to_thread(good.end)
    assert {message.id for message in good.owned} == {"kit/x/0"}


async def test_without_its_gate_a_server_lets_nobody_in(endpoint: str, keyring: Keyring) -> None:
    server = keyring.receiver(bind=True)
    assert isinstance(server, Server)
    socket = server.context.socket(zmq.ROUTER)
    server.secure(socket)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    socket.bind(endpoint)
    caller = zmq.Context.instance().socket(zmq.DEALER)
    from_options(CurveOptions.model_validate(keyring.options(bind=False))).secure(caller)
    caller.connect(endpoint)
    assert await asyncio.to_thread(monitor.poll, 10_000)
    assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    caller.close(linger=0)
    socket.disable_monitor()
    monitor.close(linger=0)
    socket.close(linger=0)
    server.context.term()


async def test_a_receiver_with_the_key_of_another_gateway_is_told(
    sink: ZeromqSink, endpoint: str, keyring: Keyring
) -> None:
    opening = asyncio.ensure_future(sink.open())
    curve = keyring.receiver(bind=False, gateway="stranger")
    with Receiver(endpoint, curve=curve) as receiver:
        for _ in range(100):
            assert await asyncio.to_thread(receiver.receive, 0.1) is None
            if receiver.trouble:
                break
    assert "is that the server key of that end" in receiver.trouble
    assert not opening.done()
    opening.cancel()


async def test_a_gateway_that_calls_the_wrong_receiver_says_so(endpoint: str, keyring: Keyring) -> None:
    where = {
        "connect": endpoint,
        "open_timeout": "1s",
        "curve": keyring.options(bind=False, receiver="stranger"),
    }
    sink = ZeromqSink("lab", ZeromqOptions.model_validate(where), "plant-7")
    far = FarReceiver(endpoint, bind=True, curve=keyring.receiver(bind=True))
    try:
        with pytest.raises(SinkUnavailable, match="is that the server key of that end"):
            await sink.open()
        assert far.owned == []
    finally:
        await asyncio.to_thread(far.end)


async def test_who_is_turned_away_is_named_for_the_operator(
    sink: ZeromqSink, endpoint: str, keyring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    opening = asyncio.ensure_future(sink.open())
    key = keyring.public("stranger").read_text().split()[0]
    for _ in range(3):
        why = await asyncio.to_thread(knock, endpoint, keyring.receiver(bind=False, who="stranger"))
        assert "our public key is not among the clients there" in why
    assert sink.waiting.endswith(f"127.0.0.1 was turned away, its key {key} is not among the clients")
    assert [record.getMessage() for record in caplog.records] == [
        f"stranger turned away clients={keyring.public('receiver')} address=127.0.0.1 key={key} in_all=1"
    ], "once a minute, however often they come"
    opening.cancel()


async def test_one_who_is_added_while_we_run_is_let_in(
    tmp_path: Path, endpoint: str, keyring: Keyring
) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    curve = {"secret_key": str(keyring.secret("gateway")), "clients": str(allowed)}
    sink = ZeromqSink("lab", ZeromqOptions.model_validate({"bind": endpoint, "curve": curve}), "plant-7")
    opening = asyncio.ensure_future(sink.open())
    receiver = keyring.receiver(bind=False)
    try:
        assert await asyncio.to_thread(knock, endpoint, receiver)
        (allowed / "r.pub").write_bytes(keyring.public("receiver").read_bytes())
        async with asyncio.timeout(10):
            while await asyncio.to_thread(knock, endpoint, receiver):
                await asyncio.sleep(0.1)
            await opening
    finally:
        await sink.close()


async def test_it_opens_again_and_again_and_leaves_nothing(endpoint: str, keyring: Keyring) -> None:
    for turn in range(5):
        sink = ZeromqSink("lab", options(endpoint, keyring), "plant-7")
        far = FarReceiver(endpoint, curve=keyring.receiver(bind=False))
        async with asyncio.timeout(10):
            for again in range(3):
                await sink.open()
                assert await sink.send_batch([outgoing("a", "x", 10 * turn + again)]) == []
                await sink.close()
        await asyncio.to_thread(far.end)
        del sink
        gc.collect()


async def test_a_renewed_key_counts_from_the_next_link_and_a_spoilt_one_changes_nothing(
    endpoint: str, keyring: Keyring
) -> None:
    sink = ZeromqSink("lab", options(endpoint, keyring), "plant-7")
    secret = keyring.secret("gateway")

    async def reaches(number: int, server: str) -> bool:
        """Whether a receiver that believes this key gets a message."""
        far = FarReceiver(endpoint, curve=keyring.receiver(bind=False, gateway=server))
        try:
            async with asyncio.timeout(5):
                await sink.open()
                return await sink.send_batch([outgoing("a", "x", number)]) == []
        except TimeoutError:
            return False
        finally:
            await sink.close()
            await asyncio.to_thread(far.end)

    assert await reaches(1, "gateway")
    before = secret.read_text()
    secret.write_text(keyring.secret("stranger").read_text())
    assert await reaches(2, "stranger")
    assert not await reaches(3, "gateway"), "the old key is still shown"
    secret.write_text("spoilt")
    assert await reaches(4, "stranger")
    secret.write_text(before)
    assert await reaches(5, "gateway")


async def test_a_client_believes_the_renewed_key_of_its_server(endpoint: str, keyring: Keyring) -> None:
    theirs = keyring.public("receiver")
    curve = {"secret_key": str(keyring.secret("gateway")), "server_key": str(theirs)}
    wanted = ZeromqOptions.model_validate({"connect": endpoint, "curve": curve, "open_timeout": "2s"})
    sink = ZeromqSink("lab", wanted, "plant-7")
    before = theirs.read_text()
    far = FarReceiver(endpoint, bind=True, curve=keyring.receiver(bind=True))
    try:
        await sink.open()
        await sink.close()
        theirs.write_text(keyring.public("stranger").read_text())
        with pytest.raises(SinkUnavailable):
            await sink.open()
        theirs.write_text(before)
        async with asyncio.timeout(10):
            await sink.open()
            assert await sink.send_batch([outgoing("a", "x", 1)]) == []
    finally:
        await sink.close()
        await asyncio.to_thread(far.end)


BAD_KEYS = {
    "world-readable": (0o644, None, "secret_key: .* chmod 600"),
    "missing": (0o600, "", "secret_key: .* does not begin with a key"),
}


@pytest.mark.parametrize(("mode", "content", "said"), BAD_KEYS.values(), ids=BAD_KEYS)
async def test_a_bad_key_file_is_the_operators_to_mend(
    endpoint: str, keyring: Keyring, mode: int, content: str | None, said: str
) -> None:
    if content is not None:
        keyring.secret("gateway").write_text(content)
    keyring.secret("gateway").chmod(mode)
    sink = ZeromqSink("lab", options(endpoint, keyring), "plant-7")
    with pytest.raises(ConfigError, match=rf"sinks\.lab\.zeromq\.curve\.{said}"):
        await sink.open()


# What broke others: CVE-2019-13132, CVE-2020-15166.
@pytest.mark.parametrize("version", [(4, 3, 1), (4, 2, 5), (4, 3, 4)])
def test_an_old_libzmq_is_refused(
    endpoint: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: version)
    with pytest.raises(ConfigError, match=r"sinks.lab.zeromq.curve: curve needs libzmq 4\.3\.5, here is"):
        create("zeromq", "lab", options(endpoint, keyring), "plant-7")
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 5))
    assert create("zeromq", "lab", options(endpoint, keyring), "plant-7").name == "lab"
