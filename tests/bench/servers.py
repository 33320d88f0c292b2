"""Whom the load is sent to: one class a server, each in a process and a folder of its own.

Ours runs as its user runs it: `edgespool run`, every commit synced to the disk under
the folder, and one route that wants everything and whose far end is down. The others
keep nothing: Mosquitto holds in memory what it holds at all, and with no subscriber
neither has anything to do but answer. That is the comparison we want to stand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, Final

from tests import servers
from tests.bench.load import connect
from tests.servers import free_port

__all__ = [
    "ROOT",
    "SERVERS",
    "Amqtt",
    "Default",
    "Edgespool",
    "EdgespoolUvloop",
    "InMemoryMosquitto",
    "Server",
]

ROOT: Final = Path(__file__).resolve().parents[2]
_READY_POLL_S: Final = 0.005

# One route takes everything, and nobody is there to take it on: what is measured is
# taking responsibility, the worst hour of a gateway.
_CONFIG: Final = """\
version: 1
gateway: bench
listeners:
  - {{mqtt: 127.0.0.1:{mqtt}}}
store: {{path: {state}, max_bytes: 64GiB}}
sinks:
  away: {{zeromq: {{bind: tcp://127.0.0.1:{zeromq}}}}}
routes:
  everything: {{from: "#", to: away}}
web: {{listen: 127.0.0.1:{web}}}
"""


class Server(servers._Server):
    """A server under test. `ready_s` is what it took from its start to its first CONNACK."""

    name: ClassVar[str]
    ready_s: float = 0.0

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here, or None."""
        return None

    def start(self) -> None:
        """Afterwards it answers CONNECT. Asked every few milliseconds, because the wait is a figure too."""
        command, environment = self.command()
        began_s = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while True:
            try:
                connect(self.port, "bench-ready").close()
                break
            except OSError:
                late = time.perf_counter() - began_s > self.START_S
                if late or self._process.poll() is not None:
                    self.kill()
                    raise RuntimeError(
                        f"{self.name} did not start:\n{self.log.read_text()[-4000:]}"
                    ) from None
                time.sleep(_READY_POLL_S)
        self.ready_s = time.perf_counter() - began_s

    def facts(self) -> dict[str, Any]:
        """What else is worth keeping of a round, asked while the server still runs."""
        return {}


class Edgespool(Server):
    """Ours on asyncio, as a plain installation runs."""

    name = "edgespool"
    STATE: Final = "state"
    # An entry of None makes the import fail, so that the loop is asyncio's own.
    _RUN: ClassVar[str] = "import sys; sys.modules['uvloop'] = None; from bridge.cli import main; main()"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._config = folder / "bench.yaml"
        self.state = folder / self.STATE
        self._web = free_port()
        text = _CONFIG.format(mqtt=self.port, zeromq=free_port(), state=self.state, web=self._web)
        self._config.write_text(text, encoding="utf-8")

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", self._RUN, "run", str(self._config)], {"PYTHONPATH": str(ROOT)}

    def facts(self) -> dict[str, Any]:
        """Commits and how long they took, as the gateway itself tells."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}/api/v1/status", timeout=10) as answer:
            store = json.load(answer)["store"]
        commits = store["commits"] or 1
        return {
            "commits": store["commits"],
            "commit_ms": store["commit_ms"],
            "messages_per_commit": store["appended"] / commits,
        }


class EdgespoolUvloop(Edgespool):
    """Ours with the extra `fast`."""

    name = "edgespool uvloop"
    _RUN = "import uvloop; from bridge.cli import main; main()"

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("uvloop") else "uvloop is not installed (extra fast)"


class InMemoryMosquitto(Server, servers.Mosquitto):
    """Mosquitto at its best: nothing kept, nothing limited, nothing logged."""

    name = "mosquitto"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "set_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
            "persistence false\nlog_type none\n",
        )

    @classmethod
    def missing(cls) -> str | None:
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
        return None if shutil.which("mosquitto", path=path) else "mosquitto is missing"


class Amqtt(Server):
    """amqtt in its own environment, with nothing but a listener and leave to come in."""

    name = "amqtt"
    _BINARY: Final = ROOT / ".cache/amqtt-venv/bin/amqtt"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._config = folder / "amqtt.yaml"
        self._config.write_text(
            f"listeners:\n  default: {{type: tcp, bind: '127.0.0.1:{self.port}'}}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}\n",
            encoding="utf-8",
        )

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._BINARY.exists() else "the environment of amqtt is missing; make bench makes it"

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [str(self._BINARY), "-c", str(self._config)], {"PYTHONPATH": ""}

    def stop(self) -> None:
        self.kill()  # it keeps nothing, and takes its time to say goodbye


class Default(Server):
    """Ours without a file: flags only move it to ports and a folder of its own."""

    name = "edgespool"

    def command(self) -> tuple[list[str], dict[str, str]]:
        flags = {
            "--mqtt": f"127.0.0.1:{self.port}",
            "--zeromq": f"tcp://127.0.0.1:{free_port()}",
            "--web": f"127.0.0.1:{free_port()}",
            "--state": str(self.folder / "state"),
        }
        arguments = [word for pair in flags.items() for word in pair]
        return [sys.executable, "-m", "bridge.cli", "run", *arguments], {"PYTHONPATH": str(ROOT)}

    def resident_bytes(self) -> int:
        """What the process holds in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


SERVERS: Final[tuple[type[Server], ...]] = (Edgespool, EdgespoolUvloop, InMemoryMosquitto, Amqtt)
