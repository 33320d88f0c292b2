"""The routes of a configuration: what they say about the rest, and the rules they become.

A route names its sink and uses the levels that its filters name. Both can only be
checked with the rest of the document at hand. `check_routes` does so on plain values,
before and independent of the model, so that one mistake elsewhere does not hide these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from bridge.config.listeners import check_listeners
from bridge.config.model import Config
from bridge.config.problem import Path
from bridge.config.route import Drain as DrainModel
from bridge.config.words import is_loopback, split_host_port
from bridge.policy.batch import BatchLimits
from bridge.policy.dress import fields_of
from bridge.policy.fields import Fields
from bridge.policy.lanes import lane_names
from bridge.policy.pace import Drain, PaceLimits
from bridge.policy.pack import Pack
from bridge.policy.retry import ONE_TRY, RetryLimits
from bridge.policy.route import Route
from bridge.policy.sieve import Deadband, parse_sample
from bridge.policy.spelling import did_you_mean
from bridge.policy.template import Template
from bridge.policy.tokens import ExpressionError
from bridge.policy.where import Condition
from bridge.sinks.options import MemoryOptions
from bridge.topic import TOPIC_BYTES_MAX, Pattern

__all__ = ["build_routes", "check_routes", "warnings"]


def build_routes(config: Config, cursors: Collection[str] = ()) -> list[Route]:
    """Return the routes as rules, in the order of the file; one to several sinks is as many rules.

    `cursors` are those that the store has, see `bridge.policy.lanes`.

    Raises ValueError for an address that `check_routes` would have found.
    """
    return [
        Route(
            lane,
            [Pattern.parse(text) for text in route.from_],
            sink,
            route.address,
            where=route.where,
            sample=None if route.sample is None else parse_sample(route.sample),
            deadband=None if route.deadband is None else (route.deadband.field, route.deadband.delta),
            every_s=route.every,
            headers=route.headers,
            body=route.body,
            envelope=route.envelope,
            gateway=config.gateway,
            batch=BatchLimits(
                messages=route.batch.messages, bytes=route.batch.bytes, wait_s=route.batch.wait
            ),
            max_age_s=route.max_age,
            max_messages=route.max_messages,
            max_bytes=route.max_bytes,
            durability=route.durability,
            when_full=route.when_full,
            priority=route.priority,
            fallback=None if route.fallback is None else (route.fallback.to, route.fallback.after),
            pack=None if route.pack == "none" else Pack(route.pack, route.compress),
            drain=_drain(route.drain),
            retry=ONE_TRY if route.retry is None else RetryLimits(route.retry.tries, route.retry.wait),
        )
        for name, route in config.routes.items()
        for lane, sink in zip(lane_names(name, route.to, cursors), route.to, strict=True)
    ]


def _drain(drain: DrainModel) -> Drain:
    return Drain(
        live_first=drain.order == "live_first",
        backlog=PaceLimits(drain.rate, drain.bytes),
        live=PaceLimits(drain.live.rate, drain.live.bytes),
    )


def check_routes(data: Any) -> Iterator[tuple[Path, str, int]]:
    """Yield (path, what is wrong, column within the value) for what routes get wrong about the rest.

    `data` may be anything at all: what is not of the right type is the model's business.
    """
    if not isinstance(data, dict):
        return
    yield from check_listeners(data.get("listeners"), data.get("access"))
    sinks = data.get("sinks", {})
    routes = data.get("routes", {})
    if not isinstance(routes, dict):
        return
    for name, route in routes.items():
        if not isinstance(route, dict):
            continue
        path: Path = ("routes", name)
        yield from _check_sinks(path, route, sinks if isinstance(sinks, dict) else None)
        patterns = _patterns(route.get("from"))
        if patterns:
            yield from _check_expressions(path, route, patterns)


def _check_expressions(
    path: Path, route: dict[Any, Any], patterns: list[Pattern]
) -> Iterator[tuple[Path, str, int]]:
    try:
        fields = fields_of(patterns)
    except ValueError:
        return  # a bad level name, which the model reports where it stands
    texts: list[tuple[Path, Any]] = [((key,), route.get(key)) for key in ("address", "body")]
    headers = route.get("headers")
    if isinstance(headers, dict):
        texts += [(("headers", name), text) for name, text in headers.items() if isinstance(name, str)]
    for key, text in texts:
        yield from _compiled(Template.compile, (*path, *key), text, fields)
    yield from _compiled(Condition.compile, (*path, "where"), route.get("where"), fields)
    deadband = route.get("deadband")
    if isinstance(deadband, dict):
        yield from _compiled(Deadband.of, (*path, "deadband", "field"), deadband.get("field"), fields)


def _compiled(
    compiler: Callable[[str, Fields], object], path: Path, text: Any, fields: Fields
) -> Iterator[tuple[Path, str, int]]:
    if isinstance(text, str):
        try:
            compiler(text, fields)
        except ExpressionError as wrong:
            yield path, str(wrong), wrong.column


def _check_sinks(
    path: Path, route: dict[Any, Any], sinks: dict[Any, Any] | None
) -> Iterator[tuple[Path, str, int]]:
    """Where a route leads: to sinks that there are, to none twice."""
    to = route.get("to")
    named: list[tuple[Path, Any]] = [((*path, "to"), to)]
    if isinstance(to, list):
        named = [((*path, "to", at), sink) for at, sink in enumerate(to)]
        for at, sink in enumerate(to):
            if sink in to[:at]:
                yield (*path, "to", at), f"the sink {str(sink)[:64]!r} stands here twice", 0
    fallback = route.get("fallback")
    if isinstance(fallback, dict) and (second := fallback.get("to")) is not None:
        where = (*path, "fallback", "to")
        named.append((where, second))
        if isinstance(to, list) and len(to) > 1:
            text = "'fallback' is for a route with one sink; with several, each gets every message anyway"
            yield (*path, "fallback"), text, 0
        elif second in (to if isinstance(to, list) else [to]):
            yield where, f"the route goes to {str(second)[:64]!r} already; name another sink", 0
    for where, sink in named:
        if isinstance(sink, str) and sinks is not None and sink not in sinks:
            yield where, _no_such_sink(sink, list(sinks)), 0


def _no_such_sink(sink: str, sinks: list[str]) -> str:
    if not sinks:
        return f"there is no sink {sink[:64]!r}; the file has no sinks"
    return f"there is no sink {sink[:64]!r}; there are {', '.join(sinks[:20])}{did_you_mean(sink, sinks)}"


def _patterns(filters: Any) -> list[Pattern]:
    """The filters that can be parsed; none if one of them cannot, since names depend on all."""
    texts = [filters] if isinstance(filters, str) else filters
    if not isinstance(texts, list) or any(
        isinstance(text, str) and len(text) > TOPIC_BYTES_MAX for text in texts
    ):
        return []
    try:
        return [Pattern.parse(text) for text in texts if isinstance(text, str)]
    except ValueError:
        return []


def warnings(config: Config) -> list[str]:
    """Return what is allowed and probably not meant, one sentence each."""
    found = []
    if not config.routes:
        found.append("there are no routes: what devices publish reaches other devices, and no cloud")
    used = {sink for route in config.routes.values() for sink in route.to}
    used |= {route.fallback.to for route in config.routes.values() if route.fallback is not None}
    sources = [command.from_.amqp for command in config.commands.values()]
    used |= {source.sink for source in sources if source is not None and source.sink is not None}
    found += [f"sinks.{name}: no route leads there" for name in config.sinks if name not in used]
    for name, route in config.routes.items():
        if route.durability == "memory":
            found.append(f"routes.{name}: may lose messages: `durability: memory` keeps them from the disk")
        for sink in [*route.to, *([route.fallback.to] if route.fallback is not None else [])]:
            entry = config.sinks.get(sink)
            if entry is not None and isinstance(entry.options, MemoryOptions):
                found.append(f"routes.{name}: loses messages, because the sink {sink!r} is only memory")
    found += [
        f"{whose}: a password stands in a file that everyone on this machine can read; "
        "chmod 600 it, or write ${cred:NAME} or ${file:/PATH} instead"
        for whose in config.exposed_passwords()
    ]
    if config.web is not None and not is_loopback(split_host_port(config.web.listen)[0]):
        found.append(f"web.listen: everyone who can reach {config.web.listen} can read the status")
    return found
