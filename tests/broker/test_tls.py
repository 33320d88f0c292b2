"""TLS of devices: who is let in by certificate, on every kind of listener and on both event loops.

The bad certificates are row A8 of what we promise, the reload is P7.
"""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import threading
import time

import pytest

from bridge.broker.listener import HANDSHAKES_MAX, Listener
from bridge.broker.tls import TlsFiles, build_context, user_of
from bridge.config.doors import build_place
from bridge.errors import ConfigError
from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect
from tests.broker.wires import WireDevice
from tests.gateway import running, until
from tests.pki import Authority, client_context, replace
from tests.servers import missing

KINDS = ["mqtts", "wss"]
GONE = (OSError, EOFError, ssl.SSLError)


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def server(plant):
    return plant.server()


@pytest.fixture
def innocent_log(caplog):
    """Whatever a stranger shows, nothing may come up that nobody has foreseen."""
    caplog.set_level(logging.INFO)
    yield caplog
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def listener(kind, server, plant=None, **more):
    entry = {kind: "127.0.0.1:0", "certificate": str(server.certificate), "key": str(server.key)}
    return entry | ({"client_ca": str(plant.certificate)} if plant is not None else {}) | more


def port_of(one: Listener) -> int:
    return int(one.address.rpartition(":")[2])


async def admitted(kind, port, context) -> bool:
    """Whether a device that shows this gets an answer to its CONNECT."""
    device = WireDevice(kind, port, 5, context)
    try:
        async with asyncio.timeout(5):
            await device.open()
            connack = await device.hello()
    except GONE:
        return False
    device.drop()
    return connack is not None and connack.reason == 0


# What it is, and how it is issued; `revoked` is on the list, whatever else it is.
BAD = {
    "expired": {"days": (-20, -1)},
    "not yet valid": {"days": (2, 20)},
    "revoked": {},
    "self-signed": {"self_signed": True},
    "for servers only": {"server": True},
    "NUL in the name": {"cn": "press-1\0.evil"},
    "a line break in the name": {"cn": "press-1\nforged"},
    "an escape in the name": {"cn": "press\x1b[2J"},
    "a name written backwards": {"cn": "press\u202e1"},
    "two names": {"cn": ["press-1", "press-2"]},
    "no name": {"cn": None},
    "a blank name": {"cn": " "},
}
BAD_ALTERNATIVES = {
    "no alternative name": {},
    "two alternative names": {"san": ["press-1", "press-2"]},
    "an address alone": {"san": ["10.0.0.1"]},
    "bytes that are no text": {"san": [b"press\xff"]},
    "NUL in it": {"san": [b"press\0x"]},
}
PROXY_V1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 8883\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x0a\0\0\1\x0a\0\0\2\x9c\x40\x22\xb3"


def _shown(plant, stranger, what, how):
    if what == "of another authority":
        return stranger.issue()
    return None if what == "no certificate" else plant.issue(**how)


CERTIFICATES = [
    *(("cn", what, how) for what, how in BAD.items()),
    *(("san", what, how) for what, how in BAD_ALTERNATIVES.items()),
    ("cn", "of another authority", {}),
    ("cn", "no certificate", {}),
]


async def _refuses(folder, kind, plant, stranger, server, row):
    """One bad certificate is refused, a good one beside it is not, and nobody is left counted."""
    user_from, what, how = row
    shown = _shown(plant, stranger, what, how)
    name = f"{kind}-{user_from}-{what}.crl".replace(" ", "-")
    revoked = [shown] if what == "revoked" else []
    crl = plant.crl(*revoked, name=name)
    good = plant.issue(cn="press-1", san=["press-1"])
    entry = listener(kind, server, plant, crl=str(crl), user_from=user_from)
    async with running(folder, listeners=[entry]) as gateway:
        port = port_of(gateway.listeners[0])
        context = client_context(plant, shown)
        assert not await admitted(kind, port, context)
        assert not gateway.broker.subscribers
        assert await admitted(kind, port, client_context(plant, good))
        await until(lambda: not gateway.broker.crowd.inside and not gateway.broker.links)
        assert gateway.listeners[0].handshakes_failed == 1
        assert gateway.listeners[0].door.links == 0


@pytest.mark.parametrize("row", CERTIFICATES, ids=lambda row: f"{row[0]}: {row[1]}")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_certificate_is_refused(tmp_path, plant, stranger, server, innocent_log, kind, row):
    await _refuses(tmp_path, kind, plant, stranger, server, row)


def test_the_other_event_loop_refuses_the_same_certificates(tmp_path, plant, stranger, server, innocent_log):
    try:
        import uvloop
    except ImportError:
        missing("uvloop")

    async def all_of_them():
        for number, row in enumerate(CERTIFICATES):
            folder = tmp_path / str(number)
            folder.mkdir()
            await _refuses(folder, KINDS[number % 2], plant, stranger, server, row)

    uvloop.run(all_of_them())


def _alert(port, context):
    """The reason that the gateway gives for ending a handshake."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        pytest.raises(ssl.SSLError) as caught,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.recv(1)  # in TLS 1.3 the client is done before its certificate is looked at
    return caught.value.reason


ALERTS = [
    ({"days": (-20, -1)}, "CERTIFICATE_EXPIRED"),
    ({"revoked": True}, "CERTIFICATE_REVOKED"),
    ({"strange": True}, "UNKNOWN_CA"),
    (None, "CERTIFICATE_REQUIRED"),
]


async def _tells(folder, plant, stranger, server, newest):
    revoked = plant.issue()
    entry = listener("mqtts", server, plant, crl=str(plant.crl(revoked, name="alerts.crl")))
    async with running(folder, listeners=[entry]) as gateway:
        for how, reason in ALERTS:
            shown = how and (
                revoked if "revoked" in how else stranger.issue() if "strange" in how else plant.issue(**how)
            )
            context = client_context(plant, shown)
            context.maximum_version = newest
            said = await asyncio.to_thread(_alert, port_of(gateway.listeners[0]), context)
            if how is not None or newest is ssl.TLSVersion.TLSv1_3:  # 1.2 has no word for it
                assert reason in said, (how, said)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_device_is_told_what_is_wrong_with_its_certificate(
    tmp_path, plant, stranger, server, innocent_log, newest
):
    await _tells(tmp_path, plant, stranger, server, newest)


def test_the_other_event_loop_tells_it_too(tmp_path, plant, stranger, server, innocent_log):
    try:
        import uvloop
    except ImportError:
        missing("uvloop")

    uvloop.run(_tells(tmp_path, plant, stranger, server, ssl.TLSVersion.TLSv1_3))


def test_a_common_name_that_is_not_utf_8_makes_no_certificate(plant):
    """OpenSSL reads none, so no client of it can even show one; as an alternative name it is in the table."""
    with pytest.raises(ssl.SSLError):
        client_context(plant, plant.issue(cn=b"press-\xc3\x28"))


@pytest.mark.parametrize("forged", [PROXY_V1, PROXY_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("kind", ["mqtt", "mqtts", "ws", "wss"])
async def test_a_forged_proxy_header_is_refused(tmp_path, plant, server, innocent_log, kind, forged):
    tls = kind in KINDS
    entry = listener(kind, server, plant) if tls else {kind: "127.0.0.1:0"}
    async with running(tmp_path, listeners=[entry]) as gateway:
        hellos = [None]  # in the clear, before any handshake
        if tls:
            hellos.append(client_context(plant, plant.issue()))  # and inside of it
        for context in hellos:
            device = WireDevice("mqtts", port_of(gateway.listeners[0]), 4, context)
            await device.open()
            device.send_bytes(forged + encode(Connect("forger", 4), 4))
            answer = b""
            with contextlib.suppress(*GONE):
                async with asyncio.timeout(5):
                    answer = await device._reader.read()
            assert b"\x20\x02\x00\x00" not in answer
        assert not gateway.broker.subscribers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("user_from", "how", "user"),
    [
        ("cn", {"cn": "press-1"}, "press-1"),
        ("cn", {"cn": "Würzburg 7", "san": ["a", "b"]}, "Würzburg 7"),
        ("san", {"san": ["press-1.plant"]}, "press-1.plant"),
        ("san", {"san": ["10.0.0.1", "press@plant.example"], "cn": "other"}, "press@plant.example"),
        ("san", {"san": ["urn://plant/press/1"], "cn": None}, "urn://plant/press/1"),
        ("password", {"cn": None}, None),
    ],
)
async def test_a_good_certificate_names_its_user(tmp_path, plant, server, kind, user_from, how, user):
    entry = listener(kind, server, plant, user_from=user_from, anonymous=True)
    async with running(tmp_path, listeners=[entry]) as gateway:
        context = client_context(plant, plant.issue(**how))
        device = WireDevice(kind, port_of(gateway.listeners[0]), 5, context)
        await device.open()
        assert await device.hello() is not None
        [link] = gateway.broker.links
        assert link.certificate_user == user
        assert link.address == "127.0.0.1"
        await device.leave()


@pytest.mark.parametrize("kind", KINDS)
async def test_where_certificates_are_optional_none_is_let_in_and_a_bad_one_is_not(
    tmp_path, plant, stranger, server, kind
):
    entry = listener(kind, server, plant, client_certificate="optional", anonymous=True)
    async with running(tmp_path, listeners=[entry]) as gateway:
        port = port_of(gateway.listeners[0])
        assert await admitted(kind, port, client_context(plant))
        assert await admitted(kind, port, client_context(plant, plant.issue()))
        for bad in (stranger.issue(), plant.issue(days=(-9, -1)), plant.issue(cn=["a", "b"])):
            assert not await admitted(kind, port, client_context(plant, bad))


async def test_devices_that_know_only_the_root_are_sent_what_lies_between(tmp_path, plant):
    works = Authority(tmp_path / "works", "works", above=plant)
    server = works.server()
    context = client_context(plant)  # trusts the root alone
    without, within = listener("mqtts", server), listener("mqtts", server, chain=str(works.certificate))
    async with running(tmp_path, listeners=[without, within]) as gateway:
        assert [await admitted("mqtts", port_of(one), context) for one in gateway.listeners] == [False, True]
        # Whoever shows a certificate all the same is not asked for it, and gets no name by it.
        shown = client_context(plant, works.issue())
        device = WireDevice("mqtts", port_of(gateway.listeners[1]), 5, shown)
        await device.open()
        await device.hello("press")
        assert not gateway.broker.subscribers["press"].link.certificate_user
        await device.leave()


def test_a_chain_that_is_none_refuses_the_start_by_name(tmp_path, server):
    empty = tmp_path / "chain.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"chain\.pem is empty; it has to hold the cert"):
        build_context(TlsFiles(server.certificate, server.key, chain=empty))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_revocation_list_that_is_out_of_date_lets_in_nobody(tmp_path, plant, server, kind):
    crl = plant.crl(name=f"stale-{kind}.crl", days=(-9, -1))
    async with running(tmp_path, listeners=[listener(kind, server, plant, crl=str(crl))]) as gateway:
        assert not await admitted(kind, port_of(gateway.listeners[0]), client_context(plant, plant.issue()))


# ---- what is spoken ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("least", "offered", "spoken"),
    [("1.2", "1.3", "TLSv1.3"), ("1.2", "1.2", "TLSv1.2"), ("1.3", "1.2", None), ("1.2", "1.1", None)],
)
async def test_old_versions_are_refused_and_the_newest_is_taken(
    tmp_path, plant, server, kind, least, offered, spoken
):
    async with running(tmp_path, listeners=[listener(kind, server, tls_min=least)]) as gateway:
        context = client_context(plant)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[f"TLSv{offered.replace('.', '_')}"]
        device = WireDevice(kind, port_of(gateway.listeners[0]), 5, context)
        if spoken is None:
            with pytest.raises(GONE):
                await device.open()
            return
        await device.open()
        assert device._writer.transport.get_extra_info("cipher")[1] == spoken
        device.drop()


@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "NULL", "DES-CBC3-SHA"])
def test_weak_ciphers_are_not_ours(server, cipher):
    ours = {each["name"] for each in build_context(TlsFiles(server.certificate, server.key)).get_ciphers()}
    assert ours
    assert cipher not in ours
    good = re.compile("TLS_(AES|CHACHA20)|ECDHE-.*(GCM|POLY1305)")
    assert all(good.match(name) for name in ours)


# ---- files that are not what they should be ------------------------------------------------

EMPTY, GARBAGE = b"", b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydA==\n-----END CERTIFICATE-----\n"
FILES = ["certificate", "key", "client_ca", "crl"]
WRONG = [
    ("missing", None, "No such file"),
    ("empty", EMPTY, "is empty"),
    ("blank", b" \n\n", "is empty"),
    ("text", b"hello\n", "no PEM block"),
    ("garbage", GARBAGE, ""),
    ("bytes", bytes(range(256)), "no PEM block"),
]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("what", "content", "told"), WRONG, ids=[row[0] for row in WRONG])
async def test_a_file_that_is_not_what_it_should_be_refuses_the_start_by_name(
    tmp_path, plant, server, file, what, content, told
):
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.write_bytes(content)
        wrong.chmod(0o600)
    entry = listener("mqtts", server, plant, crl=str(plant.crl())) | {file: str(wrong)}
    with pytest.raises(ConfigError) as caught:
        async with running(tmp_path, listeners=[entry]):
            pass
    assert str(wrong) in str(caught.value)
    assert told in str(caught.value)


async def _start_error(folder, entry) -> str:
    with pytest.raises(ConfigError) as caught:
        async with running(folder, listeners=[entry]):
            pass
    return str(caught.value)


async def test_a_key_of_another_certificate_refuses_the_start(tmp_path, plant, server):
    other = plant.server("other")
    told = await _start_error(tmp_path, listener("mqtts", server, key=str(other.key)))
    assert f"{other.key} is not the key of {server.certificate}" in told


async def test_an_encrypted_key_refuses_the_start_and_asks_nobody(tmp_path, plant, server):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    sealed = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, sealed))
    locked.chmod(0o600)
    told = await _start_error(tmp_path, listener("mqtts", server, key=str(locked)))
    assert f"{locked} is encrypted" in told
    assert "openssl pkey" in told


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o602])
async def test_a_key_that_everyone_may_read_refuses_the_start(tmp_path, plant, mode):
    open_to_all = plant.server(f"open-{mode:o}")
    open_to_all.key.chmod(mode)
    told = await _start_error(tmp_path, listener("mqtts", open_to_all))
    assert f"chmod 600 {open_to_all.key}" in told
    open_to_all.key.chmod(0o640)  # a group that was made for it is the operator's business
    async with running(tmp_path, listeners=[listener("mqtts", open_to_all)]):
        pass


async def test_lists_and_authorities_in_each_others_files_refuse_the_start(tmp_path, plant, server):
    # In client_ca a list would be loaded and never asked; in crl a certificate would be believed.
    both = tmp_path / "both.pem"
    both.write_bytes(plant.certificate.read_bytes() + plant.crl().read_bytes())
    told = await _start_error(tmp_path, listener("mqtts", server, client_ca=str(both)))
    assert "name it in 'crl'" in told
    told = await _start_error(tmp_path, listener("mqtts", server, plant, crl=str(both)))
    assert f"{both} holds a CERTIFICATE too" in told


async def test_a_certificate_of_no_authority_as_client_ca_refuses_the_start(tmp_path, plant, server):
    told = await _start_error(tmp_path, listener("mqtts", server, client_ca=str(plant.issue().certificate)))
    assert "no certificate of an authority" in told


def test_comments_in_other_alphabets_are_only_comments(tmp_path, plant, stranger, server):
    bundle = tmp_path / "bundle.pem"
    comment = "# Autorität für Würzburg\n".encode()
    bundle.write_bytes(comment + plant.certificate.read_bytes() + comment + stranger.certificate.read_bytes())
    context = build_context(TlsFiles(server.certificate, server.key, bundle))
    assert context.cert_store_stats()["x509_ca"] == 2


@pytest.mark.parametrize("name", ["", " a", "a ", "a\tb", "a\x7fb", "a\u200bb", "a\ufdd0b", "x" * 257])
def test_a_name_that_cannot_be_seen_is_none(name):
    with pytest.raises(ValueError, match="common name"):
        user_of({"subject": ((("commonName", name),),)}, "cn")


# ---- reload --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_given_new_files_when_reloaded_then_they_are_served_and_nobody_is_dropped(
    tmp_path, plant, stranger, kind
):
    """Certificate, key, CA and CRL at once; the queue of the kernel is not lost either."""
    files = Authority(tmp_path / "files")
    server, good = files.server(), files.issue(cn="before")
    entry = listener(kind, server, files, crl=str(files.crl()))
    async with running(tmp_path, listeners=[entry]) as gateway:
        one = gateway.listeners[0]
        port = port_of(one)
        old = client_context(files, good)
        inside = [WireDevice(kind, port, 5, old) for _ in range(20)]
        for number, device in enumerate(inside):
            await device.open()
            assert await device.hello(f"inside-{number}") is not None
        halfway = socket.create_connection(("127.0.0.1", port))  # connected, and no handshake yet

        fresh = stranger.server("fresh")
        after, banned = stranger.issue(cn="after"), stranger.issue(cn="banned")
        for path, by in (
            (server.certificate, fresh.certificate),
            (server.key, fresh.key),
            (files.certificate, stranger.certificate),
            (files.folder / "plant-crl.pem", stranger.crl(banned, name=f"banned-{kind}.crl")),
        ):
            replace(path, by)
        began = time.monotonic()
        one.reload(build_place(gateway.config, gateway.config.listeners[0]))
        # A newcomer is judged by the new files alone.
        assert await asyncio.to_thread(_served_to, port, client_context(stranger, after)) == fresh.der
        assert time.monotonic() - began < 5
        assert await admitted(kind, port, client_context(stranger, after))
        assert not await admitted(kind, port, client_context(stranger, banned))
        trusting = client_context(stranger, good)
        assert not await admitted(kind, port, trusting)
        # And those inside go on as if nothing had been.
        for number, device in enumerate(inside):
            assert (await device.published("a/b", packet_id=number + 1)).reason == 0
            await device.quiet()
        assert len(gateway.broker.links) >= 20
        halfway.close()
        for device in inside:
            device.drop()


def _served_to(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert(binary_form=True)


@pytest.mark.parametrize("kind", KINDS)
async def test_given_reloads_under_connects_when_all_is_done_then_nobody_was_refused(
    tmp_path, plant, server, kind
):
    """Devices that come just then find an open door: 0 of some hundred connects fail."""
    async with running(tmp_path, listeners=[listener(kind, server)]) as gateway:
        one = gateway.listeners[0]
        context = client_context(plant)
        came = 0

        async def come():
            nonlocal came
            for _ in range(10):
                assert await admitted(kind, port_of(one), context)
                came += 1

        async def reload():
            while came < 80:
                one.reload(build_place(gateway.config, gateway.config.listeners[0]))
                await asyncio.sleep(0)

        await asyncio.gather(reload(), *(come() for _ in range(8)))
        assert came == 80
        assert one.handshakes_failed == 0


@pytest.mark.parametrize("file", ["certificate", "key", "client_ca", "crl"])
async def test_given_a_bad_file_when_reloaded_then_it_is_told_and_the_old_one_stays(tmp_path, file):
    files = Authority(tmp_path / "files")
    server, good, banned = files.server(), files.issue(), files.issue(cn="banned")
    crl = files.crl(banned)
    async with running(tmp_path, listeners=[listener("mqtts", server, files, crl=str(crl))]) as gateway:
        one = gateway.listeners[0]
        spoilt = {
            "certificate": server.certificate,
            "key": server.key,
            "client_ca": files.certificate,
            "crl": crl,
        }[file]
        believed = client_context(files, good), client_context(files, banned), client_context(files)
        spoilt.write_bytes(b"")
        with pytest.raises(ConfigError, match=str(spoilt)):
            one.reload(build_place(gateway.config, gateway.config.listeners[0]))
        told = [await admitted("mqtts", port_of(one), context) for context in believed]
        assert told == [True, False, False]


# ---- those who never finish ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_half_a_handshake_is_given_five_seconds_and_then_its_place_is_free(
    tmp_path, plant, server, innocent_log, kind
):
    async with running(tmp_path, listeners=[listener(kind, server)]) as gateway:
        port = port_of(gateway.listeners[0])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for number, (_, writer) in enumerate(silent):
            writer.write(bytes.fromhex("1603010200")[: number % 6])  # some begin a record, some say nothing
        began = time.monotonic()
        await until(lambda: gateway.broker.crowd.inside == 20)
        assert await admitted(kind, port, client_context(plant))
        ends = [reader.read() for reader, _ in silent]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(asyncio.gather(*ends, return_exceptions=True), 8)
        assert 4 < time.monotonic() - began < 8
        await until(lambda: not gateway.broker.crowd.inside)
        assert gateway.listeners[0].door.links == 0
        for _, writer in silent:
            writer.close()


async def test_given_more_half_handshakes_than_places_when_a_good_device_comes_then_it_gets_one(
    tmp_path, plant, server, innocent_log
):
    async with running(tmp_path, listeners=[listener("mqtts", server)]) as gateway:
        one = gateway.listeners[0]
        sockets = [socket.create_connection(("127.0.0.1", port_of(one))) for _ in range(HANDSHAKES_MAX + 100)]
        try:
            await until(lambda: len(one._entering) == HANDSHAKES_MAX)
            began = time.monotonic()
            assert await admitted("mqtts", port_of(one), client_context(plant))
            assert time.monotonic() - began < 4.5  # patience, not the deadline of those before it
            assert len(one._entering) <= HANDSHAKES_MAX
        finally:
            for sock in sockets:
                sock.close()
        await until(lambda: not gateway.broker.crowd.inside)


async def test_given_garbage_for_a_handshake_when_it_comes_a_thousand_times_then_few_lines_are_written(
    tmp_path, plant, server, innocent_log
):
    async with running(tmp_path, listeners=[listener("mqtts", server)]) as gateway:
        port = port_of(gateway.listeners[0])

        def strangers():
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n" * 4)
                    sock.recv(1)

        thread = threading.Thread(target=strangers)
        began = time.monotonic()
        thread.start()
        await until(lambda: gateway.listeners[0].handshakes_failed == 300, 20)
        thread.join()
        seconds = time.monotonic() - began
        lines = [record for record in innocent_log.records if "no connection came" in record.message]
        assert 0 < len(lines) <= 10 * (seconds + 2)
        await until(lambda: not gateway.broker.crowd.inside)
