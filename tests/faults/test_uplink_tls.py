"""Clouds that are not the one we know get no byte, are told apart, and are found when put right (F10)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gateway import Gateway
from tests.house.device import Device
from tests.pki import Authority, Pair
from tests.servers import RabbitMQ, TcpProxy
from tests.sinks.queues import take_all

SAN = ["localhost", "127.0.0.1"]
Shows = Callable[[Authority, Authority], Pair]

# case → what the far end shows, the host in our url, what the status says
CERTIFICATES: dict[str, tuple[Shows, str, str]] = {
    "another-name": (
        lambda cloud, _: cloud.issue(cn="localhost", san=["mq.example"], server=True),
        "localhost",
        "is for another name: Hostname mismatch, certificate is not valid for 'localhost'",
    ),
    "another-address": (
        lambda cloud, _: cloud.issue(cn="127.0.0.1", san=["127.0.0.2", "localhost"], server=True),
        "127.0.0.1",
        "is for another name: IP address mismatch, certificate is not valid for '127.0.0.1'",
    ),
    "only-a-common-name": (
        lambda cloud, _: cloud.issue(cn="localhost", server=True),
        "localhost",
        "is for another name",
    ),
    "expired": (
        lambda cloud, _: cloud.issue(san=list(SAN), server=True, days=(-3, -1)),
        "localhost",
        "the broker's certificate has expired",
    ),
    "not-yet-valid": (
        lambda cloud, _: cloud.issue(san=list(SAN), server=True, days=(1, 3)),
        "localhost",
        "the broker's certificate is not valid yet",
    ),
    "self-signed": (
        lambda cloud, _: cloud.issue(cn="localhost", san=list(SAN), server=True, self_signed=True),
        "localhost",
        "the broker's certificate is self-signed, and not one that we believe",
    ),
    "another-authority": (
        lambda _, other: other.issue(san=list(SAN), server=True),
        "localhost",
        "the broker's certificate comes from an authority that we do not believe",
    ),
    "revoked": (
        lambda cloud, _: cloud.issue(san=list(SAN), server=True),
        "localhost",
        "the broker's certificate is revoked",
    ),
    "one-for-clients": (
        lambda cloud, _: cloud.issue(san=list(SAN)),
        "localhost",
        "the broker's certificate is not one for servers",
    ),
}


def _serving(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def _only_tls_1_1(pair: Pair) -> ssl.SSLContext:
    context = _serving(pair)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _version_spoken_with_whoever_takes_anything(port: int) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


async def test_given_a_far_end_that_proves_nothing_then_it_gets_nothing_until_it_is_put_right(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    # Their files lie beside the configuration and are named as they are seen from there.
    folder = tmp_path / "gateway"
    cloud, other = Authority(folder / "certs", "cloud"), Authority(folder / "certs", "other")
    good = _serving(cloud.issue("good", san=list(SAN), server=True))
    shown = {case: shows(cloud, other) for case, (shows, _, _) in CERTIFICATES.items()}
    cloud.crl(shown["revoked"])
    contexts: dict[str, ssl.SSLContext | None] = {case: _serving(pair) for case, pair in shown.items()}
    hosts = {case: host for case, (_, host, _) in CERTIFICATES.items()}
    said = {case: text for case, (_, _, text) in CERTIFICATES.items()}
    contexts["tls-1-1"] = _only_tls_1_1(cloud.issue("old", san=list(SAN), server=True))
    said["tls-1-1"] = "the broker's TLS is older than we allow"
    contexts["plain-text"] = None
    said["plain-text"] = "the broker does not speak TLS on this port"
    proxies = {case: TcpProxy(rabbitmq.port, context=context) for case, context in contexts.items()}
    gateway = Gateway(
        folder,
        sinks={
            case: {
                "amqp": {
                    "url": f"amqps://guest:guest@{hosts.get(case, 'localhost')}:{proxy.port}",
                    "tls": {"ca": "certs/cloud-ca.pem"}
                    | ({"crl": "certs/cloud-crl.pem"} if case == "revoked" else {}),
                    "open_timeout": "3s",
                    "declare": [{"queue": {"name": f"tls-{case}"}}],
                }
            }
            for case, proxy in proxies.items()
        },
        routes={case: {"from": f"{case}/#", "to": case, "address": f"tls-{case}"} for case in proxies},
    )

    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(gateway.status)  # the far ends live on this loop

    try:
        for proxy in proxies.values():
            await proxy.start()
        found = await asyncio.to_thread(_version_spoken_with_whoever_takes_anything, proxies["tls-1-1"].port)
        assert found == "TLSv1.1", "it would prove nothing"
        proxies["tls-1-1"].connections = 0
        await asyncio.to_thread(gateway.start)
        for case in proxies:
            await asyncio.wait_for(Device(case, gateway.port, 1, 10, topic=f"{case}/t").run(), 10)
        async with asyncio.timeout(20):
            while "not opened yet" in str(told := await status()):
                await asyncio.sleep(0.05)
        for case, text in said.items():
            assert told["sinks"][case]["state"] == "down", case
            assert text in told["sinks"][case]["reason"], case
            assert told["routes"][case]["backlog_messages"] == 1, case
            assert told["routes"][case]["delivered"] == 0, case
        assert "guest:guest" not in str(told) + gateway.output()
        # Behind a handshake that failed nothing was said; and without one nothing but its first message,
        # a TLS record of type handshake: neither AMQP nor a password goes out in the clear.
        plain = proxies["plain-text"]
        assert all(proxy.connections == 0 for proxy in proxies.values() if proxy is not plain)
        assert plain.heard.startswith(b"\x16\x03")
        assert b"AMQP" not in plain.heard
        for proxy in proxies.values():
            await proxy.stop()
            proxy.context = good
            await proxy.start()
        async with asyncio.timeout(60):
            while any(route["backlog_messages"] for route in (await status())["routes"].values()):
                await asyncio.sleep(0.1)
        assert await asyncio.to_thread(gateway.stop) == 0
    finally:
        await asyncio.to_thread(gateway.kill)
        for proxy in proxies.values():
            await proxy.stop()
    for case in said:
        [(_, body)] = await asyncio.to_thread(take_all, rabbitmq.url, f"tls-{case}")
        assert body == f"{case}:0".encode()
    print(f"{len(said)} of {len(said)} refused")
