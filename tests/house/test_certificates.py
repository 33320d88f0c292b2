"""New certificates for a gateway that runs, as its operator does it: the files, and SIGHUP."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.house.test_many import devices
from tests.pki import Authority, replace
from tests.servers import free_port

INSIDE = 100


def _served(port: int) -> bytes:
    """The certificate that a newcomer is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 5) as sock, context.wrap_socket(sock) as tls:
        shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        return shown


@pytest.mark.parametrize("kind", ["mqtts", "wss"])
def test_given_a_renewed_certificate_when_reloaded_then_it_is_served_and_all_who_are_inside_stay(
    tmp_path: Path, kind: str
) -> None:
    plant, port = Authority(tmp_path / "plant"), free_port()
    server, fresh = plant.server(), plant.server("fresh")
    entry = {kind: f"127.0.0.1:{port}", "certificate": str(server.certificate), "key": str(server.key)}
    gateway = Gateway(tmp_path / "gateway", listeners=[entry])
    gateway.start()
    try:
        with devices(kind, port, INSIDE, str(plant.certificate)) as crowd:
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            assert _served(port) == server.der
            replace(server.certificate, fresh.certificate)
            replace(server.key, fresh.key)
            began = time.monotonic()
            os.kill(gateway.pid, signal.SIGHUP)
            while _served(port) != fresh.der:
                assert time.monotonic() - began < 5, "the new certificate is not served"
                time.sleep(0.01)
            print(f"{kind}: served after {time.monotonic() - began:.3f} s")
            # A file that cannot be used changes nothing, and is named.
            server.key.write_text("")
            os.kill(gateway.pid, signal.SIGHUP)
            while f"not reloaded reason={server.key}" not in gateway.output().replace('"', "").replace(
                "event=", ""
            ):
                assert time.monotonic() - began < 10, gateway.output()
                time.sleep(0.01)
            assert _served(port) == fresh.der
            crowd.stdin.write(f"publish {INSIDE} 1\n")
            crowd.stdin.flush()
            assert int(crowd.stdout.readline()) == INSIDE
            assert gateway.status()["mqtt"]["connections"] >= INSIDE
    finally:
        gateway.kill()
    assert "Traceback" not in gateway.output()
