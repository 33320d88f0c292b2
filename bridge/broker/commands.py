"""Commands from the cloud on their way to devices, and how it is found out what became of them.

A command goes the way of every PUBLISH: to who subscribed, by way of memory or the
downlink log, retained if it says so; but no route sends it straight back to where it
comes from. One that asks gets a record of it, under a topic of its own that no wildcard
matches: so a command is known by its origin wherever a topic is. Two more things are
different. It is never stored at the
cost of others: where there is no room, whoever brings it keeps it. And each delivery of
it is watched (`Session.watched`), so its end is told to the `Command`.

The note beside its record names the route and the message id. After a restart the same
pass over the log that finds what waits for each session finds the commands again, so
that one which a cloud queue hands out a second time is known, and not stored a second time.
"""

from __future__ import annotations

import heapq
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.errors import StoreError
from bridge.message import Message
from bridge.mqtt.delivery import NO_TOKEN, Ending, InFlight, Stage, expired
from bridge.policy.command import (
    COMMAND_TOPICS,
    DELIVERED,
    EXPIRED,
    REJECTED,
    UNDELIVERABLE,
    Command,
    Outcome,
)
from bridge.store import Entry

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.inlet import Decision
    from bridge.broker.subscriber import Subscriber

__all__ = ["Commands"]

_LOOK_AGAIN_NS: Final = 1_000_000_000
_STALE_MAX: Final = 1_000  # entries of the heap that nobody waits for any more; then it is made anew
_ENDINGS: Final[dict[Ending, tuple[Outcome, str]]] = {
    Ending.ANSWERED: (DELIVERED, ""),
    Ending.REFUSED: (REJECTED, "the device refused it"),
    Ending.EXPIRED: (EXPIRED, "its time was over before the device had acknowledged it"),
    Ending.TOO_LARGE: (REJECTED, "it is larger than the device takes"),
    Ending.GONE: (UNDELIVERABLE, "the device may not receive it, or its record is gone"),
    Ending.NO_ROOM: (REJECTED, "the session is full: limits.session_messages, limits.session_bytes"),
    Ending.PUSHED_OUT: (REJECTED, "it was let go for newer messages: the downlink is full"),
    Ending.SESSION_ENDED: (UNDELIVERABLE, "the session ended before it was acknowledged"),
}

_Due = tuple[int, int, Command, "Subscriber", int]  # when, a number that no other has, whose delivery


class Commands:
    """Gives commands to devices. `watching` counts deliveries that are not over."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._committer = broker.spool.committer
        self._given: dict[int, Command] = {}  # in the log, and not read from there yet
        self._given_in_turn = -1
        self._serial = 0
        self._memory_token = NO_TOKEN
        self._due: list[_Due] = []
        self._restored: dict[str, list[Command]] = {}
        self._answers: dict[str, Command] = {}  # Response Topic → who waits for what is published there
        self.watching = 0

    # ---- in ------------------------------------------------------------------------

    def give(self, command: Command) -> bool:
        """Hand a command to everyone who subscribed; False when the store has no room for it now.

        With True, what is known of it already stands in the command; the caller ends its
        own part of it when the next commit is done.
        """
        broker, message = self._broker, command.message
        decision = broker.inlet.decide(message.topic)
        if command.needs_receipt and not _is_anyone_answerable(decision):
            command.failed(UNDELIVERABLE, f"no session is subscribed to {message.topic} with QoS 1 or 2")
            return True
        if not self._committer.accepting or not broker.delivery.has_room(message):
            return False
        record = msgspec.structs.replace(message, topic=COMMAND_TOPICS + message.topic)
        audience = broker.inlet.decide(record.topic).audience
        admitted = broker.inlet.admit(audience, record) if audience is not None else None
        if audience is not None and admitted is None:
            return False
        self._expect_answer(command)
        if message.retain:
            broker.retain(message)
            command.taken += 1
        broker.delivery.distribute(message, decision, command=command)
        if command.left == 1:
            self._check_taken(command)
        if admitted is not None and command.outcome == DELIVERED:
            broker.inlet.send_up(admitted, record)
        return True

    def _check_taken(self, command: Command) -> None:
        if not command.taken and command.outcome == DELIVERED:
            topic = command.message.topic
            command.failed(UNDELIVERABLE, f"nobody who could take it is subscribed to {topic}")

    async def durable(self) -> StoreError | None:
        """Wait until what was given is on the disk and in the sessions; return why it is not, or None."""
        return await self._committer.flush()

    def logged(self, command: Command) -> tuple[str, str, int]:
        """The command goes into the downlink log: what to write beside it."""
        self._serial += 1
        self._given[self._serial] = command
        command.left += 1
        if self._given_in_turn != self._committer.turn:
            self._given_in_turn = self._committer.turn
            self._committer.when_durable(self._committed)
        return command.route, command.message_id, self._serial

    def _committed(self, error: StoreError | None) -> None:
        if error is not None:
            self._given.clear()  # whatever is queued meanwhile goes the same way

    # ---- from the log --------------------------------------------------------------

    def found(self, entry: Entry, about: tuple[str, str, int], restoring: bool) -> Command | None:
        """The command of an entry; a new one for what was stored before a restart."""
        route, message_id, serial = about
        if restoring:
            command = Command(route, message_id, entry.message, True)
            self._expect_answer(command)
            return command
        return self._given.pop(serial, None)

    def queued(self, command: Command, restoring: bool) -> None:
        """Every session that wants the command has it, or has said why not."""
        if not restoring:
            self._check_taken(command)
        elif command.left == 1:
            self.release(command)
        else:
            self._restored.setdefault(command.route, []).append(command)
        if command.left > 1:
            command.lighten()
        command.ended()

    def restored(self, route: str) -> list[Command]:
        """What was stored for a route before the start and is not over, oldest first. Once."""
        return [command for command in self._restored.pop(route, []) if command.left]

    # ---- what devices answer -------------------------------------------------------

    def _expect_answer(self, command: Command) -> None:
        if topic := command.response_topic:
            self._answers[topic] = command

    def answered(self, answer: Message) -> None:
        """A device has published to a topic for answers. Nobody else gets that, and nobody can guess one."""
        command = self._answers.get(answer.topic)
        if command is not None:
            command.answer_with(answer)

    def release(self, command: Command) -> None:
        """Nobody waits for an answer to this one any more."""
        if topic := command.response_topic:
            self._answers.pop(topic, None)

    # ---- how it ends ---------------------------------------------------------------

    def watch(self, command: Command, subscriber: Subscriber, token: int | None = None) -> int:
        """A session has the command, or is about to: it counts until that delivery is over.

        Without a token, of a delivery in memory, it is given one.
        """
        command.taken += 1
        if token is None:
            self._memory_token -= 1
            token = self._memory_token
        if not command.needs_receipt:
            return token
        command.left += 1
        self.watching += 1
        subscriber.session.watched[token] = partial(self._ended, command)
        due_ns = _due_ns(command.message)
        if due_ns is not None:
            self._look_at(due_ns, command, subscriber, token)
        return token

    def watch_in_flight(self, command: Command, subscriber: Subscriber, token: int) -> None:
        """After a restart: the delivery has left the queue, and may not have been answered."""
        if _in_flight(subscriber, token) is not None:
            self.watch(command, subscriber, token)

    def no_room(self, command: Command, subscriber: Subscriber, token: int = NO_TOKEN) -> None:
        """The session cannot take it, whether it was watched already or not."""
        session = subscriber.session
        if token in session.watched:
            session.end(token, Ending.NO_ROOM)
        else:
            command.failed(*_ENDINGS[Ending.NO_ROOM])

    def session_ended(self, subscriber: Subscriber) -> None:
        """Nothing of it will be answered any more."""
        session = subscriber.session
        for token in list(session.watched):
            session.end(token, Ending.SESSION_ENDED)

    def _ended(self, command: Command, ending: Ending, code: int) -> None:
        self.watching -= 1
        outcome, reason = _ENDINGS[ending]
        command.answered += ending is Ending.ANSWERED
        command.ended(outcome, f"{reason} (0x{code:02x})" if code else reason)

    # ---- time ----------------------------------------------------------------------

    def _look_at(self, due_ns: int, command: Command, subscriber: Subscriber, token: int) -> None:
        self._serial += 1
        heapq.heappush(self._due, (due_ns, self._serial, command, subscriber, token))
        if len(self._due) > 2 * self.watching + _STALE_MAX:
            self._due = [due for due in self._due if due[4] in due[3].session.watched]
            heapq.heapify(self._due)

    def tick(self) -> None:
        """Once a second: let go of what is too late, though its device sleeps and nobody asks for it."""
        clock = self._broker.clock
        now_ns = clock.now_ns()
        late: dict[Subscriber, set[int]] = {}
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, command, subscriber, token = heapq.heappop(self._due)
            if token not in subscriber.session.watched:
                continue
            if not expired(command.message, now_ns, clock.jumps):  # the clock was set
                self._look_at(max(due_ns, now_ns) + _LOOK_AGAIN_NS, command, subscriber, token)
                continue
            late.setdefault(subscriber, set()).add(token)
        for subscriber, tokens in late.items():
            session = subscriber.session
            for packet_id, found in list(session.in_flight.items()):
                if found.delivery.token not in tokens:
                    continue
                tokens.remove(found.delivery.token)
                if subscriber.link is None and found.stage is not Stage.PUBCOMP:
                    session.let_go(packet_id, Ending.EXPIRED)
                else:  # it may have it, and will say so or go away
                    self._again(subscriber, found.delivery.token, now_ns)
            if tokens:
                session.drop_expired(tokens)
            for token in tokens:
                session.end(token, Ending.EXPIRED)
            subscriber.moved = True
            self._broker.sessions.touch(subscriber, commit=False)

    def _again(self, subscriber: Subscriber, token: int, now_ns: int) -> None:
        watch = subscriber.session.watched[token]
        assert isinstance(watch, partial)
        self._look_at(now_ns + _LOOK_AGAIN_NS, watch.args[0], subscriber, token)


def _is_anyone_answerable(decision: Decision) -> bool:
    """Whether there is a subscription with QoS 1 or 2: with 0 nothing is acknowledged."""
    matches = decision.matches
    if matches is None:
        return False
    owners = (one for subscriptions in matches.owners.values() for one in subscriptions)
    return any(one.qos for one in owners) or any(
        one.qos for group in matches.groups for one in group.members.values()
    )


def _in_flight(subscriber: Subscriber, token: int) -> InFlight | None:
    found = subscriber.session.in_flight.values()
    return next((each for each in found if each.delivery.token == token), None)


def _due_ns(message: Message) -> int | None:
    properties = message.properties
    if properties is None or properties.message_expiry_interval_s is None:
        return None
    return message.received_ns + properties.message_expiry_interval_s * 1_000_000_000
