"""Which messages go to which sink, as what, and for how long they are worth sending.

A route decides; `bridge.forward` carries out. Its name is unique, and is also the
name of its cursor on the disk. Its filters look at the topic alone, so what they
decide is decided once a topic; `where` looks at the rest of a message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from bridge.message import CLOCK_PLAUSIBLE_NS, Jumps, Message, age_ns
from bridge.policy.batch import BatchLimits
from bridge.policy.dress import Dress, EnvelopeKind, fields_of
from bridge.policy.pace import Drain
from bridge.policy.pack import Pack
from bridge.policy.retry import ONE_TRY, RetryLimits
from bridge.policy.sieve import Deadband, Rules
from bridge.policy.where import Condition
from bridge.topic import Pattern

__all__ = ["MEMORY_BYTES", "MEMORY_MESSAGES", "PRIORITY", "Durability", "Route", "WhenFull"]

WhenFull = Literal["refuse", "drop_oldest", "drop_newest"]
TOPICS_MAX: Final = 10_000  # whose answer is remembered
Durability = Literal["disk", "memory"]
MEMORY_MESSAGES: Final = 10_000  # that a route in memory may hold if it says nothing
MEMORY_BYTES: Final = 16 << 20  # the same in bytes
PRIORITY: Final = 5  # of a route that says nothing; 0 to 9


class Route:
    """One route. Pure, and never changed after it was made."""

    __slots__ = (
        "_wanted",
        "batch",
        "drain",
        "dress",
        "durability",
        "fallback",
        "gateway",
        "max_age_s",
        "max_bytes",
        "max_messages",
        "name",
        "pack",
        "patterns",
        "priority",
        "retry",
        "rules",
        "sink",
        "when_full",
    )

    def __init__(
        self,
        name: str,
        patterns: Sequence[Pattern],
        sink: str,
        address: str = "{topic}",
        *,
        where: str | None = None,
        sample: tuple[int, int] | None = None,
        deadband: tuple[str, float] | None = None,
        every_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        envelope: EnvelopeKind = "none",
        gateway: str = "",
        batch: BatchLimits | None = None,
        max_age_s: float | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        durability: Durability = "disk",
        when_full: WhenFull = "refuse",
        priority: int = PRIORITY,
        fallback: tuple[str, float] | None = None,
        pack: Pack | None = None,
        drain: Drain | None = None,
        retry: RetryLimits = ONE_TRY,
    ) -> None:
        """Raises ExpressionError, and ValueError as `fields_of` does."""
        assert patterns, "a route without a filter takes nothing"
        self.name = name
        self.patterns = tuple(patterns)
        self.sink = sink
        self.gateway = gateway
        self.batch = batch or BatchLimits()
        self.max_age_s = max_age_s
        self.durability: Durability = durability
        if durability == "memory":  # which nobody may fill without end
            max_messages = max_messages or MEMORY_MESSAGES
            max_bytes = max_bytes or MEMORY_BYTES
        self.max_messages = max_messages  # stored at a time; beyond, and in a full store, `when_full` decides
        self.max_bytes = max_bytes  # of topics and payloads
        self.when_full: WhenFull = when_full
        self.priority = priority  # of those that drop the oldest, the lowest gives way first
        self.drain = drain or Drain()
        self.retry = retry
        self.fallback = fallback  # a second sink, and after how many seconds without the first
        self._wanted: dict[str, bool] = {}
        self.pack = pack  # None: each message travels by itself
        self.dress = Dress(self.patterns, address, headers, body, envelope, gateway)
        fields = fields_of(self.patterns)
        self.rules = Rules(
            None if where is None else Condition.compile(where, fields),
            sample,
            None if deadband is None else Deadband.of(deadband[0], fields, deadband[1]),
            every_s,
        )

    def wants(self, topic: str) -> bool:
        """Whether messages with this topic go here. Depends on nothing else: decided once a topic."""
        if (known := self._wanted.get(topic)) is not None:
            return known
        if len(self._wanted) >= TOPICS_MAX:
            self._wanted.clear()  # simpler than picking one, and as good when all are equally likely
        wanted = self._wanted[topic] = any(pattern.matches(topic) for pattern in self.patterns)
        return wanted

    def address(self, message: Message) -> str:
        """Where at the sink this message goes; the message must be one that the route wants."""
        return self.dress.address(message)

    def expired(self, message: Message, now_ns: int, jumps: Jumps = ()) -> bool:
        """Whether it is too late to send: older than `max_age_s` or than the publisher set [MQTT-3.3.2-5].

        `now_ns` is the clock that stamped `received_ns`, and `jumps` how it was set since.
        """
        expiry_s = message.properties.message_expiry_interval_s if message.properties is not None else None
        if self.max_age_s is None and expiry_s is None:
            return False
        if message.received_ns < CLOCK_PLAUSIBLE_NS or now_ns < message.received_ns:
            return False  # nobody can know, and unknown is not old
        age = age_ns(message.received_ns, now_ns, jumps)
        if expiry_s is not None and age >= expiry_s * 1_000_000_000:
            return True
        return self.max_age_s is not None and age >= self.max_age_s * 1_000_000_000

    def __repr__(self) -> str:
        filters = ", ".join(pattern.topic_filter for pattern in self.patterns)
        return f"Route({self.name!r}: {filters} → {self.sink} {self.dress.address_text!r})"
