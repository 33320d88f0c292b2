"""A broker without sockets and without waiting: its loop's clock is handed in, its wires are lists of bytes.

    house.wire() → Wire ⇄ Link ⇄ Broker ⇄ Spool in a folder

Nothing happens until `settle` or `advance` is called, and then everything does that
can happen by that time, in an order that is always the same. The store is the real
one, on the real disk, but for its syncs: no plug is pulled here.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from bridge.broker.broker import Broker
from bridge.broker.door import Door
from bridge.broker.limits import Limits
from bridge.broker.link import Link
from bridge.mqtt.codec import decode
from bridge.mqtt.packet import Packet
from bridge.store import Spool
from bridge.store.files import Files

__all__ = ["ClockworkHouse", "Wire"]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
WALL_CLOCK_NS = 1_800_000_000 * 10**9  # what time it is when the house is built
QUOTA_BYTES = 2 << 20


class ClockworkLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: time passes only in `advance`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now_s

    def settle(self) -> None:
        """Run until nothing is left to do at this time."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready and not (self._scheduled and self._scheduled[0].when() <= self.now_s):
                return

    def advance(self, seconds: float) -> None:
        """Let time pass, from one timer to the next."""
        until_s = self.now_s + seconds
        while self._scheduled and self._scheduled[0].when() <= until_s:
            self.now_s = max(self.now_s, self._scheduled[0].when())
            self.settle()
        self.now_s = until_s
        self.settle()


class UnsyncedFiles(Files):
    """The real disk, in a hurry."""

    def sync(self, fd: int) -> None:
        """What a process wrote outlives the process; only a power cut would ask for more."""

    def sync_folder(self, path: str) -> None:
        """See `sync`."""


class Wire(asyncio.Transport):
    """Both ends of one connection: a transport to the broker, a device to the test."""

    def __init__(self, loop: ClockworkLoop, link: Link, version: int) -> None:
        super().__init__()
        self._loop = loop
        self._link = link
        self._version = version
        self._unread = b""
        self._waiting: list[bytes] | None = None
        self._closing = False
        loop.call_soon(link.connection_made, self)

    # ---- the device's end ----

    def send_bytes(self, data: bytes) -> None:
        if self._waiting is not None:
            self._waiting.append(data)
        else:
            self._loop.call_soon(self._link_reads, data)

    def _link_reads(self, data: bytes) -> None:
        if not self._closing:
            self._link.data_received(data)

    def drop(self) -> None:
        """Be gone without a word."""
        self._lose(ConnectionResetError())

    def read(self) -> list[Packet]:
        """What the broker has sent since the last look."""
        data, at, packets = self._unread, 0, []
        while (found := decode(data, self._version, at)) is not None:
            packet, at = found
            packets.append(packet)
        self._unread = data[at:]
        assert not self._unread, "the broker has sent half a packet"
        return packets

    @property
    def closed(self) -> bool:
        return self._closing

    # ---- the broker's end ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "the broker writes to a closed transport"
        self._unread += bytes(data)

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def _lose(self, why: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._link.connection_lost, why)

    def pause_reading(self) -> None:
        self._waiting = []

    def resume_reading(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for data in waiting:
            self.send_bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """A device that always reads never fills a buffer."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class ClockworkHouse:
    """One broker after another on one store. Hold it in a `with`, because it moves the process's clock."""

    def __init__(self, **limits: Any) -> None:
        self._limits = Limits(**limits)
        self._door = Door("mqtt://clockwork", self._limits)
        self._folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self._lives = 0
        self._up = False
        self.loop = ClockworkLoop()
        self.mistakes: list[dict[str, Any]] = []  # exceptions that nobody caught
        self.loop.set_exception_handler(lambda _, context: self.mistakes.append(context))
        self._clocks = [
            mock.patch("time.time_ns", self.wall_clock_ns),
            mock.patch("time.clock_gettime_ns", self._steady_ns),
        ]
        for clock in self._clocks:
            clock.start()
        self.loop.advance(0.5)
        self.start()

    def _steady_ns(self, clock: int) -> int:
        return self.wall_clock_ns()

    def wall_clock_ns(self) -> int:
        return WALL_CLOCK_NS + int(self.loop.now_s * 10**9)

    def start(self) -> None:
        """A broker begins. Afterwards it looks at deadlines once a second, counted from now."""

        async def build() -> None:
            self._spool = Spool.open(str(self._folder / f"life{self._lives}"), QUOTA_BYTES, UnsyncedFiles())
            # No measurement exceeds NaN: no commit is ever slow enough for a thread.
            self._spool.committer.commit_s = math.nan
            self.broker = Broker(self._spool, (), {}, lambda amount: True, self._limits)
            self._ticking = asyncio.ensure_future(self.broker.run())

        self.loop.run_until_complete(build())
        self._up = True
        self.loop.settle()

    def stop(self) -> None:
        """As SIGTERM does: everyone is sent away, everything saved. Safe to call again."""
        if not self._up:
            return
        self._up = False

        async def end() -> None:
            await self.broker.stop()
            self._ticking.cancel()
            await self._spool.close()

        self.loop.run_until_complete(end())
        self.loop.settle()

    def kill(self) -> None:
        """As SIGKILL does: the next life has what lay in the folder at this moment, and nothing more."""
        old, self._lives = self._folder / f"life{self._lives}", self._lives + 1
        shutil.copytree(old, self._folder / f"life{self._lives}")
        # The dead one is taken down behind the scenes, and what it still writes goes to its own folder.
        self.stop()
        shutil.rmtree(old)

    def wire(self, version: int) -> Wire:
        """A new connection."""
        return Wire(self.loop, Link(self.broker, self._door), version)

    def end(self) -> None:
        """Give everything back."""
        try:
            self.stop()
            self.loop.close()
        finally:
            for clock in self._clocks:
                clock.stop()
            shutil.rmtree(self._folder)
