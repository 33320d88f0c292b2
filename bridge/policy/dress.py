"""As what a route sends a message: address, headers and body, from templates.

    address   where at the sink; a message that lacks what its address needs is not sent
    headers   beside the body; a header that needs what the message lacks is left out
    body      instead of the payload; what the message lacks is empty
    envelope  instead of the payload too: the whole message as one JSON document

An address with a hole might lead to somebody whom the message is not for. A level that
a topic does not have is no hole, since the operator knew that from the filter: it is empty.
What depends only on the topic is filled in once a topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeVar

from bridge.message import Message
from bridge.policy.fields import MessageFields, Subject, taken_name
from bridge.policy.payload import MISSING
from bridge.policy.template import Template
from bridge.topic import LEVELS_MAX, Pattern

__all__ = ["Dress", "EnvelopeKind", "check_level_names", "fields_of"]

EnvelopeKind = Literal["none", "json"]
Headers = tuple[tuple[str, str], ...]

# What depends on the topic is remembered per topic. A device that makes up topics without end must not make
# this grow without end, and a plant has seldom more topics than this.
TOPICS_MAX: Final = 4096

_Value = TypeVar("_Value")


def check_level_names(pattern: Pattern) -> None:
    """Raise ValueError for a level named like a field of templates: `{topic}` would mean two things."""
    for name in pattern.names:
        if wrong := taken_name(name):
            raise ValueError(wrong)


def fields_of(patterns: Sequence[Pattern]) -> MessageFields:
    """What the expressions and templates of a route with these filters may name.

    Of the level names those that every filter has: a name that only some have would be
    missing for the topics of the others. Raises ValueError as `check_level_names` does.
    """
    for pattern in patterns:
        check_level_names(pattern)
    names = [name for name in patterns[0].names if all(name in other.names for other in patterns)]
    depths = [
        LEVELS_MAX if pattern.topic_filter.endswith("#") else pattern.topic_filter.count("/") + 1
        for pattern in patterns
    ]
    return MessageFields(names, max(depths))


class Dress:
    """What a route's messages look like at the far end. Pure; never changes after it was made."""

    __slots__ = (
        "_address",
        "_addresses",
        "_body",
        "_headers",
        "_levels",
        "_patterns",
        "envelope",
        "gateway",
        "plain",
    )

    def __init__(
        self,
        patterns: Sequence[Pattern],
        address: str,
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        envelope: EnvelopeKind = "none",
        gateway: str = "",
    ) -> None:
        """Raises TemplateError, and ValueError as `fields_of` does."""
        fields = fields_of(patterns)
        self.gateway = gateway
        self.envelope: EnvelopeKind = envelope
        self._address = Template.compile(address, fields)
        self._headers = [(name, Template.compile(text, fields)) for name, text in (headers or {}).items()]
        self._body = None if body is None else Template.compile(body, fields)
        # Nothing but an address that every message has: most routes say no more.
        self.plain = (
            not self._headers and self._body is None and envelope == "none" and not self._address.may_lack
        )
        self._patterns = tuple(patterns) if any(pattern.names for pattern in patterns) else ()
        self._levels: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, str] = {}

    @property
    def address_text(self) -> str:
        """The template of the address as it was written."""
        return self._address.text

    def subject(self, message: Message) -> Subject:
        """The message as this route's expressions see it; it must be one that the route wants."""
        return Subject(message, self._levels_of(message.topic), self.gateway)

    def _levels_of(self, topic: str) -> dict[str, str]:
        """The named levels; with several filters the first that matches names them."""
        if (known := self._levels.get(topic)) is not None:
            return known
        levels = next((pattern.levels(topic) for pattern in self._patterns if pattern.matches(topic)), {})
        _remember(self._levels, topic, levels)
        return levels

    def address(self, message: Message) -> str:
        """Where at the sink this message goes. What it lacks is empty; `lacks` tells."""
        if (known := self._addresses.get(message.topic)) is not None:
            return known
        return self.address_of(self.subject(message))

    def address_of(self, subject: Subject) -> str:
        """The same, where somebody has the subject already."""
        topic = subject.message.topic
        if (known := self._addresses.get(topic)) is not None:
            return known
        address = self._address.render(subject)
        if self._address.by_topic_only:
            _remember(self._addresses, topic, address)
        return address

    def lacks(self, subject: Subject) -> str:
        """What the address needs and this message does not have; empty when it can be sent."""
        return self._address.missing(subject)

    def headers(self, subject: Subject) -> Headers:
        """The route's own headers."""
        filled = ((name, template.render_whole(subject)) for name, template in self._headers)
        return tuple((name, value) for name, value in filled if value is not MISSING)

    def body(self, subject: Subject) -> bytes | None:
        """What the template of the body makes; None where there is none."""
        return None if self._body is None else self._body.render(subject).encode()


def _remember(known: dict[str, _Value], topic: str, value: _Value) -> None:
    if len(known) >= TOPICS_MAX:
        known.clear()  # simpler than picking one, and as good when all are equally likely
    known[topic] = value
