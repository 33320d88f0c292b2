from pathlib import Path

import pytest

from bridge.config import ConfigProblems, build_routes, default_config, load, loads, warnings
from bridge.config.model import default_gateway, default_store_path
from bridge.config.words import split_host_port
from bridge.message import Message
from bridge.policy.pace import Drain, PaceLimits
from bridge.policy.retry import RetryLimits


def test_with_no_file_everything_goes_to_one_receiver_on_this_machine():
    config = load(None)
    assert config == default_config()
    assert [(each.host, each.port) for each in config.listeners] == [("127.0.0.1", 1883)]
    assert (config.web.host, config.web.port) == ("127.0.0.1", 8080)
    assert config.store.max_bytes == 1 << 30
    [route] = build_routes(config)
    assert (route.name, route.sink, route.when_full) == ("default", "local", "refuse")
    assert config.sinks["local"].kind == "zeromq"
    assert config.sinks["local"].options.endpoint == "tcp://127.0.0.1:5556"
    assert warnings(config) == []


def test_a_route_becomes_a_rule():
    [route] = build_routes(
        loads(
            "version: 1\ngateway: g\nsinks: {lab: {memory: {}}}\n"
            "routes: {r: {from: ['a/{x}', 'b/#'], to: lab, address: '{gateway}.{topic[0]}', max_age: 1h,\n"
            "  batch: {messages: 7, bytes: 1KiB, wait: 200ms}, when_full: drop_newest, priority: 7}}"
        )
    )
    assert route.address(Message("b/1", b"")) == "g.b"
    assert (route.batch.messages, route.batch.bytes, route.batch.wait_s) == (7, 1024, 0.2)
    assert (route.max_age_s, route.when_full, route.priority) == (3600.0, "drop_newest", 7)


def test_a_route_to_several_sinks_becomes_as_many_rules_and_the_first_keeps_the_name():
    config = loads(
        "version: 1\nsinks: {a: {memory: {}}, b: {memory: {}}}\nroutes: {r: {from: '#', to: [a, b]}}"
    )
    assert [(route.name, route.sink) for route in build_routes(config)] == [("r", "a"), ("r.b", "b")]
    swapped = loads(
        "version: 1\nsinks: {a: {memory: {}}, b: {memory: {}}}\nroutes: {r: {from: '#', to: [b, a]}}"
    )
    rules = build_routes(swapped, {"r", "r.b"})
    assert [(route.name, route.sink) for route in rules] == [("r.b", "b"), ("r", "a")]


def test_a_fallback_is_a_second_sink_and_a_time():
    config = loads(
        "version: 1\nsinks: {a: {memory: {}}, b: {memory: {}}}\n"
        "routes: {r: {from: '#', to: a, fallback: {to: b, after: 10m}}}"
    )
    [route] = build_routes(config)
    assert (route.sink, route.fallback) == ("a", ("b", 600.0))
    assert not any("no route leads there" in warning for warning in warnings(config))


def test_a_drain_is_an_order_and_a_pace_for_what_waited_and_for_what_is_new():
    config = loads(
        "version: 1\nsinks: {a: {memory: {}}}\nroutes: {r: {from: '#', to: a, drain:\n"
        "  {order: live_first, rate: 500/s, bytes: 64KiB/s, live: {rate: 2000/s}}}, s: {from: '#', to: a}}"
    )
    limited, free = (route.drain for route in build_routes(config))
    assert limited == Drain(True, PaceLimits(500.0, 65_536), PaceLimits(2000.0))
    assert free == Drain()
    assert config.describe()["routes"]["r"]["drain"]["rate"] == "500/s"


def test_a_route_tries_once_and_with_retry_as_often_as_it_says():
    config = loads(
        "version: 1\nsinks: {a: {memory: {}}}\nroutes: {r: {from: '#', to: a},\n"
        "  s: {from: '#', to: a, retry: {}}, t: {from: '#', to: a, retry: {tries: 3, wait: 200ms}}}"
    )
    assert [route.retry for route in build_routes(config)] == [
        RetryLimits(1),
        RetryLimits(5, 1.0),
        RetryLimits(3, 0.2),
    ]


def test_overrides_replace_single_values(tmp_path):
    config = load(None, {"store.path": str(tmp_path), "web": "off", "listeners": [{"mqtt": "127.0.0.1:0"}]})
    assert config.store.path == tmp_path
    assert config.web is None
    assert config.listeners[0].port == 0
    assert config.describe()["web"] == "off"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"store.max_bytes": 5}, "override store.max_bytes: '5' has no unit"),
        ({"stor.path": "/x"}, "override: unknown key 'stor'"),
        ({"version.x": 1}, "override version: must be 1"),
        ({"listeners.0": 1}, "must be a list"),
        ({"store.path": object()}, "override: "),
    ],
)
def test_a_bad_override_says_that_it_is_one(overrides, says):
    with pytest.raises(ConfigProblems) as caught:
        load(None, overrides)
    assert says in str(caught.value)


def test_the_broker_gets_its_limits():
    limits = loads("version: 1\nlimits: {packet_bytes: 2MiB, keep_alive: 1h}").broker_limits
    assert (limits.packet_bytes_max, limits.keep_alive_max_s) == (2 << 20, 3600)
    assert default_config().broker_limits == type(limits)()


def test_what_is_probably_not_meant_is_said():
    config = loads(
        "version: 1\nsinks: {a: {memory: {}}, b: {memory: {}}}\nweb: {listen: 0.0.0.0:80}\nroutes: {}"
    )
    assert [text.split(":")[0] for text in warnings(config)] == [
        "there are no routes",
        "sinks.a",
        "sinks.b",
        "web.listen",
    ]
    config = loads("version: 1\nsinks: {a: {memory: {}}}\nroutes: {r: {from: a, to: a}}")
    assert warnings(config) == ["routes.r: loses messages, because the sink 'a' is only memory"]
    config = loads("version: 1\nsinks: {a: {memory: {}}}\nroutes: {r: {from: a, to: a, durability: memory}}")
    assert warnings(config)[0] == (
        "routes.r: may lose messages: `durability: memory` keeps them from the disk"
    )


def test_the_gateway_has_a_name_without_being_told():
    assert default_gateway()
    assert not set("/+#") & set(default_gateway())


def test_the_store_lies_where_systemd_or_the_desktop_says(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_store_path() == Path("/x/edgespool")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_store_path() == Path("~/.local/state/edgespool").expanduser()
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgespool:/var/lib/other")
    assert default_store_path() == Path("/var/lib/edgespool")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:1883", "127.0.0.1", 1883), ("[::1]:0", "::1", 0), ("box.local:65535", "box.local", 65535)],
)
def test_a_host_and_a_port(text, host, port):
    assert split_host_port(text) == (host, port)


def test_durability_is_fsync_unless_it_says_write():
    document = "version: 1\nstore: {path: /x, durability: write}"
    assert default_config().store.durability == "fsync"
    assert loads(document).store.durability == "write"
