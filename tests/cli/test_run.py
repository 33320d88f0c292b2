"""`edgespool run` and `edgespool validate`, as processes."""

import socket
import subprocess
import sys
import time

import psutil
import pytest

from bridge import __version__
from tests.cli.gateway import COMMAND, Gateway, edgespool
from tests.servers import free_port

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


def test_given_listeners_of_several_kinds_when_run_then_the_banner_and_the_status_name_each(tmp_path):
    ws, web = free_port(), free_port()
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        f"listeners: [{{mqtt: 127.0.0.1:1}}, {{ws: 127.0.0.1:{ws}}}, {{unix: {tmp_path}/mqtt.sock}}]\n"
        f"store: {{path: {tmp_path}/state}}\n"
        "sinks: {far: {memory: {}}}\n"
        "routes: {all: {from: '#', to: far}}\n"
        f"web: {{listen: 127.0.0.1:{web}}}\n"
    )
    gateway = Gateway(tmp_path)
    # The flag moves the first one, and leaves the others where they are.
    gateway.flags, gateway.web = (str(path), "--mqtt", f"127.0.0.1:{gateway.mqtt}"), web
    gateway.start()
    try:
        told = "\n".join(gateway.banner)
        urls = [f"mqtt://127.0.0.1:{gateway.mqtt}", f"ws://127.0.0.1:{ws}", f"unix://{tmp_path}/mqtt.sock"]
        assert "".join(f"  devices  {url}\n" for url in urls) in told
        assert gateway.status()["mqtt"]["listeners"] == urls
        said = edgespool("status", "--web", f"127.0.0.1:{web}").stdout
        assert urls[0] in said
        assert "unix://" in said
        assert gateway.stop()[0] == 0
        assert not (tmp_path / "mqtt.sock").exists()
    finally:
        gateway.kill()


def test_a_source_of_commands_that_may_lose_some_is_called_so_when_validated(tmp_path):
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        "commands:\n"
        "  lamps: {from: {zeromq: {connect: 'tcp://h:1', socket: sub, confirm: none}}, to: a}\n"
        "  doors: {from: {zeromq: {connect: 'tcp://h:2'}}, to: a}\n"
    )
    told = edgespool("validate", str(path))
    assert told.returncode == 0
    assert "zeromq sub connect tcp://h:1 (may lose commands; high-water mark 1,000) -> a" in told.stdout
    assert "  warning   commands.lamps: may lose commands" in told.stdout
    assert told.stdout.count("may lose commands") == 2


def test_given_a_certificate_that_is_missing_when_validated_then_it_is_told_before_the_start(tmp_path):
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        "listeners: [{mqtts: 127.0.0.1:0, certificate: server.pem, key: server.key}]\n"
        "sinks: {far: {memory: {}}}\n"
        "routes: {all: {from: '#', to: far}}\n"
    )
    told = edgespool("validate", str(path))
    assert (told.returncode, told.stdout) == (78, "")
    assert f"mqtts://127.0.0.1:0: {tmp_path}/server.pem cannot be read" in told.stderr


def test_given_a_file_of_a_sink_that_is_missing_when_validated_then_it_is_sought_beside_the_configuration(
    tmp_path,
):
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        "sinks: {far: {amqp: {url: 'amqps://h', tls: {ca: cloud.pem}}}}\n"
        "routes: {all: {from: '#', to: far}}\n"
    )
    told = edgespool("validate", str(path))
    assert (told.returncode, told.stdout) == (78, "")
    assert f"sinks.far.amqp.tls: {tmp_path}/cloud.pem cannot be read" in told.stderr


def test_given_no_websockets_when_a_listener_needs_it_then_the_install_line_is_told(tmp_path):
    path = tmp_path / "plant.yaml"
    path.write_text(
        "version: 1\n"
        "listeners: [{ws: 127.0.0.1:0}]\n"
        f"store: {{path: {tmp_path}/state}}\n"
        "sinks: {far: {memory: {}}}\n"
        "routes: {all: {from: '#', to: far}}\n"
        "web: off\n"
    )
    without = (
        "import sys, importlib.util as util; there = util.find_spec; sys.modules['websockets'] = None;"
        "util.find_spec = lambda name, *more: None if name == 'websockets' else there(name, *more);"
        "from bridge.cli import main; main()"
    )
    for command, code in (("validate", 78), ("run", 1)):
        asked = [sys.executable, "-c", without, command, str(path)]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        assert told.returncode == code
        assert "pip install 'websockets>=16'" in told.stderr
        assert "Traceback" not in told.stderr


# password file → exit code, what is said
PASSWORD_FILES = [
    ("anna:secret\n", 78, "passwords:1:1: the password stands there in plain text"),
    ("", 0, "nobody can log in"),
]


@pytest.mark.parametrize(("content", "code", "says"), PASSWORD_FILES)
def test_what_is_wrong_with_a_password_file_is_said_at_the_start(tmp_path, content, code, says):
    (tmp_path / "passwords").touch(0o600)
    (tmp_path / "passwords").write_text(content)
    file = tmp_path / "edgespool.yaml"
    file.write_text(
        f"version: 1\nlisteners: [{{mqtt: 127.0.0.1:{free_port()}}}]\naccess: {{users: passwords}}\n"
        f"store: {{path: {tmp_path}/spool}}\nweb: off\n"
    )
    process = subprocess.Popen([*COMMAND, "run", str(file)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if says in line:
            break
    if code == 0:  # one that refuses to start leaves by itself, and not by a signal that overtakes it
        process.terminate()
    assert process.wait(10) == code, told
    process.stderr.close()
    assert says in told
    assert "secret" not in told
