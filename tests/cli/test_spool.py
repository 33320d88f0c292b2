"""`edgespool spool`: what lies in a store, told to a person, to a program and to a script."""

import json
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.cli.when import parse_moment
from bridge.forward.letters import DeadLetter
from bridge.message import Message, Properties
from bridge.store import Reader, Spool
from tests.cli.gateway import edgespool
from tests.store.test_look import everything_in, flip

NOW_NS = time.time_ns()
HOUR_NS = 3600 * 10**9


def message(number, topic="plant/a/temperature", hours_ago=0.0, **more):
    received_ns = NOW_NS - round(hours_ago * HOUR_NS)
    return Message(topic, str(number).encode(), 1, False, "press-1", received_ns, **more)


class Store:
    """A stopped store with its configuration: `telemetry` has still to deliver 3 of 6 messages."""

    def __init__(self, folder):
        self.folder = folder / "store"
        self.config = folder / "plant.yaml"
        document = {
            "version": 1,
            "gateway": "plant-7",
            "store": {"path": str(self.folder), "max_bytes": "16MiB"},
            "sinks": {"cloud": {"memory": {}}},
            "routes": {
                "telemetry": {"from": "plant/{line}/temperature", "to": "cloud", "address": "t.{line}"},
                "alarms": {"from": "+/+/alarm", "to": "cloud"},
            },
        }
        self.config.write_text(json.dumps(document))

    async def fill(self):
        spool = Spool.open(str(self.folder), 1 << 20)
        uplink = spool.uplink
        telemetry = uplink.cursor("telemetry")
        uplink.cursor("alarms")
        for number in range(3):
            uplink.append(message(number, hours_ago=5 - number))
        assert await spool.committer.flush() is None
        telemetry.save(uplink.durable)
        properties = Properties(
            content_type="text/plain", correlation_data=b"\xff\0", user_properties=(("k", "v"), ("k", "w"))
        )
        uplink.extend(
            [
                message(3, hours_ago=2, properties=properties),
                Message("plant/b/alarm", b"\xff\0", 2, True, "press-2", NOW_NS - HOUR_NS),
                message(5, "plant/b/temperature"),
                message(6, "plant/\x1b[31m/temperature"),
            ]
        )
        letter = DeadLetter("plant-7/0000abcd/9", "telemetry", "cloud", "too large", NOW_NS)
        spool.dead.append(message(9, "plant/a/big"), msgspec.json.encode(letter))
        assert await spool.committer.flush() is None
        self.epoch = uplink.epoch
        await spool.close()
        return self

    def run(self, command, *flags, config=True):
        named = [str(self.config)] if config else ["--state", str(self.folder)]
        return CliRunner().invoke(app, ["spool", command, *named, *flags])

    def exported(self, *flags):
        result = self.run("export", *flags)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def numbers(self, *flags):
        return [one.get("payload", "binary") for one in self.exported(*flags)]


@pytest.fixture
async def store(tmp_path):
    return await Store(tmp_path).fill()


async def test_info_counts_what_each_route_has_still_to_deliver(store):
    shown = store.run("info").stdout
    assert "damage   none" in shown
    rows = {line.split()[0]: line.split()[1] for line in shown.splitlines() if line}
    assert (rows["telemetry"], rows["alarms"]) == ("3", "1")
    info = json.loads(store.run("info", "--json").stdout)
    assert {name: route["messages"] for name, route in info["routes"].items()} == {
        "telemetry": 3,
        "alarms": 1,
    }
    assert info["routes"]["telemetry"]["oldest"] == store.exported("--route", "telemetry")[0]["received_at"]
    assert [log["messages"] for log in info["logs"].values()] == [7, 0, 1]
    assert info["logs"]["uplink"]["segments"][0]["first_sequence"] == 1


async def test_without_the_configuration_a_backlog_is_an_upper_bound_and_says_so(store):
    shown = store.run("info", config=False).stdout
    assert "≤ 4" in shown
    assert "≤ 7" in shown
    assert "name that" in shown
    result = store.run("cat", "--route", "telemetry", config=False)
    assert len(result.stdout.splitlines()) == 4
    assert "was not named" in result.stderr


async def test_cat_prints_a_message_a_line_and_nothing_that_moves_a_cursor_on_a_terminal(store):
    lines = store.run("cat").stdout.splitlines()
    assert len(lines) == 7
    assert lines[0].endswith(f"Z  plant/a/temperature  0  (plant-7/{store.epoch:08x}/1)")
    assert "0xff00" in lines[4]
    assert "plant/\\x1b[31m/temperature" in lines[6]


async def test_by_route_only_what_it_has_still_to_deliver_or_all_that_is_kept(store):
    assert store.numbers() == ["0", "1", "2", "3", "binary", "5", "6"]
    assert store.numbers("--route", "telemetry") == ["3", "5", "6"]
    assert store.numbers("--route", "telemetry", "--all") == ["0", "1", "2", "3", "5", "6"]
    assert store.numbers("--route", "alarms") == ["binary"]


async def test_by_topic_and_by_time(store):
    assert store.numbers("--topic", "plant/b/#") == ["binary", "5"]
    assert store.numbers("--topic", "+/a/+", "--topic", "+/+/alarm") == ["0", "1", "2", "3", "binary"]
    assert store.numbers("--since", "3.5h", "--until", "1.5h") == ["2", "3"]
    moment = store.exported()[3]["received_at"]
    assert store.numbers("--since", moment)[0] == "3"
    assert store.numbers("--since", "4.5h", "--until", moment[:26] + "Z") == ["1", "2"]


async def test_an_exported_line_has_everything_of_its_message(store):
    exported = store.exported("--route", "telemetry")
    assert exported[0] == {
        "id": f"plant-7/{store.epoch:08x}/4",
        "topic": "plant/a/temperature",
        "qos": 1,
        "retain": False,
        "received_at": exported[0]["received_at"],
        "address": "t.a",
        "publisher": "press-1",
        "payload": "3",
        "properties": {
            "content_type": "text/plain",
            "correlation_data": "/wA=",
            "user_properties": [["k", "v"], ["k", "w"]],
        },
    }
    [binary] = store.exported("--route", "alarms")
    assert (binary["payload_b64"], binary["retain"], binary["publisher"]) == ("/wA=", True, "press-2")
    assert "payload" not in binary


async def test_dead_letters_come_with_the_reason(store):
    [letter] = store.exported("--dead")
    assert (letter["id"], letter["payload"]) == ("plant-7/0000abcd/9", "9")
    assert letter["dead_letter"]["reason"] == "too large"
    assert letter["dead_letter"]["refused_at"].endswith("Z")
    assert "refused by cloud: too large" in store.run("cat", "--dead").stdout


async def test_verify_says_ok_or_lists_what_is_damaged_and_where(store):
    result = store.run("verify")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "8 messages in 2 segments" in result.stdout
    segment = store.folder / "uplink" / f"{0:020d}.seg"
    flip(segment, 128 + 30)
    flip(store.folder / "uplink" / "cursors" / "alarms.cur", 5)
    result = store.run("verify")
    assert result.exit_code == 1
    cursor, record, summary = result.stdout.splitlines()
    assert cursor.startswith("uplink/cursors/alarms.cur: 0-1024 (1,024 bytes): one of its slots")
    assert record.startswith(f"uplink/{segment.name}: 128-")
    assert summary.startswith("damaged: ")
    assert "7 messages" in summary
    assert "2 damaged places" in summary
    assert "`edgespool spool verify` lists them" in store.run("info").stdout
    assert store.numbers() == ["1", "2", "3", "binary", "5", "6"]  # what is damaged is never shown


async def test_what_was_moved_aside_for_a_slow_route_is_counted_shown_and_verified(store):
    spool = Spool.open(str(store.folder), 1 << 20)
    for number in ("f" * 70_000, 7, 8, 9):  # the first does not fit into the segment there
        spool.uplink.append(message(number, "plant/a/filler"))
        assert await spool.committer.flush() is None
    alarms = Reader(spool.uplink, "alarms")
    begin, end = spool.uplink.sealed()[0]
    wanted = [one for one in spool.uplink.read(begin) if one.message.topic.endswith("alarm")]
    alarms.settle(end, alarms.write(*alarms.prepare(end, wanted)))
    spool.uplink.cursor("telemetry").save(end)
    spool.uplink.trim()
    assert spool.uplink.head == end
    await spool.close()
    info = json.loads(store.run("info", "--json").stdout)
    assert {name: route["messages"] for name, route in info["routes"].items()} == {
        "telemetry": 0,
        "alarms": 1,
    }
    assert info["logs"]["uplink"]["aside_bytes"] > 128
    assert "moved aside" in store.run("info").stdout
    assert store.numbers("--route", "alarms") == ["binary"]
    assert [payload[:6] for payload in store.numbers()] == ["binary", "ffffff", "7", "8", "9"]
    assert store.run("verify").exit_code == 0
    [path] = store.folder.glob("uplink/aside/alarms/*.mvd")
    flip(path, 128 + 40)
    result = store.run("verify")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"uplink/aside/alarms/{path.name}: 128-")
    assert len(store.numbers()) == 4


async def test_files_that_wait_to_be_used_again_are_shown_and_are_no_damage(store):
    spool = Spool.open(str(store.folder), 1 << 20)
    for number in range(3):
        spool.uplink.append(message(str(number) * 50_000, "plant/a/filler"))
        assert await spool.committer.flush() is None
    for cursor in ("telemetry", "alarms"):
        spool.uplink.cursor(cursor).save(spool.uplink.durable)
    spool.uplink.trim()
    await spool.close()
    [spare, _] = store.folder.glob("uplink/*.spare")
    uplink = json.loads(store.run("info", "--json").stdout)["logs"]["uplink"]
    assert uplink["spare_files"] == 2
    assert uplink["spare_bytes"] > 100_000
    assert "in files that hold nothing any more" in store.run("info").stdout
    flip(spare, 1000)
    result = store.run("verify")
    assert (result.exit_code, "no damage" in result.stdout) == (0, True)


async def test_nothing_in_the_store_changes_whatever_is_asked(store):
    flip(store.folder / "uplink" / f"{0:020d}.seg", 128 + 30)
    before = everything_in(store.folder)
    for command in ("info", "verify", "cat", "export"):
        store.run(command)
        store.run(command, config=False)
    assert everything_in(store.folder) == before


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--route", "telemetri"], "there is no route 'telemetri'; there are alarms, telemetry"),
        (["--topic", "a/#/b"], "# must be the whole of the last level"),
        (["--since", "yesterday"], "such as '2026-03-01T06:00:00Z'"),
        (["--until", "2026-03-01T06:00:00"], "has no time zone; write '2026-03-01T06:00:00Z'"),
        (["--since", "2"], "has no unit; write '2ms' or '2s'"),
    ],
)
async def test_a_question_that_makes_no_sense_is_answered_with_what_to_ask(store, flags, says):
    result = store.run("cat", *flags)
    assert result.exit_code in (1, 2)
    assert says in " ".join(result.stderr.replace("│", " ").split())


def test_a_folder_without_a_store(tmp_path):
    result = CliRunner().invoke(app, ["spool", "info", "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert f"there is no store in {tmp_path}" in result.stderr
    assert not list(tmp_path.iterdir())


async def test_a_newer_format_is_refused_with_what_to_do(store):
    path = store.folder / "uplink" / f"{0:020d}.seg"
    content = bytearray(path.read_bytes())
    content[8] = content[72] = 9
    path.write_bytes(content)
    for command in ("info", "verify", "cat", "export"):
        result = store.run(command)
        assert result.exit_code == 1
        assert "store format 9, and this edgespool knows only 2" in result.stderr


def test_a_moment_is_how_long_ago_or_when():
    assert parse_moment("2h", 10**18) == 10**18 - 2 * HOUR_NS
    assert parse_moment("1970-01-01T00:00:01Z", 0) == 10**9
    assert parse_moment("1970-01-01T01:00:00.5+01:00", 0) == 5 * 10**8


def test_beside_a_running_gateway_its_ids_and_its_backlog_are_seen(gateway, tmp_path):
    gateway.publish(["21.5", "21.7"])
    sent = [json.loads(line) for line in gateway.tail("--json", "--count", "1").stdout.splitlines()]
    store = str(tmp_path / "state")
    exported = edgespool("spool", "export", "--state", store)
    ids = [json.loads(line)["id"] for line in exported.stdout.splitlines()]
    assert ids[0] == sent[0]["id"]
    assert len(ids) == 2
    assert "21.7" in edgespool("spool", "cat", "--state", store, "--route", "default").stdout
    assert edgespool("spool", "verify", "--state", store).returncode == 0
    gateway.publish(["21.9"])  # it is none the worse for it
    assert Path(store, "lock").exists()
