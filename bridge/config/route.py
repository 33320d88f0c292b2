"""What a route may say, key by key: a part of `bridge.config.model`.

A value is judged here by itself; what a route says about its sink, and which names its
templates may use, is judged in `routes`.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from bridge.config.words import Section
from bridge.policy.batch import BatchLimits
from bridge.policy.route import PRIORITY, WhenFull, check_level_names
from bridge.policy.units import Duration, Size
from bridge.topic import TOPIC_BYTES_MAX, Pattern

__all__ = ["Batch", "Fallback", "Route", "TopicFilters"]

_BATCH: Final = BatchLimits()


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


class Batch(Section):
    """When a batch is sent: whatever comes first."""

    messages: Annotated[int, Field(ge=1, le=100_000)] = _BATCH.messages
    bytes: Annotated[Size, Field(ge=1, le=1 << 28)] = _BATCH.bytes
    wait: Annotated[Duration, Field(le=3600, description="how long a batch may wait for more")] = (
        _BATCH.wait_s
    )


class Fallback(Section):
    """Another sink for the time in which the first is away."""

    to: Annotated[str, Field(description="the name of that sink")]
    after: Annotated[Duration, Field(ge=1, le=604_800, description="how long the first has to be away")]


class Route(Section):
    """Which messages go to which sinks. Its name is also the name of its cursor on the disk."""

    from_: Annotated[TopicFilters, Field(alias="from", description="topic filters; {name} names a level")]
    to: Annotated[SinkNames, Field(description="a sink, or several: then each gets everything")]
    fallback: Fallback | None = None
    address: Annotated[str, Field(description="queue, routing key or free text, as a template")] = "{topic}"
    batch: Annotated[Batch, Field(default_factory=Batch)]
    max_age: Annotated[Duration | None, Field(description="older messages are not sent any more")] = None
    when_full: WhenFull = "refuse"
    priority: Annotated[
        int, Field(ge=0, le=9, description="of routes that drop the oldest, the lowest gives way first")
    ] = PRIORITY
