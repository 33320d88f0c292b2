"""The two ends of a drain: a bare publisher that fills RabbitMQ, and devices that fill the gateway.

Both do almost no work a message, so that what is measured is the server behind them.
The bare publisher has its frames ready, the very frames that our sink would make, and
reads confirms by their size: nothing but a `basic.ack` comes on its channel.

    fill    count messages into a queue, persistent and confirmed, `window` of them unconfirmed
    feed    count messages with QoS 1, as fast as they are acknowledged or at a rate

Run as a module it takes its arguments as JSON and prints the seconds it took.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from typing import Any, Final

import pika

from bridge.message import Message
from bridge.sinks.amqp_wire import publish_frames
from bridge.sinks.base import Outgoing
from tests.bench.load import Line

__all__ = ["PAYLOAD_BYTES", "Worker", "feed", "fill"]

PAYLOAD_BYTES: Final = 128
WINDOW: Final = 2_000
_RING: Final = 500
_ACK_BYTES: Final = 21  # frame header, class and method, tag, multiple, frame end
_TICK_S: Final = 0.01


class Worker:
    """One of the two in a process of its own, so that it has a core of its own if there is one."""

    def __init__(self, what: str, **arguments: Any) -> None:
        command = [sys.executable, "-m", "tests.bench.uplink", what, json.dumps(arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait(self, wait_s: float = 900) -> float:
        """Return how many seconds it took."""
        said, _ = self._process.communicate(timeout=wait_s)
        assert self._process.returncode == 0, said
        return float(said)

    def end(self) -> None:
        """Safe at any time."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


def fill(port: int, queue: str, count: int) -> float:
    """Publish and wait for the last confirm; return the seconds between the first byte and that."""
    url = f"amqp://guest:guest@127.0.0.1:{port}/%2F?heartbeat=0"
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    line: socket.socket = connection._impl._transport._sock
    line.setblocking(True)
    ring = [b"".join(_frames(queue, number)) for number in range(_RING)]
    whole = memoryview(b"".join(ring * 2))
    size = len(ring[0])
    assert {len(one) for one in ring} == {size}
    began = time.perf_counter()
    sent = confirmed = at = 0
    odd = b""
    early: set[int] = set()
    while confirmed < count:
        while (share := min(count - sent, WINDOW - (sent - confirmed), _RING)) > 0:
            line.sendall(whole[at * size : (at + share) * size])
            at = (at + share) % _RING
            sent += share
        odd += line.recv(65_536)
        whole_acks = len(odd) // _ACK_BYTES * _ACK_BYTES
        for ack_at in range(0, whole_acks, _ACK_BYTES):
            assert odd[ack_at + 7 : ack_at + 11] == b"\x00\x3c\x00\x50", "not a basic.ack"
            tag = int.from_bytes(odd[ack_at + 11 : ack_at + 19])
            if odd[ack_at + 19]:
                confirmed = max(confirmed, tag)
            else:
                early.add(tag)
        odd = odd[whole_acks:]
        while confirmed + 1 in early:
            confirmed += 1
            early.discard(confirmed)
    took_s = time.perf_counter() - began
    line.close()
    return took_s


def _frames(queue: str, number: int) -> list[bytes]:
    topic = f"bench/{number % 10}"
    message = Message(topic, b"x" * PAYLOAD_BYTES, 1, False, f"bench-{number % 10}", time.time_ns())
    return publish_frames(Outgoing(f"plant-7/00000000/{1_000_000 + number}", queue, message), "", 131_072)


def feed(port: int, count: int, rate: float = 0.0) -> float:
    """Publish `count` messages from ten devices; return how many seconds passed until the last PUBACK."""
    lines = [Line(port, number, 1, 20, PAYLOAD_BYTES) for number in range(10)]
    began = time.perf_counter()
    if rate:
        _paced(lines, count, rate)
    else:
        poll = select.epoll()
        by_fd = {line.socket.fileno(): line for line in lines}
        for fd, line in by_fd.items():
            poll.register(fd, select.EPOLLIN)
            line.begin()
        acknowledged = 0
        while acknowledged < count:
            for fd, events in poll.poll(30):
                line = by_fd[fd]
                acknowledged += line.ready(events)
                poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if line.stuck else 0))
    took_s = time.perf_counter() - began
    for line in lines:
        line.socket.close()
    return took_s


def _paced(lines: list[Line], count: int, rate: float) -> None:
    """A share of the rate every hundredth of a second, each time from another device."""
    for line in lines:
        line.socket.setblocking(True)
        line.socket.settimeout(30)
    began, sent, turn = time.perf_counter(), 0, 0
    while sent < count:
        share = min(count, int((time.perf_counter() - began) * rate) + 1) - sent
        while share > 0:
            line, turn = lines[turn % len(lines)], turn + 1
            run = min(share, line.units_ahead)
            line.socket.sendall(line._units(run))
            answered = b""
            while len(answered) < 4 * run:
                answered += line.socket.recv(65_536)
            sent += run
            share -= run
        time.sleep(_TICK_S)


if __name__ == "__main__":
    work = {"fill": fill, "feed": feed}[sys.argv[1]]
    print(work(**json.loads(sys.argv[2])))
