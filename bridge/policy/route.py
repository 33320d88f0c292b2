"""Which messages go to which sink, under which address, and for how long they are worth sending.

A route decides; `bridge.forward` carries out. Its name is unique, and is also the
name of its cursor on the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from bridge.message import CLOCK_PLAUSIBLE_NS, Jumps, Message, age_ns
from bridge.policy.batch import BatchLimits
from bridge.policy.template import FIELDS, Template
from bridge.topic import LEVELS_MAX, Pattern

__all__ = ["PRIORITY", "Route", "WhenFull", "check_level_names", "compile_address"]

WhenFull = Literal["refuse", "drop_oldest", "drop_newest"]
PRIORITY: Final = 5  # of a route that says nothing; 0 to 9

# An address is remembered per topic. A device that makes up topics without end must not make this grow
# without end, and a plant has seldom more topics than this.
ADDRESSES_MAX: Final = 4096


def check_level_names(pattern: Pattern) -> None:
    """Raise ValueError for a level named like a field of templates: `{topic}` would mean two things."""
    for name in pattern.names:
        if name in FIELDS:
            raise ValueError(
                f"a level cannot be named {name!r}: in addresses {{{name}}} is that of the message"
            )


def compile_address(text: str, patterns: Sequence[Pattern]) -> Template:
    """Compile the address template of a route with these filters.

    It may use the level names that every filter has: a name that only some have
    would be missing for the topics of the others. Raises TemplateError, and
    ValueError as `check_level_names` does.
    """
    for pattern in patterns:
        check_level_names(pattern)
    names = [name for name in patterns[0].names if all(name in other.names for other in patterns)]
    for pattern in patterns:
        for name in pattern.names:
            if name in FIELDS:
                raise ValueError(
                    f"a level cannot be named {name!r}: in templates that is the message's {name}"
                )
    depths = [
        LEVELS_MAX if pattern.topic_filter.endswith("#") else pattern.topic_filter.count("/") + 1
        for pattern in patterns
    ]
    return Template.compile(text, names, max(depths))


class Route:
    """One route. Pure, and never changed after it was made."""

    __slots__ = (
        "_addresses",
        "_template",
        "batch",
        "fallback",
        "gateway",
        "max_age_s",
        "name",
        "patterns",
        "priority",
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
        gateway: str = "",
        batch: BatchLimits | None = None,
        max_age_s: float | None = None,
        when_full: WhenFull = "refuse",
        priority: int = PRIORITY,
        fallback: tuple[str, float] | None = None,
    ) -> None:
        """Raises TemplateError or ValueError as `compile_address` does."""
        assert patterns, "a route without a filter takes nothing"
        self.name = name
        self.patterns = tuple(patterns)
        self.sink = sink
        self.gateway = gateway
        self.batch = batch or BatchLimits()
        self.max_age_s = max_age_s
        self.when_full: WhenFull = when_full
        self.priority = priority  # of those that drop the oldest, the lowest gives way first
        self.fallback = fallback  # a second sink, and after how many seconds without the first
        self._template = compile_address(address, self.patterns)
        self._addresses: dict[str, str] = {}

    def wants(self, topic: str) -> bool:
        """Whether messages with this topic go here. Depends on nothing else, so callers may cache it."""
        return any(pattern.matches(topic) for pattern in self.patterns)

    def address(self, message: Message) -> str:
        """Where at the sink this message goes; the message must be one that the route wants.

        With several filters the first that matches names the levels.
        """
        topic = message.topic
        if (known := self._addresses.get(topic)) is not None:
            return known
        levels: dict[str, str] = {}
        for pattern in self.patterns:
            if pattern.matches(topic):
                levels = pattern.levels(topic)
                break
        address = self._template.render(message, levels, self.gateway)
        if self._template.by_topic_only:
            if len(self._addresses) >= ADDRESSES_MAX:
                self._addresses.clear()  # simpler than picking one, and as good when all are equally likely
            self._addresses[topic] = address
        return address

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
        return f"Route({self.name!r}: {filters} → {self.sink} {self._template.text!r})"
