"""Listeners of every kind: where they are, whom they let in, how many, and what they leave behind."""

import asyncio
import contextlib
import logging
import os
import socket
import stat

import psutil
import pytest

from bridge.broker.crowd import Crowd, allow_descriptors
from bridge.broker.door import Door
from bridge.broker.limits import Limits
from bridge.config.doors import build_place
from bridge.errors import ConfigError
from bridge.mqtt.packet import Connect, Disconnect, Publish
from tests.broker.wires import WireDevice
from tests.gateway import running, until
from tests.pki import Authority, client_context
from tests.users import write_users

KINDS = ["mqtt", "mqtts", "ws", "wss", "unix"]


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def server(plant):
    return plant.server()


@pytest.fixture
def every_kind(tmp_path, server):
    """One listener of each kind, as the configuration says it."""
    tls = {"certificate": str(server.certificate), "key": str(server.key)}
    return {
        "mqtt": {"mqtt": "127.0.0.1:0"},
        "mqtts": {"mqtts": "127.0.0.1:0", **tls},
        "ws": {"ws": "127.0.0.1:0"},
        "wss": {"wss": "127.0.0.1:0", **tls},
        "unix": {"unix": str(tmp_path / "mqtt.sock")},
    }


def device_at(listener, plant=None, version=5):
    kind = listener.place.kind
    where = listener.address if kind == "unix" else int(listener.address.rpartition(":")[2])
    return WireDevice(kind, where, version, client_context(plant) if kind in ("mqtts", "wss") else None)


async def connected(listener, plant=None, client_id="device"):
    device = device_at(listener, plant)
    await device.open()
    assert (await device.hello(client_id)).reason == 0
    return device


async def turned_away(listener, plant=None) -> bool:
    device = device_at(listener, plant)
    try:
        await device.open()
        return await device.hello("one-too-many") is None
    except (OSError, EOFError):
        return True


# ---- all of them at once ---------------------------------------------------------------------


async def test_devices_of_every_kind_meet_in_one_house(tmp_path, plant, every_kind):
    async with running(tmp_path, listeners=list(every_kind.values())) as gateway:
        devices = {}
        for listener in gateway.listeners:
            device = devices[listener.place.kind] = await connected(listener, plant, listener.place.kind)
            await device.subscribe("to/all")
        assert list(devices) == KINDS
        assert gateway.broker.crowd.inside == len(KINDS)
        for number, device in enumerate(devices.values()):
            device.publish("to/all", str(number).encode(), 0)
            for other in devices.values():
                assert (await other.expect(Publish)).payload == str(number).encode()
        for device in devices.values():
            await device.leave()
        await until(lambda: not gateway.broker.crowd.inside)
        assert [listener.door.links for listener in gateway.listeners] == [0] * len(KINDS)


async def test_what_listens_is_what_the_configuration_says_and_nothing_else(tmp_path, every_kind):
    process = psutil.Process()

    def listening():
        tcp = {each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
        unix = {each.laddr for each in process.net_connections("unix") if str(tmp_path) in str(each.laddr)}
        return tcp | unix

    before = listening()
    async with running(tmp_path, listeners=list(every_kind.values())) as gateway:
        expected = set()
        for listener in gateway.listeners:
            host, _, port = listener.address.rpartition(":")
            expected.add((host, int(port)) if host else listener.address)
        assert {each if isinstance(each, str) else tuple(each) for each in listening() - before} == expected
        status = gateway.status()
        assert status.mqtt.listeners == [one.url for one in gateway.listeners]
        assert [url.partition("://")[0] for url in status.mqtt.listeners] == KINDS
    assert listening() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_keeps_the_limits_of_its_own_listener(tmp_path, plant, every_kind, kind):
    entries = [entry | {"limits": {"packet_bytes": "2KiB"}} if name == kind else entry
               for name, entry in every_kind.items()]  # fmt: skip
    async with running(tmp_path, listeners=entries) as gateway:
        for listener in gateway.listeners:
            device = await connected(listener, plant)
            device.publish("a", b"x" * 3000, 1)
            packet = await device.next()
            if listener.place.kind != kind:
                assert packet is not None
                assert not isinstance(packet, Disconnect)
            elif kind in ("ws", "wss"):
                assert packet is None  # refused at the frame, in the words of WebSocket
                assert int.from_bytes(device.wire.frames[-1][1][:2]) == 1009
            else:
                assert packet.reason == 0x95
            device.drop()


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_knows_where_its_devices_come_from(tmp_path, plant, every_kind, kind):
    async with running(tmp_path, listeners=[every_kind[kind]]) as gateway:
        device = await connected(gateway.listeners[0], plant)
        [link] = gateway.broker.links
        assert link.address == ("" if kind == "unix" else "127.0.0.1")
        assert link.door is gateway.listeners[0].door
        assert link.certificate_user is None
        device.drop()


@pytest.mark.parametrize("kind", KINDS)
async def test_given_a_stop_of_the_listener_when_devices_are_inside_then_they_stay_and_nobody_comes(
    tmp_path, plant, every_kind, kind
):
    async with running(tmp_path, listeners=[every_kind[kind]]) as gateway:
        listener = gateway.listeners[0]
        device, late = await connected(listener, plant), device_at(listener, plant)
        await listener.stop()
        assert (await device.published("a/b")).reason == 0
        with pytest.raises(OSError, match=r"refused|No such file|Connect call failed"):
            await late.open()
        device.drop()


async def test_a_name_that_stands_for_two_addresses_is_bound_at_both(tmp_path):
    async with running(tmp_path, listeners=[{"mqtt": "localhost:0"}]) as gateway:
        [listener] = gateway.listeners
        found = {sock.getsockname()[0] for sock in listener._sockets}
        wanted = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert found
        assert found <= wanted
        for sock in listener._sockets:
            reader, writer = await asyncio.open_connection(*sock.getsockname()[:2])
            writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")
            assert (await reader.readexactly(4))[0] == 0x20
            writer.transport.abort()


async def test_a_port_in_use_refuses_the_start_and_lets_go_of_what_it_had(tmp_path, every_kind):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        entries = [every_kind["unix"], {"mqtt": f"127.0.0.1:{port}"}]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is already in use"):
            async with running(tmp_path, listeners=entries):
                pass
    assert not os.path.exists(every_kind["unix"]["unix"])


@pytest.mark.parametrize("kind", ["mqtt", "ws"])
async def test_given_new_rules_when_reloaded_then_whoever_comes_next_meets_them(tmp_path, every_kind, kind):
    async with running(tmp_path, listeners=[every_kind[kind]]) as gateway:
        [listener] = gateway.listeners
        device = await connected(listener)
        model = gateway.config.listeners[0]
        if kind == "ws":
            model = model.model_copy(update={"path": "/only"})
        listener.reload(build_place(gateway.config, model))
        assert (await device.published("a/b")).reason == 0
        assert await turned_away(listener) is (kind == "ws")
        device.drop()


# ---- how many -----------------------------------------------------------------------------------


@pytest.fixture
def quiet_log(caplog):
    caplog.set_level(logging.INFO)
    yield caplog
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


BOUNDS = [
    ("the house", {"limits": {"connections": 3}}, {}),
    ("the listener", {}, {"limits": {"connections": 3}}),
    ("the address", {"limits": {"connections_per_address": 3}}, {}),
    ("the address, at this listener", {}, {"limits": {"connections_per_address": 3}}),
]


# A Unix socket has no addresses to bound.
BOUNDED = [(kind, *row) for kind in KINDS for row in BOUNDS if kind != "unix" or "address" not in row[0]]


@pytest.mark.parametrize(
    ("kind", "what", "parts", "own"), BOUNDED, ids=[f"{row[0]}: {row[1]}" for row in BOUNDED]
)
async def test_the_fourth_is_one_too_many_and_gets_in_when_another_has_left(
    tmp_path, plant, every_kind, quiet_log, kind, what, parts, own
):
    async with running(tmp_path, listeners=[every_kind[kind] | own], **parts) as gateway:
        [listener] = gateway.listeners
        devices = [await connected(listener, plant, str(number)) for number in range(3)]
        for _ in range(30):
            assert await turned_away(listener, plant)
        assert gateway.broker.crowd.turned_away == 30
        lines = [each for each in quiet_log.records if "connection refused" in each.message]
        assert 0 < len(lines) <= 20  # ten a second, and thirty take less than two
        for device in devices:
            await device.quiet()
        await devices[0].leave()
        await until(lambda: gateway.broker.crowd.inside == 2)
        device = await connected(listener, plant, "another")
        for one in (*devices, device):
            one.drop()


async def test_given_a_full_house_that_leaves_when_the_next_knock_at_once_then_all_come_in(
    tmp_path, plant, every_kind
):
    full = every_kind["mqtt"] | {"limits": {"connections": 10}}
    async with running(tmp_path, listeners=[full]) as gateway:
        [listener] = gateway.listeners
        address = ("127.0.0.1", int(listener.address.rpartition(":")[2]))
        for _ in range(5):
            devices = [await connected(listener, plant, str(number)) for number in range(10)]
            # Their ends and the new ones come in one turn of the loop, as from one program.
            for device in devices:
                device.drop()
            await asyncio.sleep(0)
            came = gateway.broker.traffic.sockets
            knocking = [socket.create_connection(address) for _ in range(10)]
            # All of the new ones: as long as the others are not gone yet there are ten as well.
            await until(lambda came=came: gateway.broker.traffic.sockets == came + 10)
            await until(lambda: gateway.broker.crowd.inside == 10)
            assert gateway.broker.crowd.turned_away == 0
            for sock in knocking:
                sock.close()
            await until(lambda: gateway.broker.crowd.inside == 0)


async def test_one_listener_that_is_full_leaves_room_at_the_others(tmp_path, plant, every_kind):
    full = every_kind["mqtt"] | {"limits": {"connections": 1}}
    async with running(tmp_path, listeners=[full, every_kind["ws"]]) as gateway:
        first, second = gateway.listeners
        device = await connected(first)
        assert await turned_away(first)
        other = await connected(second, client_id="other")
        device.drop()
        other.drop()


async def test_given_devices_that_break_off_at_every_point_when_all_are_gone_then_none_is_counted(
    tmp_path, plant, every_kind, quiet_log
):
    async with running(tmp_path, listeners=list(every_kind.values())) as gateway:
        for listener in gateway.listeners:
            for cut in (0, 1, 50, 150, 400):
                kind = listener.place.kind
                where = listener.address if kind == "unix" else int(listener.address.rpartition(":")[2])
                raw = WireDevice("unix" if kind == "unix" else "mqtt", where)
                await raw.open()
                if cut:
                    raw.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00" + b"x" * (cut - 1))
                raw.drop()
            device = device_at(listener, plant)
            await device.open()
            device.drop()
        await until(lambda: not gateway.broker.crowd.inside and not gateway.broker.links)
        assert [listener.door.links for listener in gateway.listeners] == [0] * len(KINDS)
        assert not gateway.broker.crowd._addresses


def test_a_crowd_forgets_addresses_that_have_left():
    crowd, door = Crowd(), Door("mqtt://x", Limits(connections_max=10, connections_per_address_max=2))
    assert not crowd.admit(door, "10.0.0.1", 10)
    assert not crowd.admit(door, "10.0.0.1", 10)
    assert "address=10.0.0.1" in crowd.admit(door, "10.0.0.1", 10)
    assert not crowd.admit(door, "10.0.0.2", 10)
    assert not crowd.admit(door, "", 10)
    assert (crowd.inside, door.links) == (4, 4)
    assert "connections=4" in crowd.admit(door, "10.0.0.3", 4)
    for came_from in ("10.0.0.1", "10.0.0.1", "10.0.0.2", ""):
        crowd.leave(door, came_from)
    assert (crowd.inside, door.links, crowd.turned_away, dict(crowd._addresses)) == (0, 0, 2, {})


def test_the_bound_of_open_files_is_raised_but_not_above_what_is_allowed(monkeypatch):
    asked = []
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1024, 4096))
    monkeypatch.setattr("resource.setrlimit", lambda kind, bounds: asked.append(bounds))
    assert allow_descriptors(20_000) == 4096
    assert allow_descriptors(2_000) == 3024
    assert asked == [(4096, 4096), (3024, 4096)]
    assert allow_descriptors(0) == 1024
    assert len(asked) == 2


# ---- Unix sockets -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["0660", "0600", "0666"])
async def test_a_unix_socket_has_the_mode_that_was_asked_for_and_is_gone_afterwards(tmp_path, mode):
    path = tmp_path / "mqtt.sock"
    mask = os.umask(0o027)  # what a service runs with
    try:
        async with running(tmp_path, listeners=[{"unix": str(path), "mode": mode}]):
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
        assert not path.exists()
    finally:
        os.umask(mask)


async def test_given_a_socket_of_one_that_was_killed_when_started_then_it_is_replaced(tmp_path, every_kind):
    path = every_kind["unix"]["unix"]
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    assert os.path.exists(path)
    async with running(tmp_path, listeners=[every_kind["unix"]]) as gateway:
        device = await connected(gateway.listeners[0])
        device.drop()


async def test_given_a_socket_where_somebody_listens_when_started_then_refused_and_left_alone(
    tmp_path, every_kind
):
    path = every_kind["unix"]["unix"]
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(ConfigError, match=f"{path} is already in use"):
            async with running(tmp_path, listeners=[every_kind["unix"]]):
                pass
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)  # it is still theirs


@pytest.mark.parametrize("what", ["file", "folder", "link"])
async def test_given_something_else_in_the_way_when_started_then_refused_and_left_alone(
    tmp_path, every_kind, what
):
    path = tmp_path / "mqtt.sock"
    if what == "folder":
        path.mkdir()
    elif what == "link":
        (tmp_path / "precious").touch()
        path.symlink_to(tmp_path / "precious")
    else:
        path.write_text("precious")
    with pytest.raises(ConfigError, match=f"{path} is there and is no socket"):
        async with running(tmp_path, listeners=[every_kind["unix"]]):
            pass
    assert path.exists()


@pytest.mark.parametrize(("below", "told"), [("none/mqtt.sock", "No such file"), ("x" * 120, "too long")])
async def test_a_path_that_cannot_be_bound_refuses_the_start_by_name(tmp_path, below, told):
    path = tmp_path / below
    with pytest.raises(ConfigError) as caught:
        async with running(tmp_path, listeners=[{"unix": str(path)}]):
            pass
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


async def test_given_another_process_has_put_its_socket_there_when_stopped_then_it_stays(
    tmp_path, every_kind
):
    path = every_kind["unix"]["unix"]
    async with running(tmp_path, listeners=[every_kind["unix"]]):
        os.unlink(path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(path)
    assert os.path.exists(path)
    other.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# ---- the same login on every kind ------------------------------------------------------------------

RIGHT, WRONG, NONE = ("alice", b"alice's"), ("alice", b"bob's"), (None, None)
# Does the listener say `anonymous: true`?, what is shown → whether it is let in.
LOGINS = [
    (False, RIGHT, True),
    (False, WRONG, False),
    (False, NONE, False),
    (False, ("alice", None), False),
    (False, ("mallory", b"x"), False),
    (True, RIGHT, True),
    (True, WRONG, False),
    (True, NONE, True),
]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", KINDS)
async def test_users_are_asked_for_on_every_kind_whatever_the_listener_beside_it_allows(
    tmp_path, plant, every_kind, kind, version
):
    """Each listener is there twice: closed, and open to the anonymous."""
    users = write_users(tmp_path / "passwords", {"alice": "alice's"})
    entry = every_kind[kind]
    twin = entry | {"anonymous": True} | ({"unix": f"{entry['unix']}2"} if kind == "unix" else {})
    if kind != "unix":
        twin[kind] = "127.0.0.1:0"
    async with running(tmp_path, listeners=[entry, twin], access={"users": str(users)}) as gateway:
        listeners = dict(zip((False, True), gateway.listeners, strict=True))
        for anonymous, (user, password), welcome in LOGINS:
            device = device_at(listeners[anonymous], plant, version)
            await device.open()
            device.send(Connect(f"{user}", version, True, 0, user, password))
            connack = await device.next()
            assert (connack is not None and connack.reason == 0) is welcome, (anonymous, user, password)
            device.drop()
        assert {one.session.client_id for one in gateway.broker.subscribers.values()} <= {"alice", "None"}


@pytest.mark.parametrize("kind", ["mqtts", "wss"])
async def test_the_user_of_a_certificate_needs_no_password_and_nobody_else_goes_by_its_name(
    tmp_path, plant, every_kind, kind
):
    users = write_users(tmp_path / "passwords", {"alice": "alice's"})
    entry = every_kind[kind] | {"client_ca": str(plant.certificate)}
    async with running(tmp_path, listeners=[entry], access={"users": str(users)}) as gateway:
        device = device_at(gateway.listeners[0], plant)
        device.context = client_context(plant, plant.issue(cn="press-1"))
        await device.open()
        assert (await device.hello()).reason == 0
        [link] = gateway.broker.links
        assert link.identity.user == "press-1"
        device.drop()
