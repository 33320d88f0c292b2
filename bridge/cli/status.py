"""`edgespool status`: the status document for a person, in 80 columns.

Sinks first, because a backlog is explained by the sink that is down; then one
line per route. Names and reasons come from a configuration and from far ends:
they are escaped, and shortened only where another column would be pushed out.
"""

from __future__ import annotations

import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.client import HTTPException

import msgspec

from bridge.observe.escape import printable
from bridge.observe.status import Status

__all__ = ["render", "show_status"]

WAIT_S = 5
WIDTH = 80


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
        f"edgespool {status.version}  {_cut(printable(status.gateway), 40)}  up {_span(status.uptime_s)}"
        + ("  ready" if status.ready else "  NOT READY")
    )
    for reason in status.reasons:
        yield from _wrapped("  ", reason)
    mqtt, store = status.mqtt, status.store
    yield ""
    yield f"devices  {mqtt.connections:,} connected, {mqtt.sessions:,} sessions"
    yield from _wrapped("         on ", ", ".join(mqtt.listeners))
    yield f"{'':9}{mqtt.received:,} received, {mqtt.acknowledged:,} acknowledged, {mqtt.unrouted:,} unrouted"
    yield f"{'':9}{mqtt.refused:,} refused, {mqtt.dropped:,} dropped, {mqtt.delivered:,} delivered to devices"
    if mqtt.denied or mqtt.logins_failed or mqtt.turned_away:
        yield (
            f"{'':9}{mqtt.denied:,} not allowed, {mqtt.logins_failed:,} failed logins, "
            f"{mqtt.turned_away:,} turned away"
        )
    fill = 100 * store.bytes / store.max_bytes if store.max_bytes else 0
    yield (
        f"store    {store.state}, {_size(store.bytes)} of {_size(store.max_bytes)} ({fill:.0f} %), "
        f"a commit takes {store.commit_ms:.1f} ms"
    )
    if store.reason:
        yield from _wrapped("         ", store.reason)
    yield from _wrapped("         ", store.path)
    if store.damaged or status.dead_letters:
        yield f"         {store.damaged:,} damaged records kept aside, {status.dead_letters:,} dead letters"

    yield ""
    yield from _table(
        ("SINK", "KIND", "STATE", "SINCE", "ADDRESS"),
        [
            (name, sink.kind, sink.state, _since(sink.since, now), sink.address)
            for name, sink in status.sinks.items()
        ],
        "<<<><",
        notes=[sink.reason for sink in status.sinks.values()],
    )
    yield ""
    yield from _table(
        ("ROUTE", "SINK", "BACKLOG", "BYTES", "OLDEST", "DELIVERED", "LOST", "REFUSED", "EXPIRED"),
        [
            (
                name,
                route.sink,
                _count(route.backlog_messages),
                _size(route.backlog_bytes),
                _span(route.oldest_age_s) if route.backlog_messages else "-",
                _count(route.delivered),
                _count(route.lost),
                _count(route.refused),
                _count(route.expired),
            )
            for name, route in status.routes.items()
        ],
        "<<>>>>>>>",
    )


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], sides: str, notes: Sequence[str] = ()
) -> Iterator[str]:
    """Columns as wide as they must be; where that is too much, the first and the last left one give."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    elastic = [index for index, side in enumerate(sides) if side == "<"]
    while (excess := sum(widths) + gap * (len(widths) - 1) - WIDTH) > 0:
        widest = max(elastic, key=lambda index: widths[index])
        if widths[widest] <= 6:
            break  # numbers are never cut
        widths[widest] -= min(excess, widths[widest] - 6, 1)
    for at, row in enumerate([heads, *rows]):
        cells = [
            f"{_cut(cell, width):{side}{width}}" for cell, width, side in zip(row, widths, sides, strict=True)
        ]
        yield (" " * gap).join(cells).rstrip()
        if at and notes and notes[at - 1]:
            yield from _wrapped("  ", notes[at - 1])


def _wrapped(indent: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text), WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _count(number: int) -> str:
    """Exact up to a million, where the digits begin to blur."""
    if number < 1_000_000:
        return f"{number:,}"
    if number < 1_000_000_000:
        return f"{number / 1e6:.2f}M"
    return f"{number / 1e9:.2f}G"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _span(seconds: float) -> str:
    """Two units of a duration: `3 d 4 h`, `5 min 20 s`, `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, long, small, short in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= long:
            return f"{seconds // long:.0f} {unit} {seconds % long // short:.0f} {small}"
    return f"{seconds:.0f} s"


def _since(moment: str, now: datetime) -> str:
    try:
        return _span(max(0.0, (now - datetime.fromisoformat(moment)).total_seconds()))
    except (ValueError, TypeError):
        return moment
