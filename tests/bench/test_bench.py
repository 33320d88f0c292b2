"""The benchmark itself: it must run, and must not flatter."""

import json
import socket
import threading

import pytest

from tests.bench.__main__ import main
from tests.bench.load import Line
from tests.bench.loads import LOADS
from tests.bench.servers import SERVERS, EdgespoolUvloop
from tests.servers import missing


@pytest.mark.timeout(180)
def test_a_quick_run_has_every_figure_and_nothing_acknowledged_is_missing(tmp_path, capsys):
    for kind in SERVERS:
        # uvloop is an extra: whoever did not ask for it misses a line of the table.
        if kind is not EdgespoolUvloop and (why := kind.missing()):
            missing(why)
    path = tmp_path / "bench.json"
    assert main(["--quick", "--json", str(path)]) == 0
    quick = json.loads(path.read_text())
    assert set(quick["loads"]) == {load.name for load in LOADS}
    for found in quick["loads"].values():
        assert "edgespool" in found["servers"]
        for server in found["servers"].values():
            assert server["messages_per_s"]["median"] > 0
            assert server["cpu_us"]["median"] > 0
            assert server["slowest_line"]["min"] > 0, "a connection that was starved"
            assert 0 < server["generator_cpu"]["median"] < 1.05
    ingest = quick["loads"]["qos1_50x20"]
    assert {"edgespool / mosquitto", "edgespool / amqtt"} <= set(ingest["ratios"])
    # What is on the disk has at least the payload; less would mean that it is not there.
    assert ingest["servers"]["edgespool"]["disk_bytes"]["median"] > 128
    assert quick["idle"]["resident_bytes"]["median"] > 1 << 20
    assert quick["idle"]["ready_s"]["median"] > 0.05
    durable = quick["durable"]
    assert durable["acknowledged"] > 0
    assert durable["missing"] == 0
    assert durable["stored"] >= durable["acknowledged"]
    *table, last = capsys.readouterr().out.splitlines()
    assert last == f"figures: {path}"
    assert max(map(len, table)) <= 100


def answering(*answers):
    """A server of one connection that lets it in and then sends `answers`, one for each read."""
    listener = socket.create_server(("127.0.0.1", 0))
    read = []

    def serve():
        line, _ = listener.accept()
        with line:
            read.append(line.recv(65536))
            line.sendall(b"\x20\x02\0\0")
            for answer in answers:
                read.append(line.recv(65536))
                line.sendall(answer)
            read.append(line.recv(65536))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], read, thread


def play(qos, *answers):
    """What a Line of window 2 counted, and what the server had read from it."""
    port, read, thread = answering(*answers)
    line = Line(port, 7, qos, 2, 3)
    line.socket.setblocking(True)
    line.begin()
    try:
        counted = [line.ready(1) for _ in answers]
    finally:
        line.socket.close()
    thread.join(10)
    return counted, read[1:]


def publish(qos, packet_id):
    head = bytes((0x30 | qos << 1,)) + (b"\x0e" if qos else b"\x0c") + b"\0\x07bench/7"
    return head + (packet_id.to_bytes(2) if qos else b"") + b"xxx"


def test_with_qos_1_as_many_follow_as_were_acknowledged():
    counted, read = play(1, b"\x40\x02\0\x01", b"\x40\x02\0\x02\x40\x02\0\x03")
    assert counted == [1, 2]
    assert read == [
        publish(1, 1) + publish(1, 2),
        publish(1, 3),
        publish(1, 4) + publish(1, 5),
    ]


def test_with_qos_2_a_message_counts_when_it_is_complete():
    counted, read = play(2, b"\x50\x02\0\x01\x50\x02\0\x02", b"\x70\x02\0\x01")
    assert counted == [0, 1]
    assert read == [publish(2, 1) + publish(2, 2), b"\x62\x02\0\x01\x62\x02\0\x02", publish(2, 3)]


def test_with_qos_0_a_run_counts_when_its_pingresp_has_come():
    counted, read = play(0, b"\xd0\0")
    run = publish(0, 0) * 2 + b"\xc0\0"
    assert counted == [2]
    assert read == [run * 4, run]


@pytest.mark.parametrize("answer", [b"\x40\x03\0\x01\x87\0", b"\xe0\x02\x97\0", b"\x50\x02\0\x01"])
def test_anything_but_an_acknowledgement_ends_the_run(answer):
    with pytest.raises(ValueError, match="not an acknowledgement"):
        play(1, answer + b"\0" * (-len(answer) % 4))
