"""What a mosquitto.conf becomes, as the configuration that is read back from the printed YAML."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.load import loads
from bridge.errors import ConfigError
from bridge.migrate import import_mosquitto
from bridge.migrate.settings import BRIDGE, GONE, HOUSE, LISTENER, SECURITY, known_names

DEBIAN = """\
# Place your local configuration in /etc/mosquitto/conf.d/
#
# A full description of the configuration file is at
# /usr/share/doc/mosquitto/examples/mosquitto.conf.example

pid_file /run/mosquitto/mosquitto.pid

persistence true
persistence_location /var/lib/mosquitto/

log_dest file /var/log/mosquitto/mosquitto.log

include_dir conf.d
"""


@pytest.fixture
def take(tmp_path):
    """Import a text; other files lie beside it, as relative paths expect."""

    def take(text, *, port=None, version=None, **files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        (tmp_path / "mosquitto.conf").write_text(text)
        imported = import_mosquitto(tmp_path / "mosquitto.conf", tmp_path, port=port, version=version)
        return loads(imported.text), [str(note) for note in imported.notes], imported.text

    return take


def values(section):
    """What a section says itself, as YAML says it."""
    return section.model_dump(mode="json", by_alias=True, exclude_unset=True)


# ---- listeners ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listeners"),
    [
        ("", [{"mqtt": "127.0.0.1:1883", "anonymous": True}]),
        ("max_connections 10", [{"mqtt": "127.0.0.1:1883", "anonymous": True}]),
        ("allow_anonymous true", [{"mqtt": "127.0.0.1:1883", "anonymous": True}]),
        ("allow_anonymous false", [{"mqtt": "127.0.0.1:1883", "anonymous": False}]),
        ("listener 1884", [{"mqtt": "0.0.0.0:1884", "anonymous": False}]),
        ("listener 1884\nallow_anonymous true", [{"mqtt": "0.0.0.0:1884", "anonymous": True}]),
        ("allow_anonymous true\nport 1884", [{"mqtt": "0.0.0.0:1884", "anonymous": True}]),
        ("bind_address 10.0.0.1", [{"mqtt": "10.0.0.1:1883", "anonymous": False}]),
        ("listener 1883 ::1", [{"mqtt": "[::1]:1883", "anonymous": False}]),
        ("listener 1883 plant.example", [{"mqtt": "plant.example:1883", "anonymous": False}]),
        ("listener 1883\nsocket_domain ipv6", [{"mqtt": "[::]:1883", "anonymous": False}]),
        ("listener 1883\nbind_interface lo", [{"mqtt": "127.0.0.1:1883", "anonymous": False}]),
        ("listener 1883\nprotocol websockets", [{"ws": "0.0.0.0:1883", "anonymous": False}]),
        ("listener 0 /run/x", [{"unix": "/run/x", "anonymous": False}]),
        (
            "max_qos 1\nlistener 1884",
            [
                {"mqtt": "0.0.0.0:1883", "anonymous": False, "limits": {"maximum_qos": 1}},
                {"mqtt": "0.0.0.0:1884", "anonymous": False},
            ],
        ),
        (
            "listener 1\nmax_connections 5\nlistener 2\nmax_topic_alias 0\nmax_connections -1",
            [
                {"mqtt": "0.0.0.0:1", "anonymous": False, "limits": {"connections": 5}},
                {"mqtt": "0.0.0.0:2", "anonymous": False, "limits": {"topic_alias_maximum": 0}},
            ],
        ),
        (
            "listener 1\nlistener_allow_anonymous true\nlistener 2",
            [{"mqtt": "0.0.0.0:1", "anonymous": True}, {"mqtt": "0.0.0.0:2", "anonymous": False}],
        ),
        (
            "per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2",
            [{"mqtt": "0.0.0.0:1", "anonymous": True}, {"mqtt": "0.0.0.0:2", "anonymous": False}],
        ),
    ],
)
def test_listeners_are_where_they_were_and_let_in_whom_they_did(take, text, listeners):
    config, _, _ = take(text)
    got = [values(listener) for listener in config.listeners]
    if len({entry["anonymous"] for entry in listeners}) > 1:
        for entry in got:
            entry.pop("unverified_users", None)
    assert got == listeners


def test_a_listener_that_lets_nobody_in_lets_nobody_in_here_either(take):
    config, notes, _ = take("listener 1883")
    assert config.access.users == Path("/dev/null")
    assert any("nobody does" in note for note in notes)


def test_a_port_on_the_command_line_counts_where_the_file_names_no_listener(take):
    assert take("", port=1999)[0].listeners[0].mqtt == "127.0.0.1:1999"
    assert take("listener 1884", port=1999)[0].listeners[0].mqtt == "0.0.0.0:1884"


TLS = "listener 8883\ncertfile c.pem\nkeyfile k.pem\n"


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("", {"anonymous": False}),
        ("cafile ca.pem", {"chain": "{}/ca.pem", "anonymous": False}),
        ("cafile ca.pem\nrequire_certificate false", {"chain": "{}/ca.pem", "anonymous": False}),
        (
            "cafile ca.pem\nrequire_certificate true",
            {"client_ca": "{}/ca.pem", "user_from": "password", "anonymous": False},
        ),
        (
            "cafile ca.pem\nrequire_certificate true\nallow_anonymous true",
            {"client_ca": "{}/ca.pem", "user_from": "password", "anonymous": True},
        ),
        (
            "cafile ca.pem\nrequire_certificate true\nuse_identity_as_username true\ncrlfile /r.pem",
            {"client_ca": "{}/ca.pem", "crl": "/r.pem"},
        ),
        (
            "cafile ca.pem\nuse_identity_as_username true",
            {"client_ca": "{}/ca.pem", "client_certificate": "optional", "anonymous": False},
        ),
        (
            "cafile ca.pem\nuse_subject_as_username true",
            {"client_ca": "{}/ca.pem", "client_certificate": "optional", "anonymous": False},
        ),
        (
            "capath ca/\nuse_identity_as_username true",
            {"client_ca": "{}/ca.pem", "client_certificate": "optional", "anonymous": False},
        ),
        (
            "cafile ca.pem\nuse_identity_as_username true\npassword_file p",
            {"client_ca": "{}/ca.pem"},
        ),
        ("tls_version tlsv1.3", {"tls_min": "1.3", "anonymous": False}),
        ("tls_version tlsv1.2", {"anonymous": False}),
        ("tls_version tlsv1.1", {"anonymous": False}),
    ],
)
def test_certificates_are_asked_for_where_they_were(take, tmp_path, more, keys):
    config, _, _ = take(TLS + more)
    expected = {"mqtts": "0.0.0.0:8883", "certificate": f"{tmp_path}/c.pem", "key": f"{tmp_path}/k.pem"}
    expected |= {
        key: value.format(tmp_path) if isinstance(value, str) else value for key, value in keys.items()
    }
    assert values(config.listeners[0]) == expected


def test_websockets_with_tls_and_origins(take):
    config, _, _ = take(TLS + "protocol websockets\nwebsockets_origin https://a\nwebsockets_origin https://b")
    assert config.listeners[0].kind == "wss"
    assert config.listeners[0].origins == ["https://a", "https://b"]


@pytest.mark.parametrize(
    "line", ["psk_hint x", "enable_proxy_protocol 2", "protocol http_api", "mount_point plant/"]
)
def test_a_listener_we_cannot_serve_is_left_out_and_named(take, line):
    config, notes, _ = take(f"listener 1883\nlistener 1884\n{line}")
    assert [listener.mqtt for listener in config.listeners] == ["0.0.0.0:1883"]
    assert any("mosquitto.conf:3 " + line in note for note in notes)
    with pytest.raises(ConfigError, match="no listener is left"):
        take(f"listener 1884\n{line}")


# ---- users and rules --------------------------------------------------------------------


def test_the_password_file_is_named_and_relative_to_the_working_directory(take, tmp_path):
    config, notes, _ = take("listener 1883\npassword_file conf/passwd")
    assert config.access.users == tmp_path / "conf" / "passwd"
    assert any(note.startswith(f"{tmp_path}/mosquitto.conf:2 password_file") for note in notes)


def test_the_plug_ins_that_do_what_a_setting_did_are_that_setting(take, tmp_path):
    config, notes, _ = take(
        "plugin /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file passwd\nlistener 1883\n"
        "plugin /usr/lib/mosquitto_acl_file.so\nplugin_opt_acl_file acl",
        acl="topic a",
    )
    assert config.access.users == tmp_path / "passwd"
    assert config.access.rules
    assert not any("plug-ins" in note for note in notes)


def test_other_plug_ins_are_named(take):
    _, notes, _ = take("listener 1883\nplugin /usr/lib/auth.so\nplugin_opt_key 5")
    assert sum("plug-ins of Mosquitto are not loaded" in note for note in notes) == 2


@pytest.mark.parametrize(
    ("acl", "anonymous", "password", "believed"),
    [
        ("user bob\ntopic a", "true", "", True),
        ("pattern read a/%u", "true", "", True),
        ("topic a", "true", "", True),
        ("user bob\ntopic a", "true", "password_file p", False),
        ("user bob\ntopic a", "false", "", False),
    ],
)
def test_names_are_believed_where_mosquitto_believed_them(take, acl, anonymous, password, believed):
    config, _, _ = take(f"listener 1883\nallow_anonymous {anonymous}\nacl_file acl\n{password}", acl=acl)
    assert config.listeners[0].unverified_users is believed


def test_listeners_that_disagree_about_rules_allow_nothing(take):
    conf = "per_listener_settings true\nlistener 1\nacl_file a\nlistener 2\nacl_file b"
    config, notes, _ = take(conf, a="topic a", b="topic b")
    assert config.access.rules == []
    assert sum("these listeners disagree" in note for note in notes) == 2
    config, notes, _ = take(conf.replace("acl_file b", "acl_file a"), a="topic a")
    assert config.access.rules
    config, notes, _ = take(conf.replace("acl_file b", "max_qos 1"), a="topic a")
    assert config.access.rules
    assert any("also on those that had no rules" in note for note in notes)


def test_client_prefixes_become_rules(take):
    config, _, _ = take("listener 1883\nclientid_prefixes plant-")
    assert [(rule.client, rule.publish) for rule in config.access.rules] == [("plant-*", ["#", "$SYS/#"])]


# ---- limits -------------------------------------------------------------------------------

DEFAULTS_2_0 = {
    "packet_bytes": "268435460B",
    "receive_maximum": 20,
    "in_flight": 20,
    "topic_alias_maximum": 10,
    "topic_levels": 201,
    "session_messages": 1020,
    "session_bytes": "1TiB",
    "reason_strings": False,
    "like_mosquitto": True,
}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ("max_packet_size 2000", {"packet_bytes": "2000B"}),
        ("max_packet_size 20", {"packet_bytes": "20B"}),
        (
            "max_inflight_messages 5",
            {"receive_maximum": 5, "in_flight": 5, "session_messages": 1005},
        ),
        (
            "max_inflight_messages 0",
            {"receive_maximum": 65535, "in_flight": 65535, "session_messages": 66535},
        ),
        ("max_queued_messages 0", {"session_messages": 1_000_000_000}),
        ("max_queued_messages 7", {"session_messages": 27}),
        ("max_queued_bytes 2048", {"session_bytes": "2KiB"}),
        ("max_keepalive 100", {"keep_alive": "100s"}),
        ("max_keepalive 0", {}),
        ("retain_available false", {"retain": False}),
        ("retain_available true", {}),
        ("allow_zero_length_clientid false", {"empty_client_ids": False}),
        ("persistent_client_expiration 2w", {"session_expiry": "14d"}),
        ("persistent_client_expiration 90s", {"session_expiry": "90s"}),
    ],
)
def test_limits_are_what_they_were_with_the_defaults_written_out(take, text, limits):
    config, _, _ = take(text)
    assert values(config.limits) == DEFAULTS_2_0 | limits


def test_a_setting_of_2_1_brings_the_defaults_of_2_1(take):
    newer = {"packet_bytes": "2000000B", "connect_bytes": "100000B"}
    assert values(take("global_max_connections 9")[0].limits) == DEFAULTS_2_0 | newer | {"connections": 9}
    assert values(take("", version="2.1")[0].limits) == DEFAULTS_2_0 | newer
    assert "packet_bytes: 268435460B" in take("global_max_connections 9", version="2.0")[2]


@pytest.mark.parametrize(
    ("text", "interval"), [("", 10.0), ("sys_interval 1", 1.0), ("sys_interval 0", None)]
)
def test_sys_is_as_often_as_it_was(take, text, interval):
    sys = take(text)[0].sys
    assert (sys.interval if sys else None) == interval


def test_no_port_is_opened_that_mosquitto_did_not_open(take):
    assert take("")[0].web is None


# ---- what is not the same ------------------------------------------------------------------


def test_debians_file_and_its_folder(take, tmp_path):
    config, notes, text = take(
        DEBIAN, conf__d="", **{"conf.d__local.conf": "listener 1883\npassword_file /etc/mosquitto/passwd"}
    )
    assert config.store.path == Path("/var/lib/mosquitto/edgespool")
    assert config.access.users == Path("/etc/mosquitto/passwd")
    assert [re.sub(r"^\S*/(\S+ \w+).*", r"\1", note) for note in notes if "tmp" in note] == [
        "local.conf:1 listener",
        "local.conf:2 password_file",
        "mosquitto.conf:6 pid_file",
        "mosquitto.conf:9 persistence_location",
        "mosquitto.conf:11 log_dest",
    ]
    assert all(f"#   {note}" in text.splitlines() for note in notes)


# One good value for every setting that there is.
GOOD = {
    **dict.fromkeys(GONE, "true"),
    **dict.fromkeys(BRIDGE, "true"),
    **dict.fromkeys(LISTENER, "x"),
    **dict.fromkeys(SECURITY, "true"),
    **dict.fromkeys(HOUSE, "true"),
    **dict.fromkeys(
        (
            *(
                "autosave_interval",
                "log_facility",
                "max_inflight_bytes",
                "memory_limit",
                "message_size_limit",
            ),
            *("packet_buffer_size", "retain_expiry_interval", "websockets_headers_size", "sys_interval"),
            *("websockets_log_level", "idle_timeout", "keepalive_interval", "threshold", "max_connections"),
            *("bridge_max_packet_size", "bridge_max_topic_alias", "bridge_receive_maximum", "max_qos"),
            *("bridge_session_expiry_interval", "bridge_tcp_user_timeout", "maximum_qos", "max_topic_alias"),
            *("max_topic_alias_broker", "global_max_clients", "global_max_connections", "max_keepalive"),
            *("max_inflight_messages", "max_queued_bytes", "max_queued_messages"),
        ),
        "1",
    ),
    "protocol": "mqtt",
    "socket_domain": "ipv4",
    "tls_version": "tlsv1.2",
    "max_packet_size": "100",
    "persistent_client_expiration": "1d",
    "password_file": "/etc/passwd",
    "acl_file": "acl",
    **dict.fromkeys(("use_identity_as_username", "use_subject_as_username", "require_certificate"), "true"),
    **dict.fromkeys(("listener_allow_anonymous",), "false"),
    "topic": "a/# out",
    "address": "a.example",
    "addresses": "a.example",
}
NOT_SERVED = {"psk_hint", "enable_proxy_protocol", "mount_point"}
FREE = sorted(known_names() & GOOD.keys() - BRIDGE - NOT_SERVED)


@pytest.mark.parametrize("name", sorted(GONE))
def test_every_setting_without_an_equivalent_has_its_line(take, name):
    _, notes, text = take(f"listener 1883\n{name} {GOOD[name]}")
    (note,) = [note for note in notes if f"mosquitto.conf:2 {name} {GOOD[name]}: " in note]
    assert f"#   {note}" in text


def import_or_mistake(path, folder):
    """What is imported, or None for a mistake; the mistake has to begin with the file."""
    mistake = ""
    try:
        return import_mosquitto(path, folder)
    except ConfigError as error:
        mistake = str(error)
    assert mistake.startswith(str(path))
    return None


@given(
    st.lists(
        st.one_of(
            st.sampled_from(FREE).map(lambda name: f"{name} {GOOD[name]}"),
            st.sampled_from(["listener 1883", "listener 1884 ::1", "listener 0 sock", "port 1885"]),
            st.just("certfile c\nkeyfile k\ncafile a"),
            st.just("connection x\naddress y\ntopic a/# both 1 b/ c/"),
        ),
        max_size=12,
    )
)
def test_any_settings_give_a_valid_file_or_a_mistake_with_its_place(tmp_path_factory, lines):
    folder = tmp_path_factory.getbasetemp()
    (folder / "acl").write_text("user a\ntopic b")
    (folder / "any.conf").write_text("\n".join(lines))
    imported = import_or_mistake(folder / "any.conf", folder)
    if imported is None:  # two bridges of one name, one address twice, half a TLS listener
        return
    loads(imported.text)
    said = "\n".join(map(str, imported.notes))
    for line in lines:
        if line.split()[0] in GONE:
            assert f" {line}: " in said


@given(st.text(max_size=80))
def test_any_text_gives_a_valid_file_or_a_mistake_with_its_place(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text.conf"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    if (imported := import_or_mistake(path, path.parent)) is not None:
        loads(imported.text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("allow_anonymous falst", ":1 allow_anonymous: 'falst' must be one of true, 1, false, 0"),
        ("user x\nlisten 1883", ":2: 'listen' is not a setting of Mosquitto 2; did you mean 'listener'?"),
        ("listener 100000", ":1 listener: 100000 must be between 0 and 65535"),
        ("listener", ":1 listener: has no value"),
        ("listener 0", ":1 listener: port 0 needs the path of a Unix socket"),
        ("listener 1\nprotocol test", ":2 protocol: 'test' must be one of mqtt, websockets, http_api"),
        ("max_qos 3\nlistener 1", ":1 max_qos: 3 must be between 0 and 2"),
        ("autosave_interval often", ":1 autosave_interval: 'often' is not a number"),
        ("listener 1\ncertfile c", ":2 certfile: needs 'keyfile' beside it"),
        ("listener 1\ncafile c", ":2 cafile: needs 'certfile' and 'keyfile'"),
        (TLS + "require_certificate true", ":4 require_certificate: needs 'cafile' or 'capath'"),
        ("address x", ":1 address: belongs to a bridge"),
        ("connection x\ntopic a", ":1 connection: the bridge has no 'address'"),
        ("connection x\naddress y", ":1 connection: the bridge has no 'topic'"),
        ('connection x\naddress y\ntopic "a b', ":3 topic: the closing quote is missing"),
        ("connection x\naddress y\ntopic a up", ":3 topic: 'up' must be one of out, in, both"),
        ("connection x\naddress y\ntopic a out 3", ":3 topic: the QoS '3' must be 0, 1 or 2"),
        ("connection x\naddress y\ntopic a\nconnection x", ":4 connection: there is already a bridge 'x'"),
        ("plugin_opt_x 1", ":1 plugin_opt_x: belongs to a plug-in"),
        ("persistent_client_expiration 5", ":1 persistent_client_expiration: '5' is not a time"),
        ("listener 1883\nlistener 1883", "0.0.0.0:1883 stands twice"),
    ],
)
def test_mistakes_say_file_and_line(take, text, says):
    with pytest.raises(ConfigError) as caught:
        take(text)
    assert says in str(caught.value)


# ---- bridges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "topic_filter", "address"),
    [
        ("topic a/#", "a/#", "{topic}"),
        ("topic # out 1", "#", "{topic}"),
        ('topic a/# both 1 "" plant/', "a/#", "plant/{topic}"),
        ("topic +/state out 2 line/ plant/7/", "line/+/state", "plant/7/{topic[1]}/state"),
        ('topic "" out 0 local/a remote/a', "local/a", "remote/a"),
        ('topic "two words" out', "two words", "{topic}"),
        ("topic # out 0 line/ plant/", "line/#", "plant/{topic}"),
        ("topic a out # and so on", "a", "{topic}"),
    ],
)
def test_topics_that_went_out_are_routes_once_the_signs_are_taken_away(take, line, topic_filter, address):
    config, notes, text = take(f"connection plant.7\naddress h:8883\n{line}\nremote_password geheim\n")
    assert not config.routes
    assert "geheim" not in text + "".join(notes)
    text = text.replace("amqp://USER:PASSWORD@HOST/", "amqp://h/")
    config = loads(re.sub(r"(?m)^# ( *(sinks|routes|plant-7|from|to|address)\b)", r"\1", text))
    (route,) = config.routes.values()
    assert (route.from_, route.address, route.to) == ([topic_filter], address, ["plant-7"])


def test_topics_that_came_in_are_named(take):
    _, notes, text = take("connection x\naddress h\ntopic cmd/# in 1")
    assert "routes:" not in text
    assert any(":3 topic cmd/# in 1: nothing is fetched" in note for note in notes)
