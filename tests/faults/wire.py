"""A wire of our own to a far end of our own: a network namespace behind a veth pair, as root.

What it loses and how slow it is is set on the wire itself, so TCP has to do with it
as it is: retransmissions, growing timeouts, queues. Nobody else's packets come by.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.house.receiver import FarEnd
from tests.servers import binary, missing

__all__ = ["Beyond", "Wire", "wire"]


class Wire:
    """`near` and `far` are the addresses of the two ends."""

    def __init__(self, number: int) -> None:
        self.near, self.far = f"10.213.{number}.1", f"10.213.{number}.2"
        self.namespace = f"edgespool-{number}"
        self._link, self._far_link = f"es{number}n", f"es{number}f"

    def _run(self, *command: str, inside: bool = False) -> None:
        words = ["ip", "netns", "exec", self.namespace, *command] if inside else list(command)
        words[0] = binary(words[0])
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=10)

    def make(self) -> None:
        self._run("ip", "netns", "add", self.namespace)
        self._run(
            "ip", "link", "add", self._link, "type", "veth", "peer", "name", self._far_link,
            "netns", self.namespace,
        )  # fmt: skip
        self._run("ip", "addr", "add", f"{self.near}/30", "dev", self._link)
        self._run("ip", "link", "set", self._link, "up")
        self._run("ip", "addr", "add", f"{self.far}/30", "dev", self._far_link, inside=True)
        self._run("ip", "link", "set", self._far_link, "up", inside=True)

    def remove(self) -> None:
        for command in (["ip", "netns", "del", self.namespace], ["ip", "link", "del", self._link]):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run(*command)

    def lose(self, percent: int) -> None:
        """Of every hundred packets towards the far end so many do not arrive, and as many on the way back."""
        for hook in ("input", "output"):
            self._run(
                "nft",
                f"add table ip lossy; add chain ip lossy {hook}"
                f" {{ type filter hook {hook} priority 0; }}; flush chain ip lossy {hook};"
                f" add rule ip lossy {hook} numgen random mod 100 < {percent} drop",
                inside=True,
            )

    def slow(self, rate: str) -> None:
        """At most `64kbit` in a second, in each direction, with what a modem holds in its queue."""
        tbf = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "2s")
        self._run("tc", "qdisc", "replace", "dev", self._link, *tbf)
        self._run("tc", "qdisc", "replace", "dev", self._far_link, *tbf, inside=True)

    def heal(self) -> None:
        """It loses nothing and is fast."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("nft", "delete table ip lossy", inside=True)
        for inside, link in ((False, self._link), (True, self._far_link)):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("tc", "qdisc", "del", "dev", link, "root", inside=inside)

    def cut(self) -> None:
        self._run("ip", "link", "set", self._link, "down")

    def mend(self) -> None:
        self._run("ip", "link", "set", self._link, "up")


@contextlib.contextmanager
def wire(number: int) -> Iterator[Wire]:
    """A wire, and afterwards none."""
    if os.geteuid() != 0:
        missing("root, for a network namespace of its own,")
    for tool in ("ip", "nft", "tc"):
        binary(tool)
    made = Wire(number)
    made.remove()  # what a test that was killed has left
    try:
        made.make()
        yield made
    finally:
        made.remove()


class Beyond(FarEnd):
    """A receiver at the far end of a wire."""

    def __init__(self, folder: Path, endpoint: str, over: Wire, *options: str) -> None:
        super().__init__(folder, endpoint, *options)
        self.before = ("ip", "netns", "exec", over.namespace)
