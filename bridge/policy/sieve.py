"""Which messages of a route are worth sending: condition, sample, report by exception.

    where ──▶ sample ──▶ deadband ──▶ every ──▶ sent

    sample    n of m, chosen by the message's sequence: always the same ones
    deadband  a field of the payload has moved by `delta` since the last message of the topic that passed
    every     of each topic and period of arrival the latest, when the period is over

A decision is made once. After a broken link the log is read again from the cursor, and what was
decided there stays decided, or a message that had passed and was never confirmed would be held
back the second time, by itself. After a restart only the cursor is known: the first message of each
topic passes the deadband then, which may send one too many and never one too few.

For `every` the log is read twice. A first look finds where a period ends and which message of each
topic is its latest; then the same stretch is sent like any other. So the cursor stays before what is
held, a period costs the memory of its topics and no more, and nothing has to be saved. Periods are
those of the clock that stamped the arrival, so a backlog is thinned out like live traffic.

More topics than `topics_max` in a period close it early; for the deadband the topic that has
been silent longest is forgotten. Both send more, not less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from bridge.message import Message
from bridge.policy.fields import ANY, NUMBER, Fields, Subject
from bridge.policy.formula import build
from bridge.policy.payload import MISSING
from bridge.policy.syntax import parse
from bridge.policy.tokens import ExpressionError
from bridge.policy.values import bounded, is_number
from bridge.policy.where import Condition

__all__ = ["Deadband", "Rules", "Sieve", "parse_sample"]

TOPICS_MAX: Final = 10_000
# What was stamped before a period's end may lie on the disk a little later.
GRACE_S: Final = 0.25
_KEPT_MIN: Final = 1000


class Found(Protocol):
    """An entry of the log, as far as it matters here."""

    @property
    def position(self) -> int:
        """Where it lies."""

    @property
    def end(self) -> int:
        """Where the next one lies."""

    @property
    def sequence(self) -> int:
        """Its name for ever."""

    @property
    def message(self) -> Message:
        """What it holds."""


_Entry = TypeVar("_Entry", bound=Found)


class Deadband:
    """Compiled `{field, delta}`: the field has to move by `delta` at least."""

    __slots__ = ("delta", "value")

    def __init__(self, value: Callable[[Any], Any], delta: float = 0.0) -> None:
        self.value = value
        self.delta = delta

    @classmethod
    def of(cls, field: str, fields: Fields, delta: float = 0.0) -> Deadband:
        """Compile the field. Raises ExpressionError for one that is no number."""
        tree = parse(field)
        formula = build(tree, fields)
        if formula.kind not in (NUMBER, ANY):
            raise ExpressionError(f"this is {formula.kind}, and a deadband wants a number", tree.at)
        return cls(formula.value, delta)


class Rules(msgspec.Struct, frozen=True):
    """What a route lets through; `sample` is (n, m) for n of m. Pure; never changes."""

    where: Condition | None = None
    sample: tuple[int, int] | None = None
    deadband: Deadband | None = None
    every_s: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to decide."""
        return any(rule is not None for rule in (self.where, self.sample, self.deadband, self.every_s))


class Sieve:
    """One route's rules at work. The caller hands in entries in the order of the log, and the time.

    `not_json` and `unknown` count, since the start, the messages for which `where` could not be
    told: the payload is not JSON, or a field is missing or of another kind. For `every`: what lies
    before `decided` may be sifted, what lies before `scanned` was looked at, and at `due_s` the
    open period is over, on the monotonic clock.
    """

    def __init__(
        self,
        rules: Rules,
        subject: Callable[[Message], Subject],
        position: int = 0,
        topics_max: int = TOPICS_MAX,
    ) -> None:
        self.rules = rules
        self.not_json = self.unknown = 0
        self.decided = self.scanned = position
        self.due_s: float | None = None
        self._subject = subject
        self._topics_max = topics_max
        self._remembers = rules.deadband is not None or rules.every_s is not None
        self._period_ns = int((rules.every_s or 0) * 1_000_000_000)
        self._period: int | None = None  # the number of the open one
        self._latest: dict[str, int] = {}  # of the open period: topic → position
        self._chosen: set[int] = set()  # what passed, from about the cursor to `decided`
        self._kept_max = _KEPT_MIN
        self._last: dict[str, Any] = {}  # for the deadband: topic → value of what passed last

    # ---- deciding ------------------------------------------------------------------

    def sift(self, entries: Sequence[_Entry], mark: int) -> tuple[list[_Entry], list[_Entry]]:
        """Return what is to be sent and what is not; before `mark` nothing will be asked again.

        With `every`, all of them lie before `decided`.
        """
        passing: list[_Entry] = []
        held: list[_Entry] = []
        for entry in entries:
            if not self._remembers:
                passes = self.passes(entry)
            elif entry.position < self.decided:
                passes = entry.position in self._chosen
            else:
                assert not self._period_ns, "the look ahead comes first"
                passes = self.passes(entry)
                self.decided = entry.end
                if passes:
                    self._chosen.add(entry.position)
            (passing if passes else held).append(entry)
        if len(self._chosen) > self._kept_max:
            self._chosen = {position for position in self._chosen if position >= mark}
            self._kept_max = max(_KEPT_MIN, 2 * len(self._chosen))
        return passing, held

    def passes(self, entry: Found) -> bool:
        """Decide about one message that comes now, whatever was decided before; `every` does not count."""
        rules, message = self.rules, entry.message
        subject = self._subject(message)
        if rules.where is not None:
            holds = rules.where.holds(subject)
            if holds is not True:
                if holds is MISSING:
                    if subject.is_not_json:
                        self.not_json += 1
                    else:
                        self.unknown += 1
                return False
        if rules.sample is not None and _mixed(entry.sequence) % rules.sample[1] >= rules.sample[0]:
            return False
        return rules.deadband is None or self._moved(rules.deadband, subject)

    def _moved(self, deadband: Deadband, subject: Subject) -> bool:
        """Whether the value is news: it has moved, or there is nothing to compare."""
        topic, value = subject.message.topic, _finite(deadband.value(subject))
        last = self._last.pop(topic, None)
        if value is None:
            return True  # something else than a number is news, and so is the number after it
        if last is not None and abs(value - last) < deadband.delta:
            self._last[topic] = last
            return False
        if len(self._last) >= self._topics_max:
            del self._last[next(iter(self._last))]
        self._last[topic] = value
        return True

    # ---- looking ahead, for `every` ------------------------------------------------

    @property
    def looks_ahead(self) -> bool:
        """Whether `look` has to come before `sift`."""
        return bool(self._period_ns)

    def look(self, entries: Sequence[Found], end: int, now_ns: int, now_s: float) -> None:
        """Look at entries from `scanned` on, all that the route wants up to `end`.

        Stops where a period closes: then `scanned` and `decided` are there, and less than `end`.
        `now_ns` is the clock that stamps arrivals, `now_s` a monotonic one.
        """
        for entry in entries:
            period = entry.message.received_ns // self._period_ns
            if self._latest and period != self._period:
                self._close(entry.position)
                return
            if self.passes(entry):
                if not self._latest:
                    self._open(period, now_ns, now_s)
                    self.decided = entry.position  # what came before did not pass
                self._latest[entry.message.topic] = entry.position
                if len(self._latest) >= self._topics_max:
                    self._close(entry.end)
                    return
        self.scanned = end
        if not self._latest:
            self.decided = end

    def lapse(self, now_s: float) -> None:
        """There is nothing to look at now: close the period if its time has come."""
        if self.due_s is not None and now_s >= self.due_s:
            self._close(self.scanned)

    def pass_over(self, end: int) -> None:
        """What lies before `end` will not be sifted: the far end has it.

        From an earlier life (of a route that was `live_first` then) it may have values that
        this sieve has never seen: so the next one of each topic is news.
        """
        if not self._period_ns and end > self.decided:
            self._last.clear()
            self.decided = end

    def let_go(self, end: int) -> None:
        """What lies before `end` is not asked for any more."""
        self.scanned = max(self.scanned, end)
        self.decided = max(self.decided, end)

    def _open(self, period: int, now_ns: int, now_s: float) -> None:
        self._period = period
        left_ns = min(self._period_ns, max(0, (period + 1) * self._period_ns - now_ns))
        self.due_s = now_s + left_ns / 1e9 + GRACE_S

    def _close(self, end: int) -> None:
        self._chosen.update(self._latest.values())
        self._latest.clear()
        self._period = self.due_s = None
        self.scanned = self.decided = max(end, self.decided)


def parse_sample(text: str) -> tuple[int, int]:
    """Return (1, 10) for `1/10`. Raises ValueError that says what to write instead."""
    n, slash, m = text.partition("/")
    if slash and n.isascii() and n.isdigit() and m.isascii() and m.isdigit() and len(text) <= 20:
        part, whole = int(n), int(m)
        if 1 <= part <= whole <= 1_000_000:
            return part, whole
    raise ValueError("must be a part such as 1/10, with at most 1000000 below the line")


def _finite(value: Any) -> Any:
    """The value if it can be compared as a number, else None."""
    try:
        number = bounded(value) if is_number(value) else MISSING
    except OverflowError:
        return None
    return None if number is MISSING else number


def _mixed(sequence: int) -> int:
    """A number that has nothing to do with the rhythm in which topics take turns (SplitMix64)."""
    z = (sequence + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)
