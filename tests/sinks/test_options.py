"""What the user may write about a sink, what is refused, and that no password comes out again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.errors import ConfigError
from bridge.sinks import OPTIONS, Sink, create, describe, located
from bridge.sinks.options import AmqpOptions, MemoryOptions, ZeromqOptions

URL = "amqps://user:secret-word@broker.example:5671/plant"
PAIR = {"certificate": "c.pem", "key": "k.pem"}
CURVE = {"secret_key": "/k"}

WRONG = [
    ("amqp", {}, "url"),
    ("amqp", {"url": "http://user:secret-word@x"}, "amqp://user:password@host"),
    ("amqp", {"url": "amqp://"}, "amqp://user:password@host"),
    ("amqp", {"url": "amqp://h:secret-word/"}, "amqp://user:password@host"),
    ("amqp", {"url": URL, "exchnge": "x"}, "exchnge"),
    ("amqp", {"url": URL, "heartbeat": 10}, "no unit"),
    ("amqp", {"url": URL, "window": 0}, "window"),
    ("amqp", {"url": "amqp://h", "tls": {"ca": "ca.pem"}}, "amqps"),
    ("amqp", {"url": URL, "tls": {"key": "k.pem"}}, "come together"),
    ("amqp", {"url": f"{URL}?verify=verify_none"}, "keys here: tls, heartbeat"),
    ("amqp", {"url": f"{URL}/x"}, "written %2F"),
    ("amqp", {"url": URL, "urls": [URL]}, "write 'url: amqps://…' for one host or 'urls: "),
    ("amqp", {"urls": []}, "at least 1"),
    ("amqp", {"urls": [URL] * 17}, "at most 16"),
    ("amqp", {"urls": [URL, "amqp://user:secret-word@h/"]}, "a way around TLS"),
    ("amqp", {"urls": [URL, "http://user:secret-word@h/"]}, "amqp://user:password@host"),
    ("amqp", {"urls": ["amqp://a", "amqp://b"], "tls": {"ca": "ca.pem"}}, "amqps"),
    ("amqp", {"url": "amqps://h", "tls": PAIR | {"tls_min": "1.1"}}, "'1.2' or '1.3'"),
    ("amqp", {"url": "amqps://h", "tls": PAIR | {"verify": False}}, "verify"),
    ("amqp", {"url": "amqps://h", "sasl": "external"}, "shows a certificate"),
    ("amqp", {"url": "amqps://h", "sasl": "external", "tls": {"ca": "ca.pem"}}, "shows a certificate"),
    ("amqp", {"url": URL, "sasl": "external", "tls": PAIR}, "leave user:password@ out"),
    ("amqp", {"url": "amqps://h", "sasl": "anonymous"}, "'plain' or 'external'"),
    ("amqp", {"url": URL, "declare": [{}]}, "one of"),
    ("amqp", {"url": URL, "declare": [{"queue": {"name": "q"}, "exchange": {"name": "e"}}]}, "one of"),
    (
        "amqp",
        {"url": URL, "declare": [{"queue": {"name": "q", "type": "quorum", "durable": False}}]},
        "durable",
    ),
    (
        "amqp",
        {"url": URL, "declare": [{"queue": {"name": "q", "arguments": {"x-queue-type": "quorum"}}}]},
        "type:",
    ),
    ("zeromq", {}, "exactly one"),
    ("zeromq", {"bind": "tcp://*:1", "connect": "tcp://h:1"}, "exactly one"),
    ("zeromq", {"bind": "tcp://*:0"}, "tcp://host:port"),
    ("zeromq", {"bind": "tcp://*:*"}, "tcp://host:port"),
    ("zeromq", {"bind": "udp://h:1"}, "tcp://host:port"),
    ("zeromq", {"connect": "h:1"}, "tcp://host:port"),
    ("zeromq", {"bind": "tcp://*:1"}, "write curve: {secret_key: FILE, clients: FILE}"),
    ("zeromq", {"bind": "tcp://0.0.0.0:1"}, "or anonymous: true"),
    ("zeromq", {"bind": "tcp://[::]:1"}, "can be reached from outside"),
    ("zeromq", {"bind": "tcp://eth0:1"}, "can be reached from outside"),
    ("zeromq", {"bind": "tcp://localhost.example:1"}, "can be reached from outside"),
    ("zeromq", {"bind": "tcp://*:1", "anonymous": False}, "can be reached from outside"),
    ("zeromq", {"bind": "tcp://*:1", "curve": CURVE}, "curve is {secret_key: FILE, clients: FILE}"),
    ("zeromq", {"bind": "tcp://*:1", "curve": {"clients": "/c"}}, "secret_key"),
    ("zeromq", {"bind": "tcp://*:1", "curve": CURVE | {"clients": "/c", "server_key": "/s"}}, "with 'bind'"),
    ("zeromq", {"connect": "tcp://h:1", "curve": CURVE}, "curve is {secret_key: FILE, server_key: FILE}"),
    ("zeromq", {"connect": "tcp://h:1", "curve": CURVE | {"clients": "/c"}}, "with 'connect'"),
    ("zeromq", {"connect": "tcp://h:1", "anonymous": True}, "'anonymous' is for 'bind'"),
    ("zeromq", {"bind": "tcp://*:1", "anonymous": True, "curve": CURVE | {"clients": "/c"}}, "write one of"),
    ("zeromq", {"bind": "tcp://*:1", "curve": {"secret_key": "k", "clients": "/c"}}, "'k' is relative"),
    ("memory", {"x": 1}, "x"),
]

LOCAL = ["tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///run/x", "ipc://@x"]


@pytest.mark.parametrize("endpoint", LOCAL)
def test_what_only_this_machine_can_reach_needs_no_keys(endpoint: str) -> None:
    assert ZeromqOptions(bind=endpoint).curve is None


@pytest.mark.parametrize(("kind", "options", "said"), WRONG)
def test_a_slip_is_refused_and_explained(kind: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        OPTIONS[kind].model_validate(options)
    assert said in str(raised.value)
    assert "secret-word" not in str(raised.value)


def test_no_password_comes_out() -> None:
    options = AmqpOptions.model_validate({"url": URL, "exchange": "plant"})
    assert describe(options) == "amqps://user:***@broker.example:5671/plant exchange=plant"
    for spelled in (repr(options), str(options), options.model_dump_json(), describe(options)):
        assert "secret-word" not in spelled


def test_no_password_of_several_hosts_comes_out() -> None:
    urls = [URL, "amqps://other:secret-word@b.example/plant", "amqps://[::1]:1/plant"]
    options = AmqpOptions.model_validate({"urls": urls})
    assert describe(options) == "amqps://user:***@broker.example:5671/plant, b.example/plant, [::1]:1/plant"
    for spelled in (repr(options), str(options), options.model_dump_json()):
        assert "secret-word" not in spelled


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://h", (False, "h", 5672, "guest", "guest", "/")),
        ("amqps://h/", (True, "h", 5671, "guest", "guest", "/")),
        ("AMQPS://u@H:1/%2F", (True, "h", 1, "u", "", "/")),
        ("amqp://u%40x:p%2Fw@[::1]:7/a%2Fb", (False, "::1", 7, "u@x", "p/w", "a/b")),
    ],
)
def test_a_url_says_where_as_whom_and_into_which_virtual_host(url: str, address: tuple[object, ...]) -> None:
    [found] = AmqpOptions.model_validate({"url": url}).addresses
    assert (
        found.tls,
        found.host,
        found.port,
        found.user,
        found.password,
        found.virtual_host,
    ) == address


def test_relative_files_start_where_the_configuration_lies() -> None:
    tls = {"ca": "ca.pem", "certificate": "/etc/c.pem", "key": "keys/k.pem"}
    options = AmqpOptions.model_validate({"url": "amqps://h", "tls": tls})
    found = located(options, lambda path: Path("/plant") / path)
    assert isinstance(found, AmqpOptions)
    assert found.tls is not None
    assert (found.tls.ca, found.tls.certificate, found.tls.key, found.tls.crl) == (
        Path("/plant/ca.pem"),
        Path("/etc/c.pem"),
        Path("/plant/keys/k.pem"),
        None,
    )


def test_addresses() -> None:
    assert describe(ZeromqOptions(bind="tcp://*:5556", anonymous=True)) == "zeromq bind tcp://*:5556"
    server = ZeromqOptions.model_validate({"bind": "tcp://*:5556", "curve": CURVE | {"clients": "/c"}})
    assert describe(server) == "zeromq bind tcp://*:5556 with curve"
    assert describe(ZeromqOptions(connect="ipc:///run/x")) == "zeromq connect ipc:///run/x"
    assert describe(AmqpOptions(url="amqp://[::1]:5672")) == "amqp://[::1]:5672"  # type: ignore[arg-type]
    assert describe(MemoryOptions()) == "memory"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("amqp", {"url": URL}), ("zeromq", {"bind": "tcp://127.0.0.1:5556"}), ("memory", {})],
)
def test_a_sink_is_made_without_touching_the_world(kind: str, options: dict[str, object]) -> None:
    sink = create(kind, "cloud", OPTIONS[kind].model_validate(options), "plant-7")
    assert isinstance(sink, Sink)
    assert sink.name == "cloud"


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="amqp, zeromq, memory"):
        create("kafka", "cloud", MemoryOptions(), "plant-7")


def test_an_absent_library_fails_with_the_line_to_type() -> None:
    # In a process of its own, because here the library has long been imported.
    program = (
        "import sys; sys.modules['pika'] = None\n"
        "from bridge.errors import ConfigError\n"
        "from bridge.sinks import OPTIONS, create\n"
        "try: create('amqp', 'cloud', OPTIONS['amqp'](url='amqp://h'), 'g')\n"
        "except ConfigError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "sinks.cloud: amqp needs pika, install it: pip install 'edgespool[amqp]'\n"


def test_options_are_read_without_any_library() -> None:
    program = "import sys, bridge.sinks; print('pika' in sys.modules, 'zmq' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n"
