"""Real gateways for tests: in this process (`running`) and in one of their own (`Gateway`).

The one in this process can be looked into and given a disk that fails; the other
one can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bridge import app
from bridge.config.model import Config
from bridge.sinks.memory import MemorySink
from bridge.store.files import OS_FILES, Files
from tests.servers import free_port

__all__ = ["Gateway", "port_of", "running", "sink_of", "until"]

WAIT_S = 10.0


async def until(what: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """Wait until `what()` is true, and return it; fail when that takes too long."""
    deadline = time.monotonic() + wait_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)
    return found


def configuration(folder: Path, **parts: Any) -> dict[str, Any]:
    """Everything to a far end in memory; `parts` replace whole sections, `routes` among them."""
    return {
        "version": 1,
        "gateway": "plant-7",
        "listeners": [{"mqtt": "127.0.0.1:0"}],
        "store": {"path": str(folder / "spool"), "max_bytes": "16MiB"},
        "sinks": {"cloud": {"memory": {}}},
        "routes": {"all": {"from": "#", "to": "cloud"}},
        "web": "off",
    } | parts


@contextlib.asynccontextmanager
async def running(folder: Path, files: Files = OS_FILES, **parts: Any) -> AsyncIterator[app.Gateway]:
    """A gateway in this process."""
    config = Config.model_validate_json(json.dumps(configuration(folder, **parts)))
    gateway = app.Gateway(config, files)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def port_of(gateway: app.Gateway) -> int:
    return int(gateway.listeners[0].address.rpartition(":")[2])


def sink_of(gateway: app.Gateway, name: str = "cloud") -> MemorySink:
    sink = gateway.keepers[name].sink
    assert isinstance(sink, MemorySink)
    return sink


class Gateway:
    """`edgespool run FILE` in a process of its own, on free ports, with its state in `folder`."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.port, self.web = free_port(), free_port()
        self.folder = folder
        self.log = folder / "gateway.log"
        self._config = folder / "gateway.yaml"  # JSON is YAML
        document = {"listeners": [{"mqtt": f"127.0.0.1:{self.port}"}], "web": self._listen()} | parts
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps(configuration(folder, **document)))
        self._process: subprocess.Popen[bytes] | None = None

    def _listen(self) -> dict[str, str]:
        return {"listen": f"127.0.0.1:{self.web}"}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "bridge.cli", "run", str(self._config)]

    def environ(self) -> dict[str, str]:
        """In which environment."""
        return {**os.environ, "EDGESPOOL_LOG": "logfmt"}

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ()
            )

    def start(self) -> None:
        """Afterwards devices can connect."""
        began_at = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        assert self._process is not None
        deadline = time.monotonic() + 30
        while "edgespool is ready" not in (text := self.log.read_text()[began_at:]):
            assert self._process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.02)

    def wait(self, wait_s: float = 10) -> int:
        """Wait until it has ended by itself, or by a signal that the test sent; return the exit code."""
        assert self._process is not None
        code = self._process.wait(wait_s)
        self._process = None
        return code

    def stop(self) -> int:
        """SIGTERM; return the exit code. A stop that takes more than 5 s is a fault."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL, as a crash would. Safe to call again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def status(self) -> dict[str, Any]:
        """The status document."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/api/v1/status", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def rss_most(self) -> int:
        """The most bytes it ever had in memory: what is set aside for a moment counts too."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the kernel does not say")

    def output(self) -> str:
        """Everything it has written to stderr, over all of its lives."""
        return self.log.read_text()
