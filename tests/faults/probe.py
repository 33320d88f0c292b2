"""Asks a broker whether its loop is there: PINGREQ, and the time until PINGRESP.

A process of its own (`python -m tests.faults.probe PORT SECONDS`), so that it measures
the broker and not the loop of the test that puts load on it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

__all__ = ["Probe"]

EVERY_S = 0.02
CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe"


class Probe:
    """Runs for some seconds; `waits_s` waits until it is over."""

    def __init__(self, port: int, seconds: float) -> None:
        command = [sys.executable, "-m", "tests.faults.probe", str(port), str(seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def waits_s(self) -> list[float]:
        """How long each answer took, in seconds."""
        told, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        found: list[float] = json.loads(told)
        return found


def main(port: int, seconds: float) -> None:
    waits_s = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as broker:
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(CONNECT)
        assert broker.recv(4) == b"\x20\x02\x00\x00"
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            broker.sendall(b"\xc0\x00")
            assert broker.recv(2) == b"\xd0\x00"
            waits_s.append(time.monotonic() - began)
            time.sleep(EVERY_S)
    json.dump(waits_s, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
