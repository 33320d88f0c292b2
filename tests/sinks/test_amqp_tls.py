"""Who we are to a RabbitMQ that speaks TLS: by a password, by a certificate, by a renewed one."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from bridge.errors import ConfigError, SinkUnavailable
from bridge.sinks.amqp import AmqpSink
from bridge.sinks.amqp_tls import client_context, explain_tls
from bridge.sinks.kit import outgoing
from bridge.sinks.options import AmqpOptions, TlsOptions
from tests.pki import Authority, Pair, replace
from tests.servers import RabbitMQ, TcpProxy, free_port
from tests.sinks.queues import take_all
from tests.sinks.secure import Secure

QUEUE = "secure"


@pytest.fixture
async def sink_to(secure: Secure) -> AsyncIterator[Any]:
    made: list[AmqpSink] = []

    def make(url: str = "", **options: Any) -> AmqpSink:
        wanted = {
            "url": url or f"amqps://localhost:{secure.port}",
            "declare": [{"queue": {"name": QUEUE}}],
            "open_timeout": "5s",
            "tls": {"ca": str(secure.authority.certificate)},
        } | options
        made.append(AmqpSink("cloud", AmqpOptions.model_validate(wanted), "plant-7"))
        return made[-1]

    yield make
    for sink in made:
        await sink.close()


def shows(secure: Secure, pair: Pair) -> dict[str, str]:
    return {
        "ca": str(secure.authority.certificate),
        "certificate": str(pair.certificate),
        "key": str(pair.key),
    }


async def delivers(secure: Secure, sink: AmqpSink) -> None:
    await sink.open()
    assert await sink.send_batch([outgoing(QUEUE, "t", 1)]) == []
    assert [properties.message_id for properties, _ in take_all(secure.server.url, QUEUE)] == ["kit/t/1"]


async def test_a_name_and_a_password_travel_within_tls(secure: Secure, sink_to: Any) -> None:
    await delivers(secure, sink_to())
    with pytest.raises(SinkUnavailable, match="refuses the user name or the password") as raised:
        await sink_to(f"amqps://guest:wrong-word@localhost:{secure.port}").open()
    assert "wrong-word" not in str(raised.value)


async def test_many_messages_and_a_large_one_travel_within_tls(secure: Secure, sink_to: Any) -> None:
    # Another way to the socket than without: pika encrypts, and takes what it is given piece by piece.
    sink = sink_to()
    await sink.open()
    large = outgoing(QUEUE, "large", 0, bytes(range(256)) * (1 << 14))
    batch = [*(outgoing(QUEUE, "many", n) for n in range(3_000)), large]
    assert await sink.send_batch(batch) == []
    taken = take_all(secure.server.url, QUEUE)
    assert [properties.message_id for properties, _ in taken] == [message.id for message in batch]
    assert taken[-1][1] == large.message.payload


async def test_a_port_that_wants_tls_is_said(secure: Secure, sink_to: Any) -> None:
    with pytest.raises(SinkUnavailable, match=r"does the port want amqps://\?"):
        await sink_to(f"amqp://localhost:{secure.port}", tls=None).open()


async def test_a_certificate_says_who_we_are_without_a_password(secure: Secure, sink_to: Any) -> None:
    guest, nobody = secure.authority.issue(cn="guest"), secure.authority.issue(cn="nobody")
    await delivers(secure, sink_to(sasl="external", tls=shows(secure, guest)))
    with pytest.raises(SinkUnavailable, match="refuses the user name or the password"):
        await sink_to(sasl="external", tls=shows(secure, nobody)).open()


async def test_certificates_that_the_broker_does_not_believe_are_told_apart(
    secure: Secure, sink_to: Any, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").issue(cn="guest")
    expired = secure.authority.issue(cn="guest", days=(-3, -1))
    for pair, said in ((stranger, "does not believe the authority"), (expired, "it has expired")):
        with pytest.raises(SinkUnavailable, match=f"does not accept our certificate: .*{said}"):
            await sink_to(sasl="external", tls=shows(secure, pair)).open()


async def test_given_a_certificate_that_is_renewed_then_the_next_connection_shows_the_new_one(
    secure: Secure, sink_to: Any, tmp_path: Path
) -> None:
    shown = Authority(tmp_path, "stranger").issue("shown", cn="guest")
    renewed = secure.authority.issue(cn="guest")
    sink = sink_to(sasl="external", tls=shows(secure, shown))
    with pytest.raises(SinkUnavailable, match="does not accept our certificate"):
        await sink.open()
    replace(shown.certificate, renewed.certificate)
    # Between the two files nothing fits: it is said, and no reason to give up.
    with pytest.raises(ConfigError, match=f"{shown.key} is not the key of {shown.certificate}"):
        await sink.open()
    replace(shown.key, renewed.key)
    await delivers(secure, sink)


async def test_given_an_authority_that_is_exchanged_then_the_next_connection_believes_the_new_one(
    secure: Secure, sink_to: Any, tmp_path: Path
) -> None:
    believed = Authority(tmp_path, "believed").certificate
    sink = sink_to(tls={"ca": str(believed)})
    with pytest.raises(SinkUnavailable, match="an authority that we do not believe"):
        await sink.open()
    replace(believed, secure.authority.certificate)
    await delivers(secure, sink)


async def test_without_an_authority_of_our_own_the_systems_are_asked(secure: Secure, sink_to: Any) -> None:
    with pytest.raises(SinkUnavailable, match="an authority that we do not believe"):
        await sink_to(tls=None).open()


async def test_a_server_name_stands_in_for_the_host_and_is_checked_as_strictly(
    secure: Secure, sink_to: Any
) -> None:
    ca = str(secure.authority.certificate)
    address = f"amqps://127.0.0.1:{secure.port}"
    await delivers(secure, sink_to(address, tls={"ca": ca, "server_name": "localhost"}))
    with pytest.raises(SinkUnavailable, match=r"not valid for 'mq\.example'"):
        await sink_to(address, tls={"ca": ca, "server_name": "mq.example"}).open()


async def test_a_broker_that_takes_no_certificates_for_names_is_said(
    secure: Secure, sink_to: Any, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = secure.authority.server("front")
    context.load_cert_chain(pair.certificate, pair.key)
    proxy = TcpProxy(rabbitmq.port, context=context)
    await proxy.start()
    try:
        tls = shows(secure, secure.authority.issue(cn="guest"))
        with pytest.raises(SinkUnavailable, match="does not offer SASL EXTERNAL"):
            await sink_to(f"amqps://localhost:{proxy.port}", sasl="external", tls=tls).open()
    finally:
        await proxy.stop()


@pytest.mark.parametrize("how", ["closed", "opened"])
async def test_a_key_that_is_encrypted_or_open_to_all_is_refused_before_anybody_is_called(
    secure: Secure, sink_to: Any, tmp_path: Path, how: str
) -> None:
    pair = Authority(tmp_path, "a").issue("ours", cn="guest")
    if how == "opened":
        pair.key.chmod(0o644)
        said = f"chmod 600 {pair.key}"
    else:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        sealed = serialization.BestAvailableEncryption(b"secret-word")
        form = serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, sealed))
        said = f"{pair.key} is encrypted"
    with pytest.raises(ConfigError, match=rf"sinks\.cloud\.amqp\.tls: .*{said}"):
        await sink_to(f"amqps://localhost:{free_port()}", sasl="external", tls=shows(secure, pair)).open()


def test_a_broker_with_old_tls_is_told_apart_by_its_alert(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "cloud")
    pair = authority.server()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(pair.certificate, pair.key)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client_context(TlsOptions(ca=authority.certificate)).wrap_bio(
        down, up, server_hostname="localhost"
    )
    theirs = old.wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    with pytest.raises(ssl.SSLError):
        theirs.do_handshake()
    with pytest.raises(ssl.SSLError) as raised:
        ours.do_handshake()
    assert explain_tls(raised.value) == "the broker's TLS is older than we allow"
