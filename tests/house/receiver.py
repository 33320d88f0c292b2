"""The far end: our own deploy/receivers/receiver.py, in a process that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["RECEIVER", "FarEnd"]

RECEIVER = Path(__file__).parents[2] / "deploy" / "receivers" / "receiver.py"


class FarEnd:
    """A receiver that writes what it answers for to a file; each of its lives has a file of its own."""

    before: tuple[str, ...] = ()  # words that make it run somewhere else

    def __init__(self, folder: Path, endpoint: str, *options: str) -> None:
        self.endpoint = endpoint
        self._folder = folder
        self._options = options
        self._lives: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def up(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """It connects, or binds, as soon as it can."""
        self._lives.append(self._folder / f"{len(self._lives)}.jsonl")
        command = [*self.before, sys.executable, str(RECEIVER), self.endpoint, str(self._lives[-1])]
        self._process = subprocess.Popen([*command, *self._options], stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL. Safe to call again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def received(self) -> list[dict[str, str]]:
        """What it has written over all its lives, in order; what a kill cut off was not answered for."""
        lines: list[str] = []
        for life in self._lives:
            if life.exists():
                lines += life.read_text("utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def wait_for(self, wanted: set[str], wait_s: float = 30) -> set[str]:
        """Wait until all of these payloads have arrived; return those that have not in time."""
        deadline = time.monotonic() + wait_s
        while missing := wanted - {one["payload"] for one in self.received()}:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return missing
