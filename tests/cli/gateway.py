"""A gateway in a process of its own, started the way its user starts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request

from paho.mqtt.publish import multiple

from tests.servers import free_port

COMMAND = (sys.executable, "-m", "bridge.cli")


def edgespool(*args: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, **more)


class Gateway:
    """`edgespool run` with every flag, on free ports."""

    def __init__(self, state) -> None:
        self.mqtt, self.zeromq, self.web = free_port(), free_port(), free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.zeromq}"
        self.flags = (
            "--mqtt", f"127.0.0.1:{self.mqtt}",
            "--zeromq", self.endpoint,
            "--web", f"127.0.0.1:{self.web}",
            "--state", str(state),
        )  # fmt: skip
        self.banner: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([*COMMAND, "run", *self.flags], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.banner.append(line.rstrip())
            if line.startswith("  status"):
                return
        raise AssertionError("\n".join(self.banner))

    def stop(self) -> tuple[int, str]:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=5)
        return self.process.returncode, rest

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.communicate()

    def publish(self, payloads, topic="plant/a/7") -> None:
        multiple([(topic, payload, 1, False) for payload in payloads], "127.0.0.1", self.mqtt)

    def tail(self, *args: str) -> subprocess.CompletedProcess[str]:
        return edgespool("tail", "--endpoint", self.endpoint, *args)

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/api/v1/status", timeout=5) as answer:
            return json.load(answer)
