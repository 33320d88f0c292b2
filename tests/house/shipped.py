"""A gateway with a configuration that the test did not write: the built-in one, or a file of ours.

Flags move it to free ports, and nothing else about it is changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.gateway import Gateway
from tests.servers import free_port

__all__ = ["Shipped"]


class Shipped(Gateway):
    """`edgespool run [FILE]` in a process of its own.

    `zeromq` is None where the file has no such sink; `before` is put in front of the
    command, and has to become the gateway.
    """

    def __init__(
        self,
        folder: Path,
        file: Path | None = None,
        *,
        zeromq: str | None = "",
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.port, self.web = free_port(), free_port()
        self.endpoint = f"tcp://127.0.0.1:{free_port()}" if zeromq == "" else zeromq
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "gateway.log"
        self.before = before
        self._file = file
        self._environ = environ or {}
        self._process = None
        folder.mkdir(parents=True, exist_ok=True)

    def validate(self) -> None:
        """`edgespool validate FILE` finds nothing to say."""
        command = [sys.executable, "-m", "bridge.cli", "validate", str(self._file)]
        told = subprocess.run(command, env=self.environ(), capture_output=True, text=True, timeout=30)
        assert told.returncode == 0, told.stderr

    def command(self) -> list[str]:
        """What is run."""
        flags = {
            "--mqtt": f"127.0.0.1:{self.port}",
            "--web": f"127.0.0.1:{self.web}",
            "--state": str(self.state),
            "--zeromq": self.endpoint,
        }
        return [
            *self.before, sys.executable, "-m", "bridge.cli", "run",
            *([str(self._file)] if self._file else []),
            *(word for flag, value in flags.items() if value for word in (flag, value)),
        ]  # fmt: skip

    def environ(self) -> dict[str, str]:
        """In which environment."""
        clean = {
            key: value for key, value in os.environ.items() if key not in ("AMQP_URL", "COLLECTOR", "GATEWAY")
        }
        return {**clean, "EDGESPOOL_LOG": "logfmt", **self._environ}
