"""`edgespool run` and `edgespool validate`, as processes."""

import socket
import time

import psutil
import pytest

from bridge import __version__
from tests.cli.gateway import Gateway, edgespool

RSS_MAX = 64 * 1024**2


def test_the_version():
    assert edgespool("--version").stdout == f"edgespool {__version__}\n"


@pytest.mark.parametrize("command", ["run", "tail", "validate", "status", "passwd"])
def test_help_is_plain_text(command):
    told = edgespool(command, "--help")
    assert told.returncode == 0
    assert told.stdout.startswith(f"Usage: edgespool {command}")
    assert told.stdout.isascii()


def test_given_flags_when_run_then_each_overrides_its_part_and_the_banner_says_so(gateway, tmp_path):
    banner = "\n".join(gateway.banner)
    assert f"mqtt://127.0.0.1:{gateway.mqtt}" in banner
    assert f"{tmp_path}/state" in banner
    assert f"default: # -> local (zeromq bind {gateway.endpoint})" in banner
    assert f"http://127.0.0.1:{gateway.web}" in banner
    status = gateway.status()
    assert status["mqtt"]["listeners"] == [f"mqtt://127.0.0.1:{gateway.mqtt}"]
    assert status["store"]["path"] == f"{tmp_path}/state"
    assert psutil.Process(gateway.process.pid).memory_info().rss <= RSS_MAX


def test_given_sigterm_when_running_then_gone_within_five_seconds_and_nothing_is_lost(gateway):
    gateway.publish(["1", "2", "3"])
    code, rest = gateway.stop()
    assert code == 0
    assert "Traceback" not in rest
    gateway.banner.clear()
    gateway.start()
    deadline = time.monotonic() + 5
    while gateway.status()["routes"]["default"]["backlog_messages"] != 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("flag", ["mqtt", "web"])
def test_given_a_port_in_use_when_run_then_one_line_with_port_and_flag(tmp_path, flag):
    gateway = Gateway(tmp_path)
    with socket.create_server(("127.0.0.1", getattr(gateway, flag))):
        told = edgespool("run", *gateway.flags)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert f"port {getattr(gateway, flag)} on 127.0.0.1" in told.stderr
    assert f"--{flag} " in told.stderr


BROKEN = """\
version: 1
listeners: [{mqtt: 0.0.0.0:1883}]
sinks: {local: {zeromq: {bind: tcp://127.0.0.1:5556}}}
routes: {all: {form: "#", to: locla}}
"""


@pytest.mark.parametrize("command", ["run", "validate"])
def test_given_three_mistakes_when_read_then_all_are_told_and_78(tmp_path, command):
    path = tmp_path / "plant.yaml"
    path.write_text(BROKEN)
    told = edgespool(command, str(path))
    assert (told.returncode, told.stdout) == (78, "")
    assert f"{path}:2:" in told.stderr
    assert "'form'" in told.stderr
    assert "'locla'" in told.stderr
    assert "Traceback" not in told.stderr


WRONG_FLAGS = [
    (("--mqtt", "nonsense"), "HOST:PORT"),
    (("--mqtt", "0.0.0.0:1883"), "anonymous"),
    (("--web", "8080"), "HOST:PORT"),
    (("--zeromq", "127.0.0.1:5556"), "tcp://"),
]


@pytest.mark.parametrize(("flags", "hint"), WRONG_FLAGS)
def test_given_a_wrong_flag_when_run_then_it_says_what_to_write(flags, hint):
    told = edgespool("run", *flags)
    assert told.returncode == 78
    assert hint in told.stderr
    assert "Traceback" not in told.stderr


def test_given_no_zeromq_sink_when_its_flag_is_given_then_refused(tmp_path):
    path = tmp_path / "plant.yaml"
    path.write_text("version: 1\nsinks: {far: {memory: {}}}\nroutes: {all: {from: '#', to: far}}\n")
    told = edgespool("run", str(path), "--zeromq", "tcp://127.0.0.1:5556")
    assert told.returncode == 78
    assert "--zeromq has nothing to change" in told.stderr


def test_given_a_good_file_when_validated_then_ok_and_no_secret(tmp_path):
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        "sinks: {cloud: {amqp: {url: 'amqp://user:geheim@mq.example/'}}}\n"
        "routes: {all: {from: '#', to: cloud}}\n"
    )
    told = edgespool("validate", str(path))
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"ok: {path}\n")
    assert "geheim" not in told.stdout
    missing = edgespool("validate", str(tmp_path / "none.yaml"))
    assert missing.returncode == 78
    assert "none.yaml" in missing.stderr
