"""`tests`: messages to try the routes with, and what is expected of each.

    tests:
      - send: plant/a/7/telemetry
        payload: {t: 21.5}
        expect: {route: telemetry, address: a.7.telemetry}

Nothing is sent anywhere. A message is judged by itself, so what rests on others does not
count: the part of a `sample`, a `deadband`, the period of `every`. `edgespool validate` runs
them; a gateway starts without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from bridge.config.problem import Path
from bridge.config.words import Section
from bridge.forward.parcel import dressed
from bridge.message import Message, Properties
from bridge.policy.payload import MISSING
from bridge.policy.route import Route
from bridge.policy.spelling import did_you_mean
from bridge.sinks.base import Outgoing
from bridge.topic import check_topic_name

__all__ = ["Trial", "run_trials"]

_RECEIVED_NS = 1_772_323_200_000_000_000  # 2026-03-01, so that a template gives the same every day


def _check_topic(topic: str) -> str:
    if wrong := check_topic_name(topic):
        raise ValueError(wrong)
    return topic


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _or_one(schema: dict[str, Any]) -> None:
    """An editor shall know that one needs no list."""
    items = schema["items"]
    many = {key: schema.pop(key) for key in ("type", "items", "minItems")}
    schema["anyOf"] = [items, many]


class Expect(Section):
    """What one route makes of the message; what is left out may be anything."""

    route: str
    sent: Annotated[bool, Field(description="whether the route takes it at all")] = True
    address: str | None = None
    headers: Annotated[dict[str, str] | None, Field(description="exactly these")] = None
    body: Annotated[str | None, Field(description="what travels, as text")] = None


class Trial(Section):
    """One message, and what is expected of it."""

    send: Annotated[str, AfterValidator(_check_topic), Field(description="its topic")]
    payload: Annotated[Any, Field(description="text as it is, anything else as JSON")] = ""
    qos: Annotated[int, Field(ge=0, le=2)] = 0
    retain: bool = False
    publisher: Annotated[str, Field(description="its Client Identifier")] = ""
    content_type: str | None = None
    properties: Annotated[dict[str, str], Field(default_factory=dict, description="user properties")]
    expect: Annotated[
        list[Expect],
        Field(min_length=1, json_schema_extra=_or_one),
        BeforeValidator(_one_or_many),
    ]

    def message(self) -> Message:
        """The message that is tried."""
        payload = (
            self.payload.encode() if isinstance(self.payload, str) else msgspec.json.encode(self.payload)
        )
        properties = None
        if self.content_type is not None or self.properties:
            properties = Properties(
                content_type=self.content_type, user_properties=tuple(self.properties.items())
            )
        return Message(self.send, payload, self.qos, self.retain, self.publisher, _RECEIVED_NS, properties)


def run_trials(trials: Sequence[Trial], routes: Sequence[Route]) -> Iterator[tuple[Path, str]]:
    """Yield (path, what is not as expected); nothing when all is well."""
    by_name = {route.name: route for route in routes}
    for number, trial in enumerate(trials):
        message = trial.message()
        for nth, expect in enumerate(trial.expect):
            path: Path = ("tests", number, "expect", nth)
            if (route := by_name.get(expect.route)) is None:
                name = expect.route[:64]
                there = f"there are {', '.join(list(by_name)[:20])}" if by_name else "there are none"
                yield (*path, "route"), f"there is no route {name!r}; {there}{did_you_mean(name, by_name)}"
                continue
            for key, text in _compare(expect, _made(route, message)):
                yield (*path, key), text


def _made(route: Route, message: Message) -> Outgoing | str:
    """What the route sends, or why it does not."""
    if not route.wants(message.topic):
        return "no filter of it matches this topic"
    if route.rules.where is not None:
        subject = route.dress.subject(message)
        holds = route.rules.where.holds(subject)
        if holds is MISSING and subject.is_not_json:
            return "`where` cannot be told, because the payload is not JSON"
        if holds is MISSING:
            return "`where` cannot be told: a field is missing, or of another kind"
        if not holds:
            return "`where` is false"
    return dressed(route.dress, message, "test/0/1")


def _compare(expect: Expect, made: Outgoing | str) -> Iterator[tuple[str, str]]:
    if isinstance(made, str):
        if expect.sent:
            yield "route", f"{expect.route!r} does not send it: {made}"
        return
    if not expect.sent:
        yield "sent", f"{expect.route!r} sends it"
        return
    if expect.address is not None and expect.address != made.address:
        yield "address", f"the address is {made.address!r}"
    if expect.headers is not None and expect.headers != dict(made.headers):
        yield "headers", f"the headers are {dict(made.headers)}"
    if expect.body is not None and expect.body.encode() != made.payload:
        yield "body", f"the body is {made.payload.decode(errors='backslashreplace')!r}"
