"""`edgespool dlq`: dead letters looked at, sent again, dropped: gateways that stand, run and are killed."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from base64 import b64decode
from importlib import import_module

import msgspec
import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.forward.letters import DeadLetter, Letters, Selection
from bridge.forward.orders import LetterOrder, letter_desk
from bridge.message import Message, Properties
from bridge.sinks.receiver import Receiver
from bridge.store import Entry, Spool
from bridge.store.look import StoreLook
from tests.gateway import Gateway, configuration, port_of, running, sink_of, until
from tests.servers import free_port

NOW_NS = 1_772_344_800_012_345_678
ESCAPE = "plant/\x1b[31m/\u202e"
REPLAY = import_module("bridge.cli.replay")


async def bury(folder, letters):
    """Letters into the store of a stopped gateway."""
    spool = Spool.open(str(folder / "spool"), 16 << 20)
    desk = Letters(spool)
    for message, letter in letters:
        desk.bury(Entry(0, 4096, 1, message), letter)
    assert await spool.committer.flush() is None
    await spool.close()


def letter(number, route="all", reason="too large", **more):
    return DeadLetter(f"plant-7/0000abcd/{number}", route, "cloud", reason, NOW_NS, 3, **more)


def sample():
    properties = Properties(content_type="text/plain", user_properties=(("k", "v\x1b[2J"),))
    return [
        (Message("plant/a", b"21.5", 1, False, "press-1", NOW_NS), letter(1)),
        (
            Message(ESCAPE, b"\xff\x00bin", 2, True, "press-\x1b", NOW_NS, properties),
            letter(2, "gone", "no\x1b[2J"),
        ),
        (
            Message("plant/b", b"line 1\nline 2\x1b[31m", 0, received_ns=NOW_NS),
            letter(3, reason="no queue 'b'"),
        ),
        (Message("plant/c", b"\xe4" * 3000, 0, False, "", NOW_NS), letter(4, reason="no queue 'c'")),
    ]


@pytest.fixture
async def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.forward.clerk.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(REPLAY, "POLL_S", 0.01)
    (tmp_path / "plant.yaml").write_text(json.dumps(configuration(tmp_path)))
    await bury(tmp_path, sample())
    return tmp_path


def run(folder, command, *flags):
    first = [flags[0]] if command == "show" else []
    flags = flags[1:] if command == "show" else flags
    return CliRunner().invoke(app, ["dlq", command, *first, str(folder / "plant.yaml"), *flags])


async def dlq(folder, command, *flags):
    result = await asyncio.to_thread(run, folder, command, *flags)
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    return result


async def left(folder, *flags):
    lines = (await dlq(folder, "export", *flags)).stdout.splitlines()
    return [int(json.loads(line)["id"].rpartition("/")[2]) for line in lines]


# ---- a look ----------------------------------------------------------------------------


async def test_list_has_a_line_for_each_and_counts_them_by_route_and_reason(folder):
    told = (await dlq(folder, "list")).stdout
    lines = told.splitlines()
    assert lines[0] == (
        "2026-03-01T06:00:00Z  plant-7/0000abcd/1  all to cloud, 3 tries  plant/a  (too large)"
    )
    assert len(lines) == 4 + 2 + 3
    assert lines[5].split() == ["ROUTE", "LETTERS", "REASON"]
    assert lines[6].split() == ["all", "2", "no", "queue", "'…'"]
    assert told.replace("\n", "").isprintable(), "no control character reaches a terminal"
    assert "plant/\\x1b[31m/\\u202e" in told
    assert "(no\\x1b[2J)" in told


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ([], [1, 2, 3, 4]),
        (["--route", "gone"], [2]),
        (["--reason", "NO QUEUE"], [3, 4]),
        (["--reason", "no queue", "--id", "4"], [4]),
        (["--id", "plant-7/0000abcd/1", "--id", "3"], [1, 3]),
        (["--route", "never"], []),
    ],
)
async def test_letters_are_chosen_by_route_reason_and_id(folder, flags, numbers):
    assert await left(folder, *flags) == numbers
    listed = (await dlq(folder, "list", *flags)).stdout
    assert listed.count("plant-7/0000abcd/") == len(numbers)
    assert numbers or listed == "no dead letters\n"


async def test_show_prints_everything_about_one_for_a_person(folder):
    told = (await dlq(folder, "show", "plant-7/0000abcd/1")).stdout
    facts = ["reason    too large", "cloud, after 3 tries", "route     all\n", "topic     plant/a"]
    facts += ["address   plant/a", "publisher press-1", "qos       1\n", "payload   4 bytes\n    21.5\n"]
    for fact in facts:
        assert fact in told
    told = (await dlq(folder, "show", "2")).stdout
    assert told.replace("\n", "").isprintable()
    assert "000000  ff 00 62 69 6e" in told
    assert "content_type text/plain" in told
    assert "gone, which does not take it any more" in told
    assert "    line 1\n    line 2" not in (await dlq(folder, "show", "3")).stdout, "it has an escape in it"
    assert "dlq export --id plant-7/0000abcd/4 has all of it" in (await dlq(folder, "show", "4")).stdout
    result = await dlq(folder, "show", "99")
    assert (result.exit_code, "there is no dead letter '99'" in result.stderr) == (1, True)


async def test_export_has_the_whole_message_bit_for_bit(folder):
    lines = (await dlq(folder, "export")).stdout.splitlines()
    assert all(line.isascii() for line in lines)
    told = [json.loads(line) for line in lines]
    for one, (message, note) in zip(told, sample(), strict=True):
        payload = b64decode(one["payload_b64"]) if "payload_b64" in one else one["payload"].encode()
        assert (payload, one["topic"], one["qos"]) == (message.payload, message.topic, message.qos)
        assert (one["id"], one["publisher"]) == (note.id, message.publisher)
        assert one["dead_letter"]["reason"] == note.reason
        assert one["dead_letter"]["tries"] == 3
    assert told[1]["properties"]["user_properties"] == [["k", "v\x1b[2J"]]
    assert [one.get("address") for one in told] == ["plant/a", None, "plant/b", "plant/c"]


async def test_a_look_changes_nothing(folder):
    def everything():
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in (folder / "spool").rglob("*")
            if path.is_file()
        }

    before = everything()
    for command in (["list"], ["show", "1"], ["export"]):
        assert (await dlq(folder, *command)).exit_code == 0
    assert everything() == before


# ---- on a stopped gateway --------------------------------------------------------------


async def test_on_a_stopped_gateway_letters_are_dropped_at_once_and_for_good(folder):
    result = await dlq(folder, "drop", "--reason", "no queue")
    assert (result.exit_code, result.stdout) == (0, "2 dead letters dropped\n")
    assert await left(folder) == [1, 2]
    exported = CliRunner().invoke(app, ["spool", "export", str(folder / "plant.yaml"), "--dead"])
    assert len(exported.stdout.splitlines()) == 2
    exported = CliRunner().invoke(app, ["spool", "export", str(folder / "plant.yaml"), "--dead", "--all"])
    assert len(exported.stdout.splitlines()) == 4, "they lie there until their segment goes"
    async with running(folder) as gateway:
        await until(lambda: gateway.status().dead_letters == 2)
    assert await left(folder) == [1, 2]


async def test_on_a_stopped_gateway_a_replay_waits_for_the_next_start(folder):
    result = await dlq(folder, "replay", "--route", "all")
    assert (result.exit_code, result.stdout) == (0, "no gateway is running; the letters go when it starts\n")
    assert await left(folder) == [1, 2, 3, 4]
    async with running(folder) as gateway:
        await until(lambda: gateway.letters.waiting == 1)
        assert [each.id[-1] for each in sink_of(gateway).received] == ["1", "3", "4"]
        assert all(each.replayed for each in sink_of(gateway).received)
    assert await left(folder) == [2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_what_root_drops_here_keeps_the_gateway_s_user_in(folder):
    os.chmod(folder, 0o755)
    for path in (folder / "spool", *(folder / "spool").rglob("*")):
        os.chown(path, 65_534, 65_534)
    above = folder
    while above != above.parent:  # pytest's folders are closed to others
        os.chmod(above, os.stat(above).st_mode | 0o755)
        above = above.parent
    command = [sys.executable, "-m", "bridge.cli", "dlq", "drop", str(folder / "plant.yaml"), "--all"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "4 dead letters dropped\n", done.stderr
    owners = {path.stat().st_uid for path in (folder / "spool").rglob("*")}
    assert owners == {65_534}


# ---- on a running one ------------------------------------------------------------------


async def test_a_running_gateway_sends_letters_again_and_drops_them(folder):
    async with running(folder) as gateway:
        await until(lambda: gateway.status().dead_letters == 4)
        status = gateway.status()
        assert status.dead_letters_by_route == {
            "all": {"too large": 1, "no queue '…'": 2},
            "gone": {"no\x1b[2J": 1},
        }
        sink_of(gateway).judge = lambda outgoing: "still too large" if outgoing.id[-1] == "1" else None
        result = await dlq(folder, "replay", "--all")
        assert result.exit_code == 1, "letters stay that were meant"
        assert result.stdout.splitlines() == [
            "2 dead letters sent and confirmed",
            "  refused again, and still there: 1 (still too large)",
            "  their route is gone, and they are still there: 1; name a sink with --to SINK",
        ]
        assert await left(folder) == [1, 2]
        result = await dlq(folder, "replay", "--route", "gone", "--to", "cloud")
        assert (result.exit_code, result.stdout) == (0, "1 dead letter sent and confirmed\n")
        result = await dlq(folder, "drop", "--id", "1")
        assert (result.exit_code, result.stdout) == (0, "1 dead letter dropped\n")
        assert await left(folder) == []
        assert gateway.status().dead_letters == 0
        assert gateway.status().dead_letters_by_route == {}
    result = await dlq(folder, "list")
    assert result.stdout == "no dead letters\n"


async def test_a_sink_that_is_none_is_told(folder):
    async with running(folder):
        result = await dlq(folder, "replay", "--all", "--to", "clowd")
        assert (result.exit_code, "did you mean" in result.stderr) == (1, True)


async def test_ctrl_c_stops_a_replay_and_what_was_sent_is_gone(folder, monkeypatch):
    async with running(folder) as gateway:
        sink_of(gateway).pause()

        def interrupted(self, name):
            raise KeyboardInterrupt

        monkeypatch.setattr("bridge.forward.orders.Desk.outcome", interrupted)
        result = await dlq(folder, "replay", "--all")
        assert (result.exit_code, "stopped" in result.stderr) == (1, True)
        await until(lambda: os.listdir(folder / "spool" / "letters") == [])
        sink_of(gateway).resume()
        assert await left(folder) == [1, 2, 3, 4]


async def test_a_refused_message_comes_into_the_list_and_the_metrics_with_its_tries(folder):
    from paho.mqtt.publish import single

    async with running(folder) as gateway:
        sink_of(gateway).judge = lambda outgoing: "no \x07bell"
        await asyncio.to_thread(
            single, "plant/d", b"\x00\xff", 1, hostname="127.0.0.1", port=port_of(gateway)
        )
        await until(lambda: gateway.status().dead_letters == 5)
        (line,) = (await dlq(folder, "export", "--reason", "bell")).stdout.splitlines()
        told = json.loads(line)
        assert b64decode(told["payload_b64"]) == b"\x00\xff"
        assert told["dead_letter"]["route"] == "all"
        assert told["dead_letter"]["tries"] == 1


@pytest.mark.parametrize("command", ["replay", "drop"])
@pytest.mark.parametrize("flags", [[], ["--all", "--route", "all"]])
async def test_what_changes_something_wants_to_know_what(folder, command, flags):
    result = await dlq(folder, command, *flags)
    assert (result.exit_code, "or write --all" in result.stderr) == (2, True)
    assert await left(folder) == [1, 2, 3, 4]


async def test_where_there_is_no_store_nothing_is_made(tmp_path):
    for command in (["list"], ["drop", "--all"], ["replay", "--all"]):
        result = CliRunner().invoke(app, ["dlq", command[0], "--state", str(tmp_path / "no"), *command[1:]])
        assert (result.exit_code, "there is no store" in result.stderr) == (1, True)
    assert os.listdir(tmp_path) == []


# ---- kill -9 ---------------------------------------------------------------------------

COUNTS = [2_000, pytest.param(10_000, marks=pytest.mark.long)]


class FarEnd:
    """A receiver in a thread that takes everything, a little slowly."""

    def __init__(self, endpoint):
        self.taken: list[tuple[str, bool]] = []
        self._leaving = False
        self._endpoint = endpoint
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with Receiver(self._endpoint, window=400) as receiver:
            while not self._leaving:
                batch = receiver.receive(timeout_s=0.05)
                if batch is not None:
                    # Before the answer: what the gateway settles must be here.
                    self.taken += [(one.id, one.meta.get("replayed", False)) for one in batch]
                    batch.acknowledge()
                    time.sleep(0.01)

    def leave(self):
        self._leaving = True
        self._thread.join()


class Killed:
    """A gateway with dead letters that is killed again and again; `reasons` are given in turn."""

    def __init__(self, folder, count, reasons):
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.gateway = Gateway(
            folder,
            store={"path": str(folder / "spool"), "max_bytes": "64MiB"},
            sinks={"cloud": {"zeromq": {"bind": self.endpoint}}},
            routes={"all": {"from": "#", "to": "cloud", "batch": {"messages": 100}}},
        )
        self.ids = [f"plant-7/0000abcd/{number}" for number in range(count)]
        self._folder, self._reasons = folder, reasons

    async def fill(self):
        spool = Spool.open(str(self._folder / "spool"), 64 << 20)
        letters = Letters(spool)
        for number, id in enumerate(self.ids):
            message = Message(f"plant/{number % 7}", b"%d" % number, 1, received_ns=NOW_NS)
            note = DeadLetter(id, "all", "cloud", self._reasons[number % len(self._reasons)], NOW_NS)
            letters.bury(Entry(0, 200, number, message), note)
        assert await spool.committer.flush() is None
        await spool.close()

    def ask(self, what, reason):
        """As the command does while no gateway runs."""
        desk = letter_desk(str(self._folder / "spool"))
        desk.open()
        desk.ask(LetterOrder(what, Selection(reason=reason)))

    def waiting(self):
        """The ids of the letters that wait, as an outsider sees them."""
        look = StoreLook(str(self._folder / "spool"))
        settled = look.settled()
        return {
            msgspec.json.decode(entry.note)["id"]
            for entry in look.logs["dead"].walk()
            if isinstance(entry, Entry) and not settled(entry)
        }

    async def until_left(self, ids):
        deadline = time.monotonic() + 60
        while self.waiting() != ids:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("count", COUNTS)
async def test_killed_in_the_middle_of_a_replay_no_letter_is_lost_and_none_comes_back(tmp_path, count):
    killed = Killed(tmp_path, count, ["too large", "not this one"])
    await killed.fill()
    meant, others = set(killed.ids[0::2]), set(killed.ids[1::2])
    killed.ask("replay", "too large")
    far = FarEnd(killed.endpoint)
    luck = random.Random(11)
    kills, waiting = 0, set(killed.ids)
    try:
        while waiting != others and kills < 30:
            killed.gateway.start()
            goal = len(far.taken) + luck.randrange(count // 40, count // 10)
            await until(lambda goal=goal: len(far.taken) >= goal or killed.waiting() == others, 30)
            killed.gateway.kill()
            kills += 1
            before, waiting = waiting, killed.waiting()
            assert others <= waiting <= before, "what is gone from the list never comes back"
            assert meant - waiting <= {id for id, _ in far.taken}, "gone from the list, and nobody has it"
        assert kills >= 2
        killed.gateway.start()
        await killed.until_left(others)
        assert {id for id, _ in far.taken} == meant
        assert all(replayed for _, replayed in far.taken)
        assert len(far.taken) <= len(meant) + kills * 200, "only what was under way at a kill came twice"
        await until(lambda: killed.gateway.status()["dead_letters"] == count // 2)
    finally:
        killed.gateway.kill()
        far.leave()


@pytest.mark.parametrize("count", COUNTS)
async def test_killed_in_the_middle_of_drops_every_one_that_was_meant_goes_and_no_other(tmp_path, count):
    rounds = max(1, count // 5_000)
    killed = Killed(tmp_path, count, [f"round {number}" for number in range(rounds + 1)])
    await killed.fill()
    luck = random.Random(12)
    left = set(killed.ids)
    try:
        for number in range(rounds):
            meant = set(killed.ids[number :: rounds + 1])
            killed.ask("drop", f"round {number}")
            for _ in range(3):
                killed.gateway.launch()
                began = time.monotonic()
                wait_s = luck.uniform(0.45, 0.9)
                while time.monotonic() < began + wait_s and killed.waiting() == left:
                    pass  # the sooner after the first is gone, the more likely in the middle
                killed.gateway.kill()
                assert left - meant <= killed.waiting() <= left
            killed.gateway.start()
            await killed.until_left(left - meant)
            killed.gateway.kill()
            left -= meant
            assert killed.waiting() == left
        assert left == set(killed.ids[rounds :: rounds + 1])
    finally:
        killed.gateway.kill()
