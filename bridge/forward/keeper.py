"""Keeps one sink open, for all the routes that point at it.

    down ──open()──▶ up ──lost() or a failed batch──▶ close() ──back-off──▶ down

The wait between two tries has full jitter, so a thousand gateways do not return
at the same moment. It grows only while the far end stays away: a link that
carried something starts again from the shortest wait. An outage is logged once
when it begins and once when it ends, however many tries lie between.

A sink gives a link up that confirms nothing (`bridge.sinks.base`). Such a far end often
lets us in again at once and goes on saying nothing, so a link that opens ends no stall:

    stalled ──open() fails──▶ down,  ──something is confirmed──▶ up

A `turn` numbers the times the link was up, so a batch that failed on the last
link cannot tear down the next one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Literal

from bridge.errors import ConfigError, SinkUnavailable
from bridge.policy.backoff import delay
from bridge.policy.line import Line
from bridge.sinks.base import Sink

__all__ = ["Keeper", "State"]

log = logging.getLogger(__name__)

State = Literal["up", "down", "stalled", "blocked"]
_NEW = "not opened yet"


class Keeper:
    """One sink and whether it is up; `run` is its one task.

    A forwarder that finds `leaving` set sends nothing more and asks `wait_up` again.

    `up`: a link is open, and may be used. `state` is what to think of it: `stalled` until
    something is confirmed again. `since_ns` is the wall clock when it last became up, or
    ceased to be, and `since_s` the clock that only counts; `reason` says why it is not up.
    `stalls` counts the links that were given up because nothing was confirmed.
    """

    def __init__(self, sink: Sink, what: str = "sink") -> None:
        self.sink = sink
        self._what = what  # a source is kept in the same way
        self.up = False
        self.stalled = False
        self.stalls = 0
        self.since_ns, self.since_s = time.time_ns(), time.monotonic()
        self.leaving = False
        self.line = Line()  # of all the routes that point here
        self.turn = 0
        self._reason = _NEW
        self._attempt = 0
        self._is_up = asyncio.Event()
        self._broken = asyncio.Event()

    @property
    def state(self) -> State:
        """Whether it carries messages, as far as anybody can know; `blocked`: the far end asks us to wait."""
        if self.stalled or not self.up:
            return "stalled" if self.stalled else "down"
        # Not `waiting`: a second receiver that is turned away has something to wait for, and nobody else has.
        return "blocked" if getattr(self.sink, "blocked", False) else "up"

    @property
    def reason(self) -> str:
        """Why the sink is not up, as the sink itself says it where it knows better."""
        if self.state == "up":
            return ""
        waiting: str = getattr(self.sink, "waiting", "")
        if self.stalled and waiting:
            return f"{self._reason}; now {waiting}"
        return waiting or self._reason

    async def wait_up(self) -> int:
        """Wait until the sink is up and return the turn."""
        await self._is_up.wait()
        return self.turn

    def broken(self, turn: int, reason: str) -> None:
        """A batch sent in this turn failed: close and open again. Old turns do not count."""
        if self.up and turn == self.turn:
            self._gone(reason)
            self._broken.set()

    def confirmed(self) -> None:
        """The link carried something: the next outage starts from the shortest wait."""
        self._attempt = 0
        if self.stalled and self.up:
            self.stalled = False
            self._say_up()

    async def run(self) -> None:
        """Open, wait until the link is gone, close, wait, and so on until cancelled.

        Raises ConfigError if the very first `open` does; later it is an outage like any
        other, and the process lives on.
        """
        try:
            while True:
                try:
                    await self.sink.open()
                except (SinkUnavailable, ConfigError) as error:
                    if isinstance(error, ConfigError) and not (self.turn or self._attempt):
                        raise  # the operator is still looking
                    self._sad(str(error))
                else:
                    self._opened()
                    self._broken.clear()
                    await self._until_gone()
                await self.sink.close()
                await asyncio.sleep(delay(self._attempt, random.random()))  # noqa: S311 - jitter is no secret
                self._attempt += 1
        finally:
            self.up = self.stalled = False
            self._is_up.clear()
            await self.sink.close()

    async def _until_gone(self) -> None:
        lost = asyncio.ensure_future(self.sink.lost())
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait((lost, broken), return_when=asyncio.FIRST_COMPLETED)
            if self.up:
                self._gone(lost.result())
        finally:
            for task in (lost, broken):
                task.cancel()
            await asyncio.gather(lost, broken, return_exceptions=True)

    def _sad(self, reason: str) -> None:
        if self._reason == _NEW:
            log.warning(f"{self._what} away {self._what}=%s reason=%s", self.sink.name, reason)
        self._reason, self.stalled = reason, False

    def _opened(self) -> None:
        self.up = True
        self.turn += 1
        self._is_up.set()
        if not self.stalled:
            self._say_up()

    def _say_up(self) -> None:
        now_ns = time.time_ns()
        away_s = (now_ns - self.since_ns) / 1e9
        self.since_ns, self.since_s, self._reason = now_ns, time.monotonic(), ""
        what = self._what
        log.info(f"{what} up {what}=%s away_s=%.1f retries=%d", self.sink.name, away_s, self._attempt)

    def _gone(self, reason: str) -> None:
        """The link is no more. An outage that goes on is neither said nor dated again."""
        was_up = self.up and not self.stalled
        self.up, self._reason = False, reason
        self._is_up.clear()
        self.stalled = self.sink.stalled
        self.stalls += self.stalled
        if was_up:
            self.since_ns, self.since_s = time.time_ns(), time.monotonic()
            what = "stalled" if self.stalled else "away"
            log.warning(f"{self._what} {what} {self._what}=%s reason=%s", self.sink.name, reason)
