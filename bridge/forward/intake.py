"""One route of commands in motion: from its source to the devices, and the receipt back.

    receive ─▶ unfit? ─▶ known? ─▶ give to the sessions ─▶ commit ─▶ stored ─┬▶ settle
       a batch    reject     wait on                                         └▶ the device answers ─▶ settle

A batch is one stretch of plain code and one commit. The next one is not asked for before
that is done, so the order is that of the queue; what is unsettled meanwhile waits there.
Where the store has no room, or fails, nothing is settled and the rest of the batch is
tried again: the queue keeps what we cannot. A lossy source has no queue behind it: it
counts as dropped what it has no more room for meanwhile, and what is unsettled when it closes.

`waiting` has, for each command that no device has answered for, what the source calls it.
Tags end with their link: the far end hands the message out again, and it is known by its
id and what it says. One whose message has no id is a new command then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from secrets import token_hex
from typing import Final, Protocol

import msgspec

from bridge.clock import Clock
from bridge.errors import SinkUnavailable, StoreError
from bridge.forward.keeper import Keeper
from bridge.message import Message
from bridge.policy.command import ANSWER_TOPICS, DELIVERED, EXPIRED, REJECTED, UNDELIVERABLE, Command, Outcome
from bridge.policy.command_route import CommandRoute
from bridge.policy.incoming import Incoming, Unfit
from bridge.sources.base import Reply, Settlement, Source

__all__ = ["Devices", "Intake"]

log = logging.getLogger(__name__)

GIVEN_MAX: Final = 1_000  # commands of one commit: the others of the loop want their turn
NO_ROOM_S: Final = 0.25  # how long until a store that was full is asked again
LINES_PER_MINUTE: Final = 10  # about single commands; the counters have the rest

FAILURES: Final = frozenset({EXPIRED, REJECTED, UNDELIVERABLE})

_Key = tuple[str, str, int]


class Devices(Protocol):
    """What an intake needs of the device side (`bridge.broker.commands`)."""

    def give(self, command: Command) -> bool:
        """Hand it to everyone who subscribed; False when there is no room for it now."""

    async def durable(self) -> StoreError | None:
        """Wait until what was given is in the sessions; return why it is not, or None."""

    def release(self, command: Command) -> None:
        """Nobody waits for an answer to this one any more."""

    def restored(self, route: str) -> list[Command]:
        """What was given before the start and is not over, oldest first."""


class _Asked(msgspec.Struct, gc=False):
    """Who waits for the outcome of one command: a message of the source."""

    tag: int
    reply_to: str
    correlation_id: bytes | None


class Intake:
    """One route and its source. The counters are since the start; `waiting` is what it is now.

    `repeated` counts those that were handed out again and known.
    """

    def __init__(
        self,
        route: CommandRoute,
        keeper: Keeper,
        source: Source,
        devices: Devices,
        clock: Clock,
        prefetch: int,
    ) -> None:
        self.route = route
        self.keeper = keeper
        self.source = source
        self.prefetch = prefetch
        self._devices = devices
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._asked: dict[Command, list[_Asked]] = {}
        self._known: dict[_Key, Command] = {}
        self._recent: dict[_Key, tuple[Outcome, str, Message | None]] = {}
        self._timers: dict[Command, asyncio.TimerHandle] = {}  # delivered, and not answered yet
        self._settlements: list[Settlement] = []
        self._lines_left = LINES_PER_MINUTE
        self._lines_since = 0.0
        self._no_room = ""
        self.received = 0
        self.stored = 0
        self.delivered = 0
        self.expired = 0
        self.rejected = 0
        self.undeliverable = 0
        self.repeated = 0  # handed out again, and known
        for command in devices.restored(route.name):
            self._keep(command)

    @property
    def waiting(self) -> int:
        """Commands that are with devices, and not answered for."""
        return len(self._asked)

    @property
    def held_back(self) -> str:
        """Why commands are left in the queue although the link is up; empty when they are not."""
        if self.waiting >= self.prefetch:
            return f"all {self.prefetch} places of prefetch are taken by commands that devices have to answer"
        return self._no_room or self.source.waiting

    @property
    def lost(self) -> int:
        """Commands that a lossy source had and that came no further, since the start."""
        return self.source.dropped

    async def run(self) -> None:
        """Take commands until cancelled."""
        while True:
            turn = await self.keeper.wait_up()
            try:
                batch = await self.source.receive()
            except SinkUnavailable as error:
                self.keeper.broken(turn, str(error))
                continue
            self.keeper.confirmed()
            self.received += len(batch)
            await self._take(deque(batch), turn)

    async def _take(self, batch: deque[Incoming], turn: int) -> None:
        """Everything of the batch is with devices, or rejected; or the link is gone, and it comes again."""
        while batch and self.keeper.up and self.keeper.turn == turn:
            given, refused = self._give(batch)
            error = await self._devices.durable() if given else None
            for incoming, command in given:
                if error is None:
                    self._keep(command, _asked(incoming))
                    command.ended()
                else:  # whatever of it lies in memory is not waited for
                    command.over = None
                    self._devices.release(command)
            if error is not None:
                batch.extendleft(incoming for incoming, _ in reversed(given))
            self._no_room = str(error or ("the store has no room for commands" if refused else ""))
            if self._no_room:
                await asyncio.sleep(NO_ROOM_S)
        self._no_room = ""

    def _give(self, batch: deque[Incoming]) -> tuple[list[tuple[Incoming, Command]], bool]:
        """Hand out what there is room for; the rest stays in the batch, and True says so."""
        given: list[tuple[Incoming, Command]] = []
        keys: set[_Key] = set()
        now_ns = self._clock.now_ns()
        route, give = self.route, self._devices.give
        while batch and len(given) < GIVEN_MAX:
            incoming = batch[0]
            try:
                asks = route.answer_timeout_s is not None and incoming.reply_to
                message = route.message(incoming, now_ns, ANSWER_TOPICS + token_hex(16) if asks else "")
            except Unfit as error:
                self._count(REJECTED, str(error), "")
                self._settle(_asked(incoming), REJECTED, str(error))
                batch.popleft()
                continue
            command = Command(route.name, incoming.message_id, message, route.receipt == "device")
            if incoming.again and incoming.message_id and self._recognise(incoming, command.key):
                batch.popleft()
                continue
            if incoming.again and command.key in keys:
                return given, False  # sent twice in one breath: the first one is known when it is stored
            if not give(command):
                return given, True
            if incoming.message_id:
                keys.add(command.key)
            batch.popleft()
            given.append((incoming, command))
        return given, False

    def _recognise(self, incoming: Incoming, key: _Key) -> bool:
        """Whether this is with its devices already, or was; then it is not given to them again."""
        command = self._known.get(key)
        if command is not None:
            self.repeated += 1
            if command.needs_receipt and self.route.receipt == "device":
                self._asked[command].append(_asked(incoming))
            else:
                self._settle(_asked(incoming), "stored", "")
            return True
        if (over := self._recent.get(key)) is not None:
            self.repeated += 1
            self._settle(_asked(incoming), *over)
            return True
        return False

    def _keep(self, command: Command, *asked: _Asked) -> None:
        command.over = self._over
        self._asked[command] = list(asked)
        if command.message_id:
            self._known[command.key] = command

    def _over(self, command: Command) -> None:
        """No session has the command any more: tell who asked, or wait for what the device says to it."""
        timeout_s = self.route.answer_timeout_s
        outcome, reason, answer = command.outcome, command.reason, command.answer
        if outcome == DELIVERED and command.response_topic and answer is None and timeout_s is not None:
            self._timers[command] = self._loop.call_later(timeout_s, self._unanswered, command)
            return
        if (timer := self._timers.pop(command, None)) is not None:
            timer.cancel()
        self._finish(command, "answered" if answer is not None else outcome, reason)

    def _unanswered(self, command: Command) -> None:
        del self._timers[command]
        self._finish(command, DELIVERED, f"no answer within {self.route.answer_timeout_s:g} s")

    def _finish(self, command: Command, outcome: Outcome, reason: str) -> None:
        self._devices.release(command)
        command.over = None
        answer = command.answer
        if outcome == DELIVERED and not command.needs_receipt:
            outcome = "stored"
        asked = self._asked.pop(command, [])
        if self._known.get(command.key) is command:
            del self._known[command.key]
        if command.message_id:
            self._recent[command.key] = outcome, reason, answer
            while len(self._recent) > 2 * self.prefetch:
                del self._recent[next(iter(self._recent))]
        self._count(outcome, reason, command.message.topic)
        for one in asked:
            self._settle(one, outcome, reason, answer)

    # ---- what is told --------------------------------------------------------------

    def _settle(self, asked: _Asked, outcome: Outcome, reason: str, answer: Message | None = None) -> None:
        reply = None
        if asked.reply_to:
            told: dict[str, str] = {"outcome": outcome}
            if reason:
                told["reason"] = reason
            body = msgspec.json.encode(told)
            content_type: str | None = "application/json"
            if answer is not None:
                body = answer.payload
                content_type = answer.properties.content_type if answer.properties is not None else None
            reply = Reply(asked.reply_to, asked.correlation_id, body, told, content_type)
        failed = outcome in FAILURES
        if not self._settlements:
            self._loop.call_soon(self._send)
        self._settlements.append(Settlement(asked.tag, (reason or outcome) if failed else "", reply))

    def _send(self) -> None:
        """All that was settled in one turn of the loop, in one call."""
        settlements, self._settlements = self._settlements, []
        self.source.settle(settlements)

    def settle_now(self) -> None:
        """At a stop: say what is known before the link is closed."""
        for timer in self._timers.values():
            timer.cancel()
        if self._settlements:
            self._send()

    def _count(self, outcome: Outcome, reason: str, topic: str) -> None:
        counter = DELIVERED if outcome == "answered" else outcome
        setattr(self, counter, getattr(self, counter) + 1)
        if outcome in FAILURES and self._may_log():
            log.warning(f"command {outcome} route=%s topic=%s reason=%s", self.route.name, topic, reason)

    def _may_log(self) -> bool:
        now = self._loop.time()
        if now - self._lines_since >= 60:
            self._lines_left, self._lines_since = LINES_PER_MINUTE, now
        self._lines_left -= 1
        return self._lines_left >= 0


def _asked(incoming: Incoming) -> _Asked:
    return _Asked(incoming.tag, incoming.reply_to, incoming.correlation_id)
