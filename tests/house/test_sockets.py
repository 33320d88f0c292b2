"""Which sockets a gateway opens: for every configuration that we ship, exactly the ones it says.

Row A1 of the list of faults. Each runs unchanged, in a network of its own, so that its
addresses are what is looked at and not what a test has put in their place.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.house.terminal import Network
from tests.pki import write_sample
from tests.servers import missing

ROOT = Path(__file__).parents[2]
HERE = ["127.0.0.1:1883", "127.0.0.1:8080"]  # devices and status, both for this machine only
ANYONE = ["0.0.0.0:1883", "0.0.0.0:8080"]  # inside a container, whose ports are published by whoever runs it

# Configuration (None: none at all) → every socket that can be reached.
SOCKETS: dict[str | None, list[str]] = {
    None: [*HERE, "127.0.0.1:5556"],
    "config/commands.yaml": HERE,
    "config/conditions.yaml": [*HERE, "127.0.0.1:5556"],
    "config/packed.yaml": HERE,
    "config/quickstart.yaml": [*HERE, "127.0.0.1:5556"],
    "config/rabbitmq-cluster.yaml": HERE,
    "config/rabbitmq.yaml": HERE,
    "config/tls.yaml": [*HERE, "127.0.0.1:5556", "0.0.0.0:8883", "0.0.0.0:9443"],
    "config/users-and-rules.yaml": [*HERE, "127.0.0.1:5556"],
    "config/zeromq-fan-in.yaml": HERE,
    "deploy/edgespool.yaml": [*HERE, "127.0.0.1:5556"],
    "deploy/compose-config.yaml": ANYONE,
    "deploy/image.yaml": [*ANYONE, "0.0.0.0:5556"],
}
NOT_OURS = {"deploy/compose.yaml"}  # a file of docker's
_LISTEN = "0A"


@pytest.fixture(scope="module")
def network() -> Network:
    network = Network()
    if not network.prefix:
        network.close()
        missing("a network of one's own (unshare --net)")
    yield network
    network.close()


def _reachable(pid: int) -> list[str]:
    """Every TCP and UDP socket in the network of a process that somebody could send to."""
    found = []
    for kind in ("tcp", "udp", "tcp6", "udp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if kind.startswith("tcp") and state != _LISTEN:
                continue
            address, port = local.split(":")
            assert len(address) == 8, f"IPv6 was not asked for: {line}"
            found.append(f"{socket.inet_ntoa(bytes.fromhex(address)[::-1])}:{int(port, 16)}")
    return sorted(found)


def _unix_sockets(pid: int) -> set[str]:
    """The Unix sockets with a name that a process has open."""
    own = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return {row[7] for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in own}


def test_every_configuration_that_is_shipped_is_in_the_list() -> None:
    shipped = {
        str(path.relative_to(ROOT)) for name in ("config", "deploy") for path in (ROOT / name).glob("*.yaml")
    }
    assert shipped == {name for name in SOCKETS if name is not None} | NOT_OURS


@pytest.mark.parametrize("file", SOCKETS)
def test_a_gateway_opens_the_sockets_of_its_configuration_and_no_other(
    tmp_path: Path, network: Network, file: str | None
) -> None:
    arguments = []
    if file is not None:
        arguments = [str(tmp_path / "edgespool.yaml")]
        shutil.copy(ROOT / file, arguments[0])
    (tmp_path / "passwords").touch(0o600)
    devices, device, _ = write_sample(tmp_path / "certs")
    for name, made in (
        ("cloud.pem", devices.certificate),
        ("gateway.pem", device.certificate),
        ("gateway.key", device.key),
    ):
        shutil.copy(made, tmp_path / "certs" / name)
    environ = {**os.environ, "AMQP_URL": "amqp://127.0.0.1:5672/", "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bridge.cli", "run", *arguments, "--state", str(tmp_path / "state")]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*network.prefix, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ
        )
    try:
        deadline = time.monotonic() + 30
        while "edgespool is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        assert _reachable(process.pid) == sorted(SOCKETS[file])
        assert _unix_sockets(process.pid) == set()
    finally:
        process.terminate()
        assert process.wait(10) == 0, log.read_text()


# `guest` is RabbitMQ's own, who lets it in from its own machine only.
KNOWN = {"amqp://guest:guest@127.0.0.1:5672/"}
_CREDENTIALS = re.compile(r"\w+://[^\s/:@${}]*:[^\s/@${}]+@[^\s\"'}]*")
_PASSWORD = re.compile(r"(?i)\b\w*(?:passw(?:or)?d|_pass|secret|token)\b\"?\s*[:=]\s*[\"']?([^\s\"',}#]+)")


def test_no_default_password_stands_anywhere() -> None:
    found = []
    for path in [*(ROOT / "config").rglob("*"), *(ROOT / "deploy").rglob("*"), ROOT / "Makefile"]:
        if not path.is_file() or path.suffix in (".json", ".md", ".pyc"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            found += [where for url in _CREDENTIALS.findall(line) if url not in KNOWN]
            found += [where for value in _PASSWORD.findall(line) if value[0] not in "$?"]
    assert found == []
