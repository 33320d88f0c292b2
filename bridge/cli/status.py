"""`edgespool status`: the status document for a person, in 80 columns.

Sinks first, because a backlog is explained by the sink that is down; then what waits for
each route, and what became of all that it ever accepted. Names and reasons come from a
configuration and from far ends: they are escaped, and shortened only where another
column would be pushed out.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPException

import msgspec

from bridge.cli.columns import count, cut, size, span, table, wrapped
from bridge.observe.escape import printable
from bridge.observe.status import CommandStatus, RouteStatus, Status

__all__ = ["render", "show_status"]

WAIT_S = 5
_MEMORY = "in memory: it may lose messages, and counts since the start"
_REASONS = {
    "full_oldest": "oldest, the store was full",
    "full_newest": "newest, the store was full",
    "bound_oldest": "oldest, the route was at its bound",
    "bound_newest": "newest, the route was at its bound",
}

_UNDECIDED = {
    "not_json": "filtered, the payload is not JSON",
    "unknown": "filtered, what `where` asks for is missing or of another kind",
}


def show_status(web: str, as_json: bool) -> int:
    """Print the status of the gateway at `web`; return the exit code."""
    url = f"http://{web}/api/v1/status"
    try:
        document = _get(url)
        status = msgspec.json.decode(document, type=Status)
    except (OSError, HTTPException, ValueError) as error:
        # ValueError covers a URL that is none and a document that is not ours.
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        print(
            f"edgespool: no status from {printable(web)}: {printable(str(why))}; "
            "is the gateway running? name its address with --web HOST:PORT",
            file=sys.stderr,
        )
        return 1
    if as_json:
        print(document.decode())
    else:
        print("\n".join(render(status, now=datetime.now(UTC))))
    return 0


def _get(url: str) -> bytes:
    # Without proxies: what the environment says about the internet is not meant for a gateway.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=WAIT_S) as answer:
        body: bytes = answer.read()
        return body


def render(status: Status, now: datetime) -> Iterator[str]:
    """Yield the lines for a person."""
    yield (
        f"edgespool {status.version}  {cut(printable(status.gateway), 40)}  up {span(status.uptime_s)}"
        + ("  ready" if status.ready else "  NOT READY")
    )
    for reason in status.reasons:
        yield from wrapped("  ", reason)
    mqtt, store = status.mqtt, status.store
    yield ""
    yield f"devices  {mqtt.connections:,} connected, {mqtt.sessions:,} sessions"
    yield from wrapped("         on ", ", ".join(mqtt.listeners))
    yield f"{'':9}{mqtt.received:,} received, {mqtt.acknowledged:,} acknowledged, {mqtt.unrouted:,} unrouted"
    yield f"{'':9}{mqtt.refused:,} refused, {mqtt.dropped:,} dropped, {mqtt.delivered:,} delivered to devices"
    if mqtt.denied or mqtt.logins_failed or mqtt.turned_away:
        yield (
            f"{'':9}{mqtt.denied:,} not allowed, {mqtt.logins_failed:,} failed logins, "
            f"{mqtt.turned_away:,} turned away"
        )
    fill = 100 * store.bytes / store.max_bytes if store.max_bytes else 0
    yield (
        f"store    {store.state}, {size(store.bytes)} of {size(store.max_bytes)} ({fill:.0f} %), "
        f"a commit takes {store.commit_ms:.1f} ms"
    )
    if store.history_bytes:
        yield f"         {size(store.history_bytes)} of it delivered, and kept while there is room"
    if store.reason:
        yield from wrapped("         ", store.reason)
    yield from wrapped("         ", store.path)
    if store.damaged or status.dead_letters:
        yield f"         {store.damaged:,} damaged records kept aside, {status.dead_letters:,} dead letters"

    yield ""
    yield from table(
        ("SINK", "KIND", "STATE", "SINCE", "ADDRESS"),
        [
            (name, sink.kind, sink.state, _since(sink.since, now), sink.address)
            for name, sink in status.sinks.items()
        ],
        "<<<><",
        notes=[sink.reason for sink in status.sinks.values()],
    )
    yield ""
    yield from table(
        ("ROUTE", "SINK", "BACKLOG", "BYTES", "OLDEST"),
        [
            (
                name,
                route.sink,
                "counting" if route.counting else count(route.stored),
                size(route.backlog_bytes),
                span(route.oldest_age_s) if route.stored else "-",
            )
            for name, route in status.routes.items()
        ],
        "<<>>>",
        notes=[_MEMORY if route.durability == "memory" else "" for route in status.routes.values()],
    )
    yield ""
    yield from table(
        ("ROUTE", "ACCEPTED", "DELIVERED", "STORED", "LOST", "REFUSED", "EXPIRED", "FILTERED"),
        [
            (
                name,
                "counting" if route.counting else count(route.accepted),
                count(route.delivered),
                "counting" if route.counting else count(route.stored),
                count(route.lost),
                count(route.refused),
                count(route.expired),
                count(route.filtered),
            )
            for name, route in status.routes.items()
        ],
        "<>>>>>>>",
        notes=[_lost(route) for route in status.routes.values()],
    )
    yield from _commands(status)
    yield from _dead_letters(status)


def _dead_letters(status: Status) -> Iterator[str]:
    rows = [
        (route or "-", count(letters), reason)
        for route, kinds in sorted(status.dead_letters_by_route.items())
        for reason, letters in sorted(kinds.items(), key=lambda kind: -kind[1])
    ]
    if rows:
        yield ""
        yield from table(("DEAD LETTERS OF", "COUNT", "REASON"), rows, "<><")
    for route, letters in status.dead_letters_dropped.items():
        yield from wrapped("  ", f"{letters:,} more of {route} had to make way for newer ones")


def _commands(status: Status) -> Iterator[str]:
    if status.commands:
        yield ""
        yield from table(
            ("COMMANDS", "STATE", "RECEIPT", "RECEIVED", "WAITING", "DONE", "EXPIRED", "FAILED"),
            [
                (
                    name,
                    one.state,
                    one.receipt,
                    count(one.received),
                    count(one.waiting),
                    count(one.stored + one.delivered),
                    count(one.expired),
                    count(one.rejected + one.undeliverable + one.lost),
                )
                for name, one in status.commands.items()
            ],
            "<<<>>>>>",
            notes=[_about(one) for one in status.commands.values()],
        )


def _about(command: CommandStatus) -> str:
    """Why nothing comes, and what may not come at all."""
    notes = [command.reason] if command.reason else []
    if command.lossy:
        notes.append("may lose commands (confirm: none)")
    if command.lost:
        notes.append(f"{command.lost:,} came here and were lost")
    return "; ".join(notes)


def _lost(route: RouteStatus) -> str:
    """Why messages were not sent, in words; empty where there is nothing to explain."""
    why = [f"{number:,} {_REASONS.get(reason, reason)}" for reason, number in route.dropped.items() if number]
    if route.damaged:
        why.append(f"{route.damaged:,} damaged on the disk")
    why += [
        f"{number:,} {_UNDECIDED.get(reason, reason)}" for reason, number in route.undecided.items() if number
    ]
    return ", ".join(why)


def _since(moment: str, now: datetime) -> str:
    try:
        return span(max(0.0, (now - datetime.fromisoformat(moment)).total_seconds()))
    except (ValueError, TypeError):
        return moment
