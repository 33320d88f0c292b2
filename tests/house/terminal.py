"""Terminals for a test that types what a document prints.

A transcript in the README names its terminals in the prompts:

    cloud$ COMMAND      typed into the terminal "cloud"
    cloud^C             Ctrl-C there
    cloud…              what follows is output that appears there later
    anything else       output expected from the terminal last named; … stands for anything

All terminals of one test share a network of their own where the machine lets us
make one, so the literal ports of the document are free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import psutil

PROMPT = "\x01ready\x02"
WAIT_S = 60.0
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_HEAD = re.compile(r"(?P<name>[a-z]+)(?P<what>\$ |\^C|…)(?P<rest>.*)")


def _line_pattern(line: str) -> re.Pattern[str]:
    # A prompt may stand before the first line that a command prints, and nothing behind it.
    return re.compile(re.escape(line).replace("…", ".*") + r"$")


class Network:
    """A loopback interface that nobody else uses; the machine's own where that is not allowed."""

    def __init__(self) -> None:
        self.prefix: list[str] = []
        up = "ip link set lo up && echo up && exec sleep infinity"
        for unshare in (["--net"], ["--net", "--user", "--map-root-user"]):
            with contextlib.suppress(FileNotFoundError):
                holder = subprocess.Popen(["unshare", *unshare, "sh", "-c", up], stdout=subprocess.PIPE)
                assert holder.stdout is not None
                if holder.stdout.readline() == b"up\n":
                    user = ["-U", "--preserve-credentials"] if "--user" in unshare else []
                    self.prefix = ["nsenter", "-t", str(holder.pid), "-n", *user]
                    self._holder = holder
                    return
                holder.wait()

    def close(self) -> None:
        if self.prefix:
            self._holder.kill()
            self._holder.wait()


class Terminal:
    """One shell on a pseudo-terminal."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str], network: Network) -> None:
        self.name = name
        self.output = ""
        self._seen = 0
        leader, follower = pty.openpty()
        self._fd = leader
        attributes = termios.tcgetattr(follower)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(follower, termios.TCSANOW, attributes)

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._shell = subprocess.Popen(
            [*network.prefix, "bash", "--norc", "--noprofile", "--noediting", "-i"],
            stdin=follower, stdout=follower, stderr=follower,
            cwd=folder, env={**environ, "PS1": PROMPT, "TERM": "dumb"}, preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(follower)
        self.expect(PROMPT)

    def type(self, command: str) -> None:
        """Type a line. What it prints is looked at later."""
        os.write(self._fd, command.encode() + b"\n")

    def interrupt(self) -> None:
        """Ctrl-C; afterwards the prompt is back."""
        os.write(self._fd, b"\x03")
        self.expect(PROMPT)

    def expect(self, text: str, wait_s: float = WAIT_S) -> None:
        """Wait until `text` has been printed, each … standing for anything within a line.

        A line that is … alone stands for any number of lines.
        """
        wanted = [None if line == "…" else _line_pattern(line) for line in text.split("\n")]
        deadline = time.monotonic() + wait_s
        while (end := self._find(wanted)) is None:
            left = deadline - time.monotonic()
            ready = select.select([self._fd], [], [], max(left, 0))[0]
            if not ready:
                raise AssertionError(f"{self.name}: {text!r} was not printed; the screen:\n{self.output}")
            self.output += self._read()
        self._seen = end

    def _find(self, wanted: list[re.Pattern[str] | None]) -> int | None:
        """Where what is wanted ends on the screen, behind what was seen before; None if it is not there."""
        lines = self.output[self._seen :].splitlines(keepends=True)
        for first in range(len(lines)):
            at, skipping = first, False
            for pattern in wanted:
                if pattern is None:
                    skipping = True
                    continue
                while skipping and at < len(lines) and not pattern.search(lines[at]):
                    at += 1
                if at == len(lines) or not pattern.search(lines[at]):
                    break
                at, skipping = at + 1, False
            else:
                return self._seen + sum(map(len, lines[:at]))
        return None

    def _read(self) -> str:
        try:
            data = os.read(self._fd, 65_536)
        except OSError as error:
            raise AssertionError(f"{self.name}: the shell is gone; the screen:\n{self.output}") from error
        return _ANSI.sub("", data.decode(errors="replace").replace("\r", ""))

    def processes(self, word: str) -> list[psutil.Process]:
        """What runs in here with `word` on its command line, the newest last."""
        found = []
        for one in psutil.Process(self._shell.pid).children(recursive=True):
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # or a zombie: it has ended since we were told of it
                if word in " ".join(one.cmdline()):
                    found.append(one)
        return found

    def close(self) -> None:
        for process in [*self.processes(""), psutil.Process(self._shell.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._shell.wait()
        os.close(self._fd)


class Transcript:
    """Types a transcript and compares what is printed with what it says."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._network = Network()
        self.terminals: dict[str, Terminal] = {}

    def __enter__(self) -> Transcript:
        return self

    def __exit__(self, *exc: object) -> None:
        for terminal in self.terminals.values():
            terminal.close()
        self._network.close()

    def terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            self.terminals[name] = Terminal(name, self._folder, self._environ, self._network)
        return self.terminals[name]

    def play(self, blocks: list[str]) -> None:
        """Play console blocks in order."""
        steps: list[tuple[str, str, list[str]]] = []  # (terminal, command or ^C or …, expected lines)
        for block in blocks:
            for line in block.splitlines():
                head = _HEAD.fullmatch(line)
                if head is None:
                    steps[-1][2].append(line)
                else:
                    command = head["rest"] if head["what"] == "$ " else head["what"]
                    steps.append((head["name"], command, []))
        for at, (name, command, expected) in enumerate(steps):
            terminal = self.terminal(name)
            if command == "^C":
                terminal.interrupt()
            elif command != "…":
                terminal.type(command)
            if expected:
                terminal.expect("\n".join(expected))
            later = [step[1] for step in steps[at + 1 :] if step[0] == name]
            if command != "^C" and later and later[0] not in ("^C", "…"):
                terminal.expect(PROMPT)  # another command comes: this one has to end by itself
