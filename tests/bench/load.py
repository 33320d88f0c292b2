"""The load generator: one process, one epoll, plain sockets, and almost no work a message.

It must never be what is measured, so every packet is built beforehand:

    ring     K packets (with their identifiers 1 … K) and the first W once more
    take n   ring[at : at + n] is one slice, whatever `at` is; at = (at + n) mod K

Acknowledgements are counted, not read: servers answer the packets of one connection
in order, so n answers mean that the n oldest identifiers are free again. As many
packets follow as were acknowledged. The kind of every answer is checked, because a
refusal counted as a PUBACK would be a wonderful result.

`measure` runs a load and returns the figures between the end of the warm-up and the
end; the server's CPU time and bytes are read at the same two moments. Run as a
module it takes its arguments as JSON and prints its result as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from typing import Any, Final

__all__ = ["Line", "connect", "measure", "server_usage"]

_READ_BYTES: Final = 256 * 1024
_RING_PACKETS: Final = 256
_RUNS_AHEAD: Final = 4  # QoS 0: runs under way on one connection
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PUBACK, PUBREC, PUBREL, PUBCOMP, PINGRESP = 0x40, 0x50, 0x62, 0x70, 0xD0


def _string(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2) + raw


def _packet(first: int, body: bytes) -> bytes:
    length, spelled = len(body), b""
    while length >= 0x80:
        spelled += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return bytes((first,)) + spelled + bytes((length,)) + body


def connect(port: int, client_id: str, timeout_s: float = 30.0) -> socket.socket:
    """Connect, say CONNECT (3.1.1, clean session, no keep alive) and wait for a CONNACK that agrees.

    Raises OSError when there is nobody, or nobody who lets us in.
    """
    line = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    try:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(_packet(0x10, _string("MQTT") + b"\x04\x02\0\0" + _string(client_id)))
        answer = b""
        while len(answer) < 4:
            more = line.recv(4 - len(answer))
            if not more:
                raise ConnectionError("closed before CONNACK")
            answer += more
        if answer != b"\x20\x02\0\0":
            raise ConnectionError(f"CONNACK {answer.hex()}")
    except BaseException:
        line.close()
        raise
    return line


class Line:
    """One connection and what it has sent. A unit is a PUBLISH, or with QoS 0 a run with its PINGREQ."""

    def __init__(self, port: int, nth: int, qos: int, window: int, payload_bytes: int) -> None:
        self.socket = connect(port, f"bench-{nth}")
        self.socket.setblocking(False)
        self.qos = qos
        self.topic = f"bench/{nth}"
        self.units_ahead = window if qos else _RUNS_AHEAD
        self.acknowledged = 0
        head, payload = _string(self.topic), b"x" * payload_bytes
        if qos:
            self.unit_messages = 1
            self._ring_units = max(_RING_PACKETS, window)
            units = [
                _packet(0x30 | qos << 1, head + (at + 1).to_bytes(2) + payload)
                for at in range(self._ring_units)
            ]
        else:
            self.unit_messages = window
            self._ring_units = _RUNS_AHEAD
            units = [_packet(0x30, head + payload) * window + b"\xc0\0"] * self._ring_units
        self._unit_bytes = len(units[0])
        self._ring = memoryview(b"".join(units + units[: self.units_ahead]))
        pubrels = [_packet(PUBREL, (at + 1).to_bytes(2)) for at in range(self._ring_units)]
        self._pubrels = memoryview(b"".join(pubrels + pubrels[: self.units_ahead]))
        self._at = 0
        self._released = 0
        self._odd = b""
        self._unsent = b""

    def begin(self) -> None:
        """Send the first window."""
        self._send(self._units(self.units_ahead))

    def ready(self, events: int) -> int:
        """Take what has come and send as much again; return how many messages were acknowledged.

        Raises ConnectionError when the server has gone, ValueError when it says something else.
        """
        done = 0
        out: list[bytes | memoryview] = []
        if events & ~select.EPOLLOUT:
            with contextlib.suppress(BlockingIOError):
                data = self.socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("closed by the server")
                done = self._count(data, out)
        if done:
            self.acknowledged += done * self.unit_messages
            out.append(self._units(done))
        if out or self._unsent:
            self._send(out[0] if len(out) == 1 else b"".join(out))
        return done * self.unit_messages

    @property
    def stuck(self) -> bool:
        """Whether the socket did not take everything: ask for EPOLLOUT."""
        return bool(self._unsent)

    def _count(self, data: bytes, out: list[bytes | memoryview]) -> int:
        size = 4 if self.qos else 2
        if self._odd:
            data, self._odd = self._odd + data, b""
        if over := len(data) % size:
            data, self._odd = data[:-over], data[-over:]
        kinds = data[::size]
        if self.qos == 2:
            received, done = kinds.count(PUBREC), kinds.count(PUBCOMP)
            if received:
                out.append(self._pubrels[4 * self._released : 4 * (self._released + received)])
                self._released = (self._released + received) % self._ring_units
            known = received + done
        else:
            known = done = kinds.count(PUBACK if self.qos else PINGRESP)
        if known != len(kinds):
            raise ValueError(f"not an acknowledgement: {data[:32].hex()}")
        return done

    def _units(self, count: int) -> memoryview:
        at, self._at = self._at, (self._at + count) % self._ring_units
        return self._ring[at * self._unit_bytes : (at + count) * self._unit_bytes]

    def _send(self, data: bytes | memoryview) -> None:
        if self._unsent:
            data = self._unsent + bytes(data)
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = bytes(data[sent:]) if sent < len(data) else b""


def server_usage(pid: int) -> dict[str, float]:
    """What the process has used so far: CPU seconds of all its threads, bytes to the disk and by `write`."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    usage = {"cpu_s": (int(fields[11]) + int(fields[12])) / _TICKS_PER_S}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/io", encoding="ascii") as io:
        facts = dict(line.split(": ") for line in io.read().splitlines())
        usage |= {"disk_bytes": int(facts["write_bytes"]), "wchar_bytes": int(facts["wchar"])}
    return usage


class _Moment:
    def __init__(self, acknowledged: int, pid: int) -> None:
        self.acknowledged = acknowledged
        self.server = server_usage(pid)
        self.cpu_s = time.process_time()
        self.at_s = time.perf_counter()


def measure(
    port: int,
    pid: int,
    connections: int,
    window: int,
    qos: int,
    payload_bytes: int,
    warm_s: float,
    seconds: float,
    until_closed: bool = False,
) -> dict[str, Any]:
    """Load the server at `port` (process `pid`) and return what happened behind the warm-up.

    With `until_closed` the server is expected to die meanwhile: then only what it had
    acknowledged until then is returned.
    """
    lines = [Line(port, nth, qos, window, payload_bytes) for nth in range(connections)]
    by_fd = {line.socket.fileno(): line for line in lines}
    acknowledged = 0
    still_open = len(lines)
    began = ended = None
    with select.epoll() as epoll:
        for fd, line in by_fd.items():
            line.begin()
            epoll.register(fd, select.EPOLLIN)
        stuck: set[int] = set()
        started_s = time.perf_counter()
        end_s = started_s + warm_s + seconds
        while ended is None:
            for fd, events in epoll.poll(0.1):
                line = by_fd[fd]
                try:
                    acknowledged += line.ready(events)
                except ConnectionError:
                    if not until_closed:
                        raise
                    epoll.unregister(fd)
                    still_open -= 1
                    continue
                if line.stuck != (fd in stuck):
                    stuck ^= {fd}
                    epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if line.stuck else 0))
            now_s = time.perf_counter()
            if until_closed:
                if not still_open or now_s > end_s:
                    break
            elif began is None:
                if now_s >= started_s + warm_s:
                    began = _Moment(acknowledged, pid)
            elif now_s >= end_s:
                ended = _Moment(acknowledged, pid)
    for line in lines:
        line.socket.close()
    by_topic = {line.topic: line.acknowledged for line in lines}
    if began is None or ended is None:
        return {"acknowledged": acknowledged, "by_topic": by_topic}
    messages = ended.acknowledged - began.acknowledged
    took_s = ended.at_s - began.at_s
    per_message = 1 / messages if messages else 0.0

    def each(name: str) -> float | None:
        if name not in ended.server:
            return None
        return (ended.server[name] - began.server[name]) * per_message

    return {
        "messages": messages,
        "seconds": took_s,
        "messages_per_s": messages / took_s,
        "server_cpu": (ended.server["cpu_s"] - began.server["cpu_s"]) / took_s,
        "cpu_us": (each("cpu_s") or 0.0) * 1e6,
        "disk_bytes": each("disk_bytes"),
        "wchar_bytes": each("wchar_bytes"),
        "generator_cpu": (ended.cpu_s - began.cpu_s) / took_s,
        "acknowledged": acknowledged,
        "slowest_line": min(by_topic.values()),
        "fastest_line": max(by_topic.values()),
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
