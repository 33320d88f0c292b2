"""Every mistake is pointed at: a table of files with one `‸` before the column that the report must name."""

import sys

import pytest

from bridge.config import ConfigProblems, loads

SINK = "sinks: {lab: {zeromq: {connect: tcp://10.0.0.5:5556}}}\n"
ROUTE = "version: 1\n" + SINK + "routes:\n  r:\n    from: a/{line}/#\n    to: lab\n"
TWO = ROUTE.replace("5556}}", "5556}}, x: {memory: {}}")

COMMANDS = "version: 1\nsinks: {lab: {memory: {}}, cloud: {amqp: {url: amqp://h}}}\ncommands:\n  c: {"

MISTAKES = [
    # ---- the document ----
    ("‸[1, 2]", "must have keys and values"),
    ("‸gateway: x", "'version' is missing; write 'version: 1'"),
    ("version: ‸2", "must be 1"),
    ("version: ‸'1'", "must be 1"),
    ("version: 1\nweb: [1\nx‸: 2", "not YAML"),
    ("version: 1\n‸\tweb: off", "not YAML"),
    ("version: 1\ngateway: a‸\x07", "U+0007 must not stand"),
    ("version: 1\n‸---\nversion: 1", "a second document"),
    ("version: 1\n‸routs: {}", "unknown key 'routs'"),
    ("version: 1\n‸routs: {}", "did you mean 'routes'?"),
    ("version: 1\n‸1: 2", "a key must be text; write it in quotes: '1'"),
    ("version: 1\n‸true: 2", "a key must be text"),
    ("version: 1\n? ‸[a]\n: 2", "a key must be text, not a list"),
    ("version: 1\n‸version: 1", "stands twice, first in line 1"),
    ("version: 1\nstore: {max_bytes: 1GiB, ‸max_bytes: 2GiB}", "stands twice"),
    ("version: 1\ngateway: ‸&a x", "anchors are not supported"),
    ("version: 1\nroutes: {a: ‸*x}", "aliases are not supported"),
    ("version: 1\ngateway: ‸!!python/object/apply:os.system [ls]", "tags are not supported"),
    ("version: 1\ngateway: ‸!!str x", "tags are not supported"),
    ("version: 1\n‸<<: {a: 1}", "unknown key '<<'"),
    ("version: 1\nlimits: {connections: ‸.nan}", "must be finite"),
    ("version: 1\nlimits: {connections: ‸-.inf}", "must be finite"),
    ("version: 1\nlimits: {connections: ‸1e999}", "must be finite"),
    ("version: 1\nroutes:‸", "has no value"),
    ("version: 1\nroutes: ‸~", "has no value"),
    # ---- single values ----
    ("version: 1\ngateway: ‸a/b", "must not contain '/'"),
    ("version: 1\ngateway: ‸'+'", "must not contain '+'"),
    ("version: 1\ngateway: ‸''", "must have 1 to 64 characters"),
    ("version: 1\ngateway: ‸0123", "must be text; write it in quotes: '0123'"),
    ("version: 1\nlisteners: ‸[]", "at least 1 item"),
    ("version: 1\nlisteners: ‸{mqtt: 127.0.0.1:1883}", "must be a list"),
    ("version: 1\nlisteners: [{mqtt: ‸1883}]", "must be text"),
    ("version: 1\nlisteners: [{mqtt: ‸localhost}]", "must be HOST:PORT"),
    ("version: 1\nlisteners: [{mqtt: ‸localhost:70000}]", "70000 is not a port"),
    ("version: 1\nlisteners: [{mqtt: ‸0.0.0.0:1883}]", "or {mqtt: 0.0.0.0:1883, anonymous: true}"),
    ("version: 1\nlisteners: [{mqtt: 127.0.0.1:1, anonymous: ‸yes}]", "'yes' is only a word, write true"),
    ("version: 1\nlisteners: [{mqtt: 127.0.0.1:1}, {mqtt: ‸127.0.0.1:1}]", "stands twice"),
    ("version: 1\nlisteners: [‸{}]", "needs exactly one of mqtt, mqtts, ws, wss, unix"),
    ("version: 1\nstore: {path: ‸spool}", "'spool' is relative"),
    ("version: 1\nstore: {max_bytes: ‸1KiB}", "must be at least 1MiB"),
    ("version: 1\nstore: {max_bytes: ‸100}", "'100' has no unit; write '100B' or '100KiB'"),
    ("version: 1\nstore: ‸/var/lib", "must have keys and values"),
    ("version: 1\nweb: ‸no", "must be {listen: HOST:PORT} or off"),
    ("version: 1\nweb: {listen: ‸8080}", "must be text"),
    ("version: 1\nlimits: {connections: ‸'12'}", "must be a whole number, not '12'"),
    ("version: 1\nlimits: {connections: ‸1.5}", "must be a whole number"),
    ("version: 1\nlimits: {receive_maximum: ‸70000}", "must be at most 65535"),
    ("version: 1\nlimits: {keep_alive: ‸12:30:45}", "is not a duration"),
    # ---- sinks ----
    ("version: 1\nsinks: {‸a b: {memory: {}}}", "a name has 1 to 64 letters"),
    ("version: 1\nsinks: {a: {‸kafka: {}}}", "allowed are amqp, zeromq, memory"),
    ("version: 1\nsinks: {a: ‸{}}", "needs exactly one of amqp, zeromq, memory"),
    ("version: 1\nsinks: {a: ‸{memory: {}, zeromq: {connect: tcp://1:1}}}", "needs exactly one of"),
    ("version: 1\nsinks: {a: {amqp: {url: amqp://h, ‸exchnge: x}}}", "did you mean 'exchange'?"),
    ("version: 1\nsinks: {a: {amqp: ‸{}}}", "'url' is missing"),
    ("version: 1\nsinks: {a: {zeromq: {connect: ‸10.0.0.5}}}", "must be tcp://host:port"),
    ("version: 1\nsinks: {a: {zeromq: ‸{bind: 'tcp://*:5556'}}}", "write curve: {secret_key: FILE, clients"),
    ("version: 1\nsinks: {a: {zeromq: {connect: ipc://x, curve: {secret_key: ‸k}}}}", "is relative"),
    # ---- routes ----
    (ROUTE.replace("    to: lab\n", "").replace("  r:", "  ‸r:"), "'to' is missing"),
    (ROUTE.replace("to: lab", "to: ‸lap"), "there is no sink 'lap'; there are lab; did you mean 'lab'?"),
    ("version: 1\nroutes: {r: {from: a, to: ‸lab}}", "the file has no sinks"),
    (ROUTE.replace("to: lab", "to: [lab, ‸lap]"), "there is no sink 'lap'; there are lab; did you mean"),
    (ROUTE.replace("to: lab", "to: [lab, ‸lab]"), "the sink 'lab' stands here twice"),
    (ROUTE.replace("to: lab", "to: ‸[]"), "at least 1 item"),
    (ROUTE.replace("to: lab", "to: ‸{lab: 1}"), "must be the name of a sink, or a list of them"),
    (ROUTE + "    fallback: {to: ‸lap, after: 1m}", "there is no sink 'lap'"),
    (ROUTE + "    fallback: {to: ‸lab, after: 1m}", "the route goes to 'lab' already; name another sink"),
    (ROUTE + "    drain: {order: ‸lifo}", "must be 'fifo' or 'live_first'"),
    (ROUTE + "    drain: {rate: ‸500}", "'500' has no '/s' for 'in a second'; write '500/s'"),
    (ROUTE + "    drain: {live: {bytes: ‸64KiB}}", "write '64KiB/s'"),
    (ROUTE + "    drain: {‸rates: 5/s}", "unknown key 'rates'; allowed are rate, bytes, order, live"),
    (
        ROUTE.replace("    from", "    ‸from") + "    every: 10s\n    drain: {order: live_first}",
        "has every, which needs messages in their order",
    ),
    (
        ROUTE.replace("    from", "    ‸from") + "    deadband: {field: payload.t, delta: 1}\n    retry: {}",
        "has deadband, which needs messages in their order, and retry",
    ),
    (ROUTE + "    retry: ‸{tries: 5, wait: 4s}", "5 tries, 4s apart, take 16s"),
    (ROUTE + "    retry: {tries: ‸0}", "must be at least 1"),
    (ROUTE + "    retry: {wait: ‸1}", "has no unit"),
    (ROUTE + "    retry: {‸times: 3}", "unknown key 'times'; allowed are tries, wait"),
    (TWO + "    ‸fallback: {to: x}", "'after' is missing; write 'after:'"),
    (TWO + "    fallback: {to: x, after: ‸0s}", "must be at least 1s"),
    (
        TWO.replace("to: lab", "to: [lab, x]") + "    fallback: ‸{to: x, after: 1m}",
        "'fallback' is for a route with one sink",
    ),
    (ROUTE.replace("  r:", "  ‸../r:"), "a name has 1 to 64 letters"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸a/#/b"), "# must be the whole of the last level"),
    (ROUTE.replace("from: a/{line}/#", "from: [a, ‸b+]"), "+ must be the whole of its level"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸[]"), "at least 1 item"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸5"), "must be a topic filter, or a list of them"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸a/{topic}"), "a level cannot be named 'topic'"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸a/{x}/{x}"), "the level name 'x' stands twice"),
    (ROUTE + '    address: "x.{‸lin}"', "unknown field 'lin'; did you mean 'line'?"),
    (ROUTE + "    address: x.{‸lin}", "unknown field 'lin'"),
    (ROUTE + "    address: 'x.‸{line'", "'{' without '}'"),
    (ROUTE + '    address: ‸"\\u0078.{lin}"', "unknown field 'lin'"),
    (ROUTE + "    where: payload.t ‸= 20", "routes.r.where: unknown operator '='; write '=='"),
    (ROUTE + "    where: ‸'lin == 1'", "unknown field 'lin'; did you mean 'line'?"),
    (ROUTE + "    where: ‸qos", "this is a number, and a condition is true or false"),
    (ROUTE + "    where: ‸true", "must be text; write it in quotes: 'true'"),
    (ROUTE + "    every: ‸10", "'10' has no unit; write '10ms' or '10s'"),
    (ROUTE + "    every: ‸10ms", "must be at least 100ms"),
    (ROUTE + "    sample: ‸10", "must be text"),
    (ROUTE + "    sample: ‸11/10", "a part such as 1/10"),
    (ROUTE + "    deadband: {field: payload.t +‸, delta: 1}", "something is missing here"),
    (ROUTE + "    deadband: {field: ‸topic, delta: 1}", "a deadband wants a number"),
    (ROUTE + "    deadband: {field: payload.t, delta: ‸0}", "must be greater than 0"),
    (ROUTE + "    ‸deadband: {field: payload.t}", "'delta' is missing"),
    (ROUTE + '    address: "{lower(‸qos)}"', "qos is a number, not text"),
    (ROUTE + "    address: \"{line}{‸replace(topic, '/')}\"", "wants 3 arguments"),
    (ROUTE + "    body: '{{\"t\": {payload.t ‸!}}}'", "unknown operator '!'"),
    (ROUTE + "    headers: {t: '{‸paylod.t}'}", "routes.r.headers.t: unknown field 'paylod.t'; did you mean"),
    (ROUTE + "    headers: {‸topic: x}", "a header cannot be named 'topic'"),
    (ROUTE + "    headers: {‸CC: x}", "a header cannot be named 'CC'"),
    (ROUTE + "    headers: {‸a b: x}", "1 to 128 letters, digits and signs"),
    (ROUTE + "    headers: {a: ‸5}", "must be text; write it in quotes: '5'"),
    (ROUTE + "    headers: ‸[a]", "must have keys and values"),
    (ROUTE + "    envelope: ‸jsn", "must be 'none' or 'json'; did you mean 'json'?"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸a/{payload}"), "a level cannot be named 'payload'"),
    (ROUTE.replace("from: a/{line}/#", "from: ‸a/{not}"), "a word of the language"),
    (ROUTE.replace("    from", "    ‸from") + "    envelope: json\n    body: x", "only one of them can"),
    (ROUTE + "    pack: ‸ndjsn", "did you mean 'ndjson'?"),
    (ROUTE + "    pack: ndjson\n    compress: ‸gzip", "must be 'zlib' or 'zstd'"),
    (ROUTE.replace("    from", "    ‸from") + "    compress: zlib", "only packs are compressed; add 'pack"),
    (ROUTE.replace("    from", "    ‸from") + "    envelope: json\n    pack: json", "leave envelope out"),
    (ROUTE + "    headers: {‸pack: x}", "a header cannot be named 'pack'"),
    (ROUTE + "    batch: {wait: ‸200}", "routes.r.batch.wait: '200' has no unit; write '200ms' or '200s'"),
    (ROUTE + "    batch: {wait: ‸5min}", "write '5m'"),
    (ROUTE + "    batch: {messages: ‸0}", "must be at least 1"),
    (ROUTE + "    batch: {‸wiat: 1s}", "allowed are messages, bytes, wait; did you mean 'wait'?"),
    (ROUTE + "    max_age: ‸-1s", "is not a duration"),
    (ROUTE + "    when_full: ‸drop_oldst", "did you mean 'drop_oldest'?"),
    # ---- references ----
    ("version: 1\ngateway: ‸${env:NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE is not set"),
    ("version: 1\ngateway: ‸${HOSTNAME}", "write '${env:HOSTNAME}'"),
    ("version: 1\ngateway: ‸${vault:x}", "unknown source 'vault'"),
    ("version: 1\ngateway: ‸'${env:X'", "'${' without '}'"),
    ("version: 1\ngateway: ‸${file:/no/such/file}", "/no/such/file cannot be read: No such file"),
    ("version: 1\ngateway: ‸${file:relative}", "begins with /"),
    ("version: 1\ngateway: ‸${cred:name}", "there are no credentials here"),
    ("version: 1\ngateway: ‸${cred:../name}", "without a folder"),
    # ---- commands ----
    (COMMANDS + "from: {amqp: {sink: ‸clout, queue: q}}, to: a}", "did you mean 'cloud'?"),
    (COMMANDS + "from: {amqp: {sink: ‸lab, queue: q}}, to: a}", "is no RabbitMQ"),
    (COMMANDS + "from: {amqp: ‸{queue: q}}, to: a}", "write 'sink: NAME'"),
    (COMMANDS + "from: {amqp: ‸{sink: cloud, queue: q, url: amqp://h}}, to: a}", "leave 'url' out"),
    (COMMANDS + "from: {amqp: ‸{queue: q, url: http://h}}, to: a}", "must be amqp://user:"),
    (COMMANDS + "from: {amqp: {sink: cloud, queue: q, prefetch: ‸0}}, to: a}", "must be at least 1"),
    (COMMANDS + "from: ‸{}, to: a}", "needs exactly one of amqp"),
    (COMMANDS + "from: {memory: {}}, to: 'a/{‸topik}'}", "unknown field 'topik'"),
    (COMMANDS + "from: {memory: {}}, to: ‸a/+}", "wildcards"),
    (COMMANDS + "from: {memory: {}}, to: ‸$SYS/x}", "the gateway's own"),
    (COMMANDS + "from: {memory: {}}, to: a, qos: ‸3}", "must be at most 2"),
    (COMMANDS + "from: {memory: {}}, to: a, max_age: ‸10}", "has no unit"),
    (
        "version: 1\ncommands: {c: ‸{from: {zeromq: {connect: tcp://h:1}}, to: a, receipt: device}}",
        "write 'receipt: stored'",
    ),
    ("version: 1\ncommands: {c: ‸{from: {memory: {}}, to: a, qos: 0, receipt: device}}", "write 'qos: 1'"),
    ("version: 1\ncommands: {c: ‸{from: {memory: {}}, to: a, answer_timeout: 9s}}", "'receipt: device'"),
    (COMMANDS + "from: {zeromq: ‸{}}, to: a}", "exactly one of 'bind'"),
    (COMMANDS + "from: {zeromq: ‸{bind: tcp://127.0.0.1:1, window: 9}}, to: a}", "is 'prefetch' here"),
    (COMMANDS + "from: {zeromq: ‸{bind: 'tcp://*:5557'}}, to: a}", "can be reached from outside"),
    (COMMANDS + "from: {zeromq: ‸{connect: tcp://h:1, confirm: none}}, to: a}", "write 'socket: pull' or"),
    (COMMANDS + "from: {zeromq: ‸{connect: tcp://h:1, socket: pull}}, to: a}", "write 'confirm: none'"),
    (COMMANDS + "from: {zeromq: ‸{connect: tcp://h:1, high_water_mark: 9}}, to: a}", "'prefetch' here"),
    (
        COMMANDS + "from: {zeromq: ‸{bind: ipc:///a, confirm: none, socket: pull, subscribe: [a]}}, to: a}",
        "is for 'socket: sub'",
    ),
    (
        COMMANDS + "from: {zeromq: {connect: tcp://h:1, confirm: none, socket: ‸push}}, to: a}",
        "must be 'pull' or 'sub'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("marked", "says"), MISTAKES)
def test_a_mistake_is_pointed_at_and_explained(marked, says, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    before, _, after = marked.partition("‸")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    with pytest.raises(ConfigProblems) as caught:
        loads(before + after, "plant.yaml")
    [problem] = caught.value.problems
    assert says in str(problem)
    assert (problem.line, problem.column) == (line, column)
    assert str(problem).startswith(f"plant.yaml:{line}:{column}")


def test_without_the_library_for_zstd_the_line_to_type_is_named(monkeypatch):
    text = ROUTE + "    pack: json\n    compress: zstd"
    assert loads(text)
    monkeypatch.setitem(sys.modules, "zstandard", None)  # as if it were not installed
    with pytest.raises(ConfigProblems) as caught:
        loads(text)
    assert ":8:15 routes.r.compress: zstd needs a library" in str(caught.value)
    assert "pip install 'edgespool[zstd]'" in str(caught.value)


def test_the_report_shows_the_line_and_a_caret():
    with pytest.raises(ConfigProblems) as caught:
        loads(ROUTE + "    batch: {wait: 200}\n", "plant.yaml")
    assert str(caught.value) == (
        "plant.yaml:7:19 routes.r.batch.wait: '200' has no unit; write '200ms' or '200s'\n"
        "        batch: {wait: 200}\n"
        "                      ^"
    )


def test_the_caret_finds_its_column_in_a_very_long_line():
    with pytest.raises(ConfigProblems) as caught:
        loads("version: 1\nweb: {" + " " * 5000 + "listen: x}", "plant.yaml")
    _, source, caret = str(caught.value).splitlines()
    assert len(source) < 200
    assert source[caret.index("^")] == "x"


def test_all_mistakes_come_in_one_report_in_the_order_of_the_file():
    with pytest.raises(ConfigProblems) as caught:
        loads(
            """\
version: 1
gateway: a/b
store: {max_bytes: 100, max_bytes: 1GiB}
sinks:
  lab: {zeromq: {}}
routes:
  r: {from: "a#", to: lob, batch: {wiat: 1s}, max_age: 7}
  t: {from: "a/{x}", to: lab, address: "{y}"}
listeners: [{mqtt: 0.0.0.0:1883}]
extra: on
"""
        )
    places = [(problem.line, problem.path) for problem in caught.value.problems]
    assert places == [
        (2, "gateway"),
        (3, "store.max_bytes"),
        (3, "store"),
        (5, "sinks.lab.zeromq"),
        (7, "routes.r.from"),
        (7, "routes.r.to"),
        (7, "routes.r.batch"),
        (7, "routes.r.max_age"),
        (8, "routes.t.address"),
        (9, "listeners[0].mqtt"),
        (10, ""),
    ]
