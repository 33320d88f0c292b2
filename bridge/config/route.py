"""What a route may say, key by key: a part of `bridge.config.model`.

A value is judged here by itself; what a route says about its sink, and which names its
templates may use, is judged in `routes`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from bridge.config.words import Section
from bridge.policy.batch import BatchLimits
from bridge.policy.dress import EnvelopeKind, check_level_names
from bridge.policy.pack import ZSTD_INSTALL, Compression, Format, has_zstd
from bridge.policy.retry import PATIENCE_S_MAX, RetryLimits
from bridge.policy.route import PRIORITY, Durability, WhenFull
from bridge.policy.sieve import parse_sample
from bridge.policy.units import ByteRate, Duration, Rate, Size
from bridge.sinks.metadata import RESERVED
from bridge.topic import TOPIC_BYTES_MAX, Pattern

__all__ = ["Batch", "Drain", "Fallback", "Pace", "Route", "TopicFilters"]

_BATCH: Final = BatchLimits()
_RETRY: Final = RetryLimits()
HEADERS_MAX: Final = 64
_HEADER_NAME: Final = re.compile(r"[!-~]{1,128}\Z")


def _check_pattern(text: str) -> str:
    if len(text) > TOPIC_BYTES_MAX:  # before taking a megabyte apart
        raise ValueError(f"a topic may have at most {TOPIC_BYTES_MAX} bytes")
    pattern = Pattern.parse(text)
    check_level_names(pattern)
    return text


def _one_or_many(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("must be a topic filter, or a list of them")
    return [value] if isinstance(value, str) else value


TopicFilters = Annotated[
    list[Annotated[str, AfterValidator(_check_pattern)]],
    Field(min_length=1),
    BeforeValidator(_one_or_many),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


def _one_or_more_sinks(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("must be the name of a sink, or a list of them")
    return [value] if isinstance(value, str) else value


SinkNames = Annotated[
    list[str],
    Field(min_length=1, max_length=16),
    BeforeValidator(_one_or_more_sinks),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


def _check_header_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"a header cannot be named {name!r}: that has a meaning of its own at the far end")
    if not _HEADER_NAME.match(name):
        raise ValueError("the name of a header has 1 to 128 letters, digits and signs, without spaces")
    return name


HeaderName = Annotated[str, AfterValidator(_check_header_name)]


def _check_compress(compress: Compression | None) -> Compression | None:
    if compress == "zstd" and not has_zstd():
        raise ValueError(f"zstd needs a library that is not here; install it: {ZSTD_INSTALL}")
    return compress


class Batch(Section):
    """When a batch is sent: whatever comes first."""

    messages: Annotated[int, Field(ge=1, le=100_000)] = _BATCH.messages
    bytes: Annotated[Size, Field(ge=1, le=1 << 28)] = _BATCH.bytes
    wait: Annotated[Duration, Field(le=3600, description="how long a batch may wait for more")] = (
        _BATCH.wait_s
    )


def _check_sample(text: str | None) -> str | None:
    if text is not None:
        parse_sample(text)
    return text


class Deadband(Section):
    """Only what has moved: a number by so much, since the last message of the topic that was sent."""

    field: Annotated[str, Field(description="a number of the message, such as payload.t")]
    delta: Annotated[float, Field(gt=0, allow_inf_nan=False, description="how much it has to move")]


class Fallback(Section):
    """Another sink for the time in which the first is away."""

    to: Annotated[str, Field(description="the name of that sink")]
    after: Annotated[Duration, Field(ge=1, le=604_800, description="how long the first has to be away")]


class Pace(Section):
    """At most so much in a second, smoothly: no more than a tenth of it at once."""

    rate: Annotated[Rate | None, Field(description="messages in a second, such as 500/s")] = None
    bytes: Annotated[ByteRate | None, Field(description="bytes in a second, such as 64KiB/s")] = None


class Drain(Pace):
    """How a route goes through what has waited for more than 5 s: its order, and how fast."""

    order: Annotated[
        Literal["fifo", "live_first"],
        Field(
            description="live_first: what is new goes first, and the backlog behind it, marked as replayed"
        ),
    ] = "fifo"
    live: Annotated[Pace, Field(default_factory=Pace, description="how fast what has not waited goes")]


class Retry(Section):
    """What is tried again before it goes to the dead letters."""

    tries: Annotated[int, Field(ge=1, le=100, description="how often in all")] = _RETRY.tries
    wait: Annotated[
        Duration, Field(ge=0.1, le=PATIENCE_S_MAX, description="how long to wait before the next")
    ] = _RETRY.wait_s

    @model_validator(mode="after")
    def _within_patience(self) -> Retry:
        if RetryLimits(self.tries, self.wait).patience_s > PATIENCE_S_MAX:
            raise ValueError(
                f"{self.tries} tries, {self.wait:g}s apart, take {(self.tries - 1) * self.wait:g}s, and the "
                f"messages behind wait as long; at most {PATIENCE_S_MAX:g}s in all: lower one"
            )
        return self


class Route(Section):
    """Which messages go to which sinks. Its name is also the name of its cursor on the disk."""

    from_: Annotated[TopicFilters, Field(alias="from", description="topic filters; {name} names a level")]
    to: Annotated[SinkNames, Field(description="a sink, or several: then each gets everything")]
    fallback: Fallback | None = None
    where: Annotated[
        str | None, Field(description="a condition on the message, such as payload.t > 20 and qos > 0")
    ] = None
    sample: Annotated[
        str | None, AfterValidator(_check_sample), Field(description="a part of the messages, such as 1/10")
    ] = None
    deadband: Deadband | None = None
    every: Annotated[
        Duration | None,
        Field(ge=0.1, le=86_400, description="of each topic and period the latest message only"),
    ] = None
    address: Annotated[str, Field(description="queue, routing key or free text, as a template")] = "{topic}"
    headers: Annotated[
        dict[HeaderName, str],
        Field(
            max_length=HEADERS_MAX,
            default_factory=dict,
            description="what goes beside the body, as templates",
        ),
    ]
    body: Annotated[str | None, Field(description="what travels instead of the payload, as a template")] = (
        None
    )
    envelope: Annotated[
        EnvelopeKind, Field(description="json: the whole message as one JSON document instead of the payload")
    ] = "none"
    batch: Annotated[Batch, Field(default_factory=Batch)]
    pack: Annotated[
        Literal["none", Format], Field(description="the messages of a batch as one, for each address")
    ] = "none"
    compress: Annotated[
        Compression | None, AfterValidator(_check_compress), Field(description="how a pack is compressed")
    ] = None
    drain: Annotated[Drain, Field(default_factory=Drain)]
    retry: Annotated[
        Retry | None,
        Field(description="how often a message is tried that the far end refuses; once without it"),
    ] = None
    max_age: Annotated[Duration | None, Field(description="older messages are not sent any more")] = None
    max_messages: Annotated[
        int | None, Field(ge=1, description="messages that may wait for the sink; beyond, when_full decides")
    ] = None
    max_bytes: Annotated[
        Size | None, Field(ge=1, description="the same in bytes, of topics and payloads")
    ] = None
    durability: Annotated[
        Durability,
        Field(description="memory: not on the disk, and a stop or a kill loses what waits"),
    ] = "disk"
    when_full: Annotated[
        WhenFull, Field(description="when the store is full, or the route is at max_messages or max_bytes")
    ] = "refuse"
    priority: Annotated[
        int, Field(ge=0, le=9, description="the highest has a link and, in a full store, the room first")
    ] = PRIORITY

    @model_validator(mode="after")
    def _in_order(self) -> Route:
        rule = "every" if self.every is not None else "deadband" if self.deadband is not None else ""
        if rule and self.drain.order == "live_first":
            raise ValueError(
                f"has {rule}, which needs messages in their order, and drain.order live_first, which changes "
                "it; leave one out"
            )
        if rule and self.retry is not None and self.retry.tries > 1:
            raise ValueError(
                f"has {rule}, which needs messages in their order, and retry, which lets some wait while "
                "others go on; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _one_body(self) -> Route:
        if self.body is not None and self.envelope != "none":
            raise ValueError("has body and envelope, and only one of them can travel; leave one out")
        if self.pack != "none" and self.envelope != "none":
            raise ValueError(
                "has pack and envelope, but a pack is made of envelopes already; leave envelope out"
            )
        if self.compress is not None and self.pack == "none":
            raise ValueError("has compress without pack, and only packs are compressed; add 'pack: ndjson'")
        return self
