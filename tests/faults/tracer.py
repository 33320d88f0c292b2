"""strace as a saboteur: a system call of a running gateway fails, or kills it, at an exact place."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType

from tests.servers import binary

__all__ = ["Tampered", "killing"]


def killing(call: str, when: int) -> list[str]:
    """What to put in front of a command so that its `when`-th `call` is its end.

    The tracer is a grandchild, so the process that was started is the command itself.
    """
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]
    return [binary("strace"), "-D", "-f", "-o", os.devnull, *inject]


class Tampered:
    """While inside, `call` of the process does as `how` says, such as `error=EIO:when=3`.

    strace counts the calls of each thread by itself.
    """

    def __init__(self, pid: int, call: str, how: str) -> None:
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:{how}"]
        self._command = [binary("strace"), "-f", "-p", str(pid), "-o", os.devnull, *inject]

    def __enter__(self) -> Tampered:
        self._tracer = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._tracer.stderr is not None
        told = self._tracer.stderr.readline()
        assert "attached" in told, told
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracer.terminate()
        self._tracer.communicate(timeout=10)
