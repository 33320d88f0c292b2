"""`edgespool keygen`, and `edgespool tail` with what it made."""

import json
import stat

import pytest

from bridge.errors import ConfigError
from tests.cli.gateway import edgespool
from tests.gateway import Gateway
from tests.servers import free_port


def test_keys_are_made_once_and_the_public_one_is_printed(tmp_path):
    path = tmp_path / "hall.key"
    told = edgespool("keygen", str(path))
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == [(tmp_path / "hall.key.pub").read_text().split()[0]]
    assert path.read_text().strip() not in told.stdout + told.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = edgespool("keygen", str(path))
    assert (again.returncode, again.stdout) == (1, "")
    assert "is there already" in again.stderr
    assert path.read_bytes() == before
    assert edgespool("keygen", str(tmp_path / "no" / "such" / "folder")).returncode == 1


@pytest.fixture
def keys(tmp_path):
    for name in ("gateway", "tail", "stranger"):
        assert edgespool("keygen", str(tmp_path / name)).returncode == 0
    return tmp_path


@pytest.fixture
def gateway(keys):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    curve = {"secret_key": str(keys / "gateway"), "clients": str(keys / "tail.pub")}
    gateway = Gateway(
        keys / "house",
        sinks={"local": {"zeromq": {"bind": endpoint, "curve": curve}}},
        routes={"all": {"from": "#", "to": "local"}},
    )
    gateway.endpoint = endpoint
    gateway.start()
    yield gateway
    gateway.kill()


def tail(gateway, keys, who, server="gateway"):
    return edgespool(
        "tail", "--endpoint", gateway.endpoint, "--count", "1", "--json",
        "--secret-key", str(keys / who), "--server-key", str(keys / f"{server}.pub"),
    )  # fmt: skip


def test_with_the_right_key_tail_gets_all_and_no_secret_is_ever_shown(gateway, keys):
    from paho.mqtt.publish import single

    single("plant/a", "21.5", 1, hostname="127.0.0.1", port=gateway.port)
    stranger = tail(gateway, keys, "stranger")
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "our public key is not among the clients there" in stranger.stderr
    none = edgespool("tail", "--endpoint", gateway.endpoint, "--count", "1")
    assert (none.returncode, none.stdout) == (1, "")
    assert "one end uses keys (curve) and the other does not" in none.stderr
    told = tail(gateway, keys, "tail")
    assert json.loads(told.stdout)["payload"] == "21.5"
    validated = edgespool("validate", str(gateway._config))
    status = json.dumps(gateway.status())
    assert f"zeromq bind {gateway.endpoint} with curve" in status
    assert gateway.stop() == 0
    shown = gateway.output() + validated.stdout + validated.stderr + status + told.stderr + stranger.stderr
    for name in ("gateway", "tail", "stranger"):
        assert (keys / name).read_text().strip() not in shown


def test_a_key_file_that_everyone_can_read_is_refused(gateway, keys):
    (keys / "tail").chmod(0o644)
    told = tail(gateway, keys, "tail")
    assert told.returncode == ConfigError.EXIT_CODE
    assert f"chmod 600 {keys / 'tail'}" in told.stderr
    gateway.stop()
    (keys / "gateway").chmod(0o604)
    gateway.launch()
    assert gateway.wait(20) == 1
    assert f"sinks.local.zeromq.curve.secret_key: {keys / 'gateway'} can be read by" in gateway.output()
    told = edgespool("validate", str(gateway._config))
    assert told.returncode == ConfigError.EXIT_CODE
    assert f"sinks.local.zeromq.curve.secret_key: {keys / 'gateway'} can be read by" in told.stderr
    (keys / "gateway").chmod(0o600)
    (keys / "tail.pub").write_text("no key")
    assert "sinks.local.zeromq.curve.clients: " in edgespool("validate", str(gateway._config)).stderr


def test_one_key_alone_is_a_slip():
    told = edgespool("tail", "--secret-key", "x")
    assert told.returncode == 2
    assert "come together" in told.stderr
