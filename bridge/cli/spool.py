"""`edgespool spool info` and `verify`: what a store holds, and whether all of it is as it was written.

Both read every record, whether a gateway is running on the store or not, and change
nothing (`bridge.store.look`). `verify` ends with 1 when anything is damaged.

Which messages a route wants stands in the configuration, not in the store. A cursor
of a route that the configuration does not have counts everything behind it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from bridge.cli.columns import count, size, table, wrapped
from bridge.config.load import load
from bridge.config.routes import build_routes
from bridge.errors import BridgeError, ConfigError
from bridge.observe.escape import printable
from bridge.policy.route import Route
from bridge.sinks.metadata import rfc3339
from bridge.store.look import Flaw, LogLook, SegmentLook, StoreLook
from bridge.store.segment import Damage

__all__ = ["Place", "guarded", "open_store", "show_info", "verify_store"]


class Place(msgspec.Struct, frozen=True):
    """A store that was found, with what its configuration says about it."""

    look: StoreLook
    gateway: str
    routes: dict[str, Route]


class SegmentInfo(msgspec.Struct):
    """One segment file."""

    file: str
    first_sequence: int
    messages: int = 0
    bytes: int = 0
    file_bytes: int = 0
    damaged: int = 0


class LogInfo(msgspec.Struct):
    """One log, read from end to end."""

    segments: list[SegmentInfo]
    messages: int = 0
    bytes: int = 0
    file_bytes: int = 0
    oldest: str | None = None
    newest: str | None = None
    damaged: int = 0


class RouteInfo(msgspec.Struct):
    """What one route has still to deliver. `known`: its filters are; else everything counts."""

    cursor: int | None
    known: bool
    messages: int = 0
    bytes: int = 0
    oldest: str | None = None


class StoreInfo(msgspec.Struct):
    """What `spool info --json` prints."""

    path: str
    logs: dict[str, LogInfo]
    routes: dict[str, RouteInfo]
    tables: dict[str, int]
    damaged: int
    copies: int


def open_store(config: Path | None, state: Path | None) -> Place:
    """Look at the store of a configuration, or at the one in `state`. Raises BridgeError, OSError."""
    found = load(config, {"store.path": str(state.absolute())} if state is not None else None)
    routes = (
        {route.name: route for route in build_routes(found)} if config is not None or state is None else {}
    )
    return Place(StoreLook(str(found.store.path)), found.gateway, routes)


def guarded(work: Callable[[], int]) -> int:
    """Run `work`; return its exit code, or that of what went wrong, which is on stderr then."""
    try:
        return work()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ConfigError.EXIT_CODE
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PermissionError as error:
        print(
            f"edgespool: {error.filename}: {error.strerror}; only the user of the gateway may look: "
            "sudo -u USER edgespool …",
            file=sys.stderr,
        )
        return 1
    except (BridgeError, OSError) as error:
        print(f"edgespool: {error}", file=sys.stderr)
        return 1


# ---- info ------------------------------------------------------------------------------


def show_info(config: Path | None, state: Path | None, as_json: bool) -> int:
    """Print what the store holds; return the exit code."""

    def work() -> int:
        info = _take_stock(open_store(config, state))
        if as_json:
            print(msgspec.json.encode(info).decode())
        else:
            print("\n".join(_render(info, time.time_ns())))
        return 0

    return guarded(work)


def _take_stock(place: Place) -> StoreInfo:
    look = place.look
    uplink = look.logs["uplink"]
    routes = {name: RouteInfo(cursor, name in place.routes) for name, cursor in uplink.cursors.items()}
    logs = {
        name: _read_log(log, _counting(place, routes) if log is uplink else None)
        for name, log in look.logs.items()
    }
    tables, damaged = {}, 0
    for one in look.tables():
        tables[os.path.basename(one.path)] = one.records
        damaged += len(one.flaws)
    damaged += sum(log.damaged for log in logs.values())
    return StoreInfo(look.path, logs, routes, tables, damaged, len(look.damaged))


Counter = Callable[[int, int, str, int], None]


def _counting(place: Place, routes: dict[str, RouteInfo]) -> Counter:
    """Return what counts one message, by position, end, topic and arrival, for the routes that want it."""

    @lru_cache(maxsize=4096)
    def wanting(topic: str) -> list[tuple[int, RouteInfo]]:
        return [
            (info.cursor or 0, info)
            for name, info in routes.items()
            if not info.known or place.routes[name].wants(topic)
        ]

    def counted(position: int, end: int, topic: str, received_ns: int) -> None:
        for cursor, info in wanting(topic):
            if position >= cursor:
                info.messages += 1
                info.bytes += end - position
                info.oldest = info.oldest or rfc3339(received_ns)

    return counted


def _read_log(log: LogLook, counted: Counter | None) -> LogInfo:
    info = LogInfo([], damaged=len(log.flaws))
    oldest_ns = newest_ns = 0
    for segment in log.segments:
        one = SegmentInfo(os.path.basename(segment.path), segment.header.sequence, file_bytes=segment.size)
        info.segments.append(one)
        for found in log.walk_segment(segment):
            if isinstance(found, Damage):
                one.damaged += 1
                continue
            one.messages += 1
            one.bytes += found.end - found.position
            newest_ns = found.message.received_ns
            oldest_ns = oldest_ns or newest_ns
            if counted is not None:
                counted(found.position, found.end, found.message.topic, newest_ns)
        info.messages += one.messages
        info.bytes += one.bytes
        info.file_bytes += one.file_bytes
        info.damaged += one.damaged
    if info.messages:
        info.oldest, info.newest = rfc3339(oldest_ns), rfc3339(newest_ns)
    return info


def _render(info: StoreInfo, now_ns: int) -> Iterator[str]:
    yield f"store    {printable(info.path)}"
    if info.damaged:
        yield from wrapped("damage   ", f"{info.damaged:,} places; `edgespool spool verify` lists them")
    else:
        yield "damage   none"
    if info.copies:
        yield f"         {info.copies:,} copies of what earlier starts cut off or skipped, in damaged/"
    yield ""
    yield from table(
        ("LOG", "SEGMENTS", "MESSAGES", "BYTES", "ON DISK", "OLDEST", "NEWEST"),
        [
            (
                name,
                count(len(log.segments)),
                count(log.messages),
                size(log.bytes),
                size(log.file_bytes),
                _second(log.oldest),
                _second(log.newest),
            )
            for name, log in info.logs.items()
        ],
        "<>>>>>>",
    )
    yield ""
    yield from table(
        ("ROUTE", "BACKLOG", "BYTES", "OLDEST", "CURSOR"),
        [
            (
                name,
                count(route.messages) if route.known else f"≤ {count(route.messages)}",
                size(route.bytes),
                _second(route.oldest),
                "unreadable" if route.cursor is None else str(route.cursor),
            )
            for name, route in info.routes.items()
        ],
        "<>>>>",
    )
    if any(not route.known for route in info.routes.values()):
        yield from wrapped(
            "  ", "≤: what a route wants stands in its configuration; name that, to count only this"
        )
    for name, log in info.logs.items():
        if log.segments:
            yield ""
            yield from table(
                (f"{name.upper()} SEGMENT", "FIRST ID", "MESSAGES", "BYTES", "ON DISK", "DAMAGED"),
                [
                    (
                        one.file,
                        str(one.first_sequence),
                        count(one.messages),
                        size(one.bytes),
                        size(one.file_bytes),
                        count(one.damaged),
                    )
                    for one in log.segments
                ],
                "<>>>>>",
            )
    if info.tables:
        yield ""
        yield "tables   " + ", ".join(f"{name} {records:,} records" for name, records in info.tables.items())


def _second(moment: str | None) -> str:
    return "-" if moment is None else moment[:19] + "Z"


# ---- verify ----------------------------------------------------------------------------


def verify_store(config: Path | None, state: Path | None) -> int:
    """Read everything and print every flaw with its place; return 1 when there is any."""

    def work() -> int:
        look = open_store(config, state).look
        flaws = messages = segments = 0
        for log in look.logs.values():
            segments += len(log.segments)
            for flaw in log.flaws:
                flaws += 1
                print(_flaw_line(look, flaw))
            for segment in log.segments:
                for found in log.walk_segment(segment):
                    if isinstance(found, Damage):
                        flaws += 1
                        print(_flaw_line(look, _flaw_of(log, segment, found)))
                    else:
                        messages += 1
        records = 0
        for one in look.tables():
            records += one.records
            for flaw in one.flaws:
                flaws += 1
                print(_flaw_line(look, flaw))
        print(
            f"{'damaged' if flaws else 'ok'}: {printable(look.path)}: {messages:,} messages in "
            f"{segments:,} segments, {records:,} records in tables, "
            + (f"{flaws:,} damaged places" if flaws else "no damage")
        )
        return 1 if flaws else 0

    return guarded(work)


def _flaw_of(log: LogLook, segment: SegmentLook, damage: Damage) -> Flaw:
    what = (
        "a write that was torn, or the end has rotted; the next start cuts it off and keeps a copy"
        if damage.at_tail
        else "no whole record; readers step over it, and keep a copy"
    )
    return Flaw(segment.path, damage.begin, damage.end, what, lost=True)


def _flaw_line(look: StoreLook, flaw: Flaw) -> str:
    file = printable(os.path.relpath(flaw.file, look.path))
    return f"{file}: {flaw.begin}-{flaw.end} ({flaw.end - flaw.begin:,} bytes): {flaw.what}"
