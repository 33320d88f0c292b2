"""`edgespool tail` against a running gateway: nothing lost, nothing taken too much."""

import json
import signal
import subprocess
import time

import pytest
from paho.mqtt.publish import multiple

from tests import gateway as running
from tests.cli.gateway import COMMAND, edgespool
from tests.servers import free_port


def lines(told):
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def test_given_messages_when_tailed_then_printed_in_order_and_let_go(gateway):
    gateway.publish([f"{n}" for n in range(1000)])
    told = lines(gateway.tail("--count", "1000", "--json"))
    assert [line["payload"] for line in told] == [f"{n}" for n in range(1000)]
    assert len({line["id"] for line in told}) == 1000
    assert told[0] | {"id": "", "received_at": "", "publisher": ""} == {
        "id": "",
        "topic": "plant/a/7",
        "payload": "0",
        "qos": 1,
        "retain": False,
        "received_at": "",
        "address": "plant/a/7",
        "publisher": "",
        "properties": {},
    }
    deadline = time.monotonic() + 5
    while gateway.status()["routes"]["default"]["backlog_messages"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# What a receiver took of a batch before it left once came again to the next one,
# and crowded out the rest of a counted tail.
@pytest.mark.parametrize(("total", "first"), [(10, 3), (1000, 300), (1000, 999)])
def test_given_a_count_when_tailed_twice_then_the_rest_comes_second(gateway, total, first):
    gateway.publish([f"{n}" for n in range(total)])
    one = lines(gateway.tail("--count", str(first), "--json"))
    two = lines(gateway.tail("--count", str(total - first), "--json"))
    assert [line["payload"] for line in one + two] == [f"{n}" for n in range(total)]


@pytest.fixture
def packing(tmp_path):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = running.Gateway(
        tmp_path,
        sinks={"cloud": {"zeromq": {"bind": endpoint}}},
        routes={"all": {"from": "#", "to": "cloud", "pack": "ndjson", "compress": "zlib"}},
    )
    gateway.start()
    messages = [("plant/a/7", f"{n}", 1, False) for n in range(1000)]
    multiple(messages, "127.0.0.1", gateway.port)
    yield endpoint
    gateway.kill()


@pytest.mark.parametrize("counts", [[1000], [3, 997], [300, 1, 699]])
def test_given_packs_when_tailed_then_as_many_messages_as_were_asked_for(packing, counts):
    told = []
    for count in counts:
        some = lines(edgespool("tail", "--endpoint", packing, "--json", "--count", str(count)))
        assert len(some) == count
        told += some
    assert [line["payload"] for line in told] == [f"{n}" for n in range(1000)]
    assert told[0]["topic"] == told[0]["address"] == "plant/a/7"
    assert told[0]["properties"] == {}


def test_given_a_count_when_tailed_then_never_more(gateway):
    gateway.publish([f"{n}" for n in range(1000)])
    for count in (1, 255, 257, 300):
        assert len(lines(gateway.tail("--count", str(count), "--json"))) == count
    status = gateway.status()["routes"]["default"]
    assert status["backlog_messages"] > 0


def test_given_hostile_bytes_when_tailed_then_a_terminal_is_safe(gateway):
    gateway.publish([b"\x1b[2J\n", b"\xff\x00"], topic="plant/\x7f\u202e")
    told = gateway.tail("--count", "2")
    assert told.returncode == 0
    assert len(told.stdout.splitlines()) == 2
    assert all(line.isprintable() for line in told.stdout.splitlines())
    assert r"\x1b[2J\n" in told.stdout
    assert "0xff00" in told.stdout


def test_given_nobody_when_tailed_then_a_hint_and_a_clean_end():
    with subprocess.Popen(
        [*COMMAND, "tail", "--endpoint", "tcp://127.0.0.1:9"], stderr=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stderr is not None
        assert "nobody at tcp://127.0.0.1:9 yet" in tail.stderr.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(5) == 0
        assert tail.stderr.read() == ""


def test_given_a_wrong_endpoint_when_tailed_then_one_line():
    told = edgespool("tail", "--endpoint", "nonsense")
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_a_reader_that_is_stuck_when_signalled_then_gone_and_nothing_is_lost(gateway, number):
    payloads = [f"{n:01000}" for n in range(300)]  # more than a pipe holds
    gateway.publish(payloads)
    command = [*COMMAND, "tail", "--endpoint", gateway.endpoint, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        time.sleep(0.2)  # no fact to wait for: the pipe is full when nothing moves any more
        tail.send_signal(number)
        assert tail.wait(5) == 0
    left = gateway.status()["routes"]["default"]["backlog_messages"]
    assert left, "the pipe took everything, so nothing was stuck"
    told = lines(gateway.tail("--count", str(left), "--json"))
    assert [line["payload"] for line in told] == payloads[-left:]


def test_given_a_reader_that_leaves_when_tailed_then_no_complaint(gateway):
    gateway.publish([f"{n:01000}" for n in range(300)])
    command = [*COMMAND, "tail", "--endpoint", gateway.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(10) == 0
        assert tail.stderr is not None
        assert tail.stderr.read() == ""
