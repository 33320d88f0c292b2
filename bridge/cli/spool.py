"""`edgespool spool info` and `verify`: what a store holds, and whether all of it is as it was written.

Both read every record, whether a gateway is running on the store or not, and change
nothing (`bridge.store.look`). `verify` ends with 1 when anything is damaged.

Which messages a route wants stands in the configuration, not in the store. A cursor
of a route that the configuration does not have counts everything behind it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bridge.cli.columns import count, size, table, wrapped
from bridge.config.load import load
from bridge.config.routes import build_routes
from bridge.errors import BridgeError, ConfigError
from bridge.observe.escape import printable
from bridge.policy.route import Route
from bridge.sinks.metadata import rfc3339
from bridge.store import Entry
from bridge.store.look import Flaw, LogLook, SegmentLook, StoreLook
from bridge.store.segment import Damage

__all__ = ["Place", "guarded", "open_store", "show_info", "verify_store"]


TOPICS_MAX = 4096  # remembered for each route


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
    aside_bytes: int = 0  # moved out of the way for a slow route
    spare_files: int = 0  # that the next segments will be written to
    spare_bytes: int = 0


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
    backlogs = [_Backlog(name, cursor, place.routes.get(name)) for name, cursor in uplink.cursors.items()]
    logs = {name: _read_log(log, backlogs if log is uplink else []) for name, log in look.logs.items()}
    # Last, because what is moved aside meanwhile is then found there, and not counted twice.
    for backlog in backlogs:
        logs["uplink"].damaged += backlog.add_aside(uplink)
    tables, damaged = {}, 0
    for one in look.tables():
        tables[os.path.basename(one.path)] = one.records
        damaged += len(one.flaws)
    damaged += sum(log.damaged for log in logs.values())
    routes = {backlog.name: backlog.info() for backlog in backlogs}
    return StoreInfo(look.path, logs, routes, tables, damaged, len(look.damaged))


class _Backlog:
    """What one route has still to deliver, counted by segment: all of one may be found aside later."""

    def __init__(self, name: str, cursor: int | None, route: Route | None) -> None:
        self.name = name
        self._cursor = cursor
        self._route = route
        self._wanted: dict[str, bool] = {}
        self._by_base: dict[int, list[int]] = {}  # segment → messages, bytes, arrival of the oldest

    def wants(self, topic: str) -> bool:
        if self._route is None:
            return True
        if (known := self._wanted.get(topic)) is None:
            if len(self._wanted) >= TOPICS_MAX:
                self._wanted.clear()
            known = self._wanted[topic] = self._route.wants(topic)
        return known

    def add(self, base: int, entry: Entry) -> None:
        """Count a message that lies in the segment at `base`, if it is wanted."""
        if entry.position >= (self._cursor or 0) and self.wants(entry.message.topic):
            counted = self._by_base.setdefault(base, [0, 0, entry.message.received_ns])
            counted[0] += 1
            counted[1] += entry.end - entry.position

    def add_aside(self, log: LogLook) -> int:
        """Count what was moved aside, and not where it lay; return how much of it is damaged."""
        parts = log.parts(self.name)
        covered = max((part.end for part in parts), default=0)
        self._by_base = {base: counted for base, counted in self._by_base.items() if base >= covered}
        damaged = 0
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                for found in log.walk_part(part):
                    if isinstance(found, Entry):
                        self.add(part.begin, found)
                    else:
                        damaged += 1
        return damaged

    def info(self) -> RouteInfo:
        counted = [self._by_base[base] for base in sorted(self._by_base)]
        return RouteInfo(
            self._cursor,
            self._route is not None,
            sum(messages for messages, _, _ in counted),
            sum(size for _, size, _ in counted),
            rfc3339(counted[0][2]) if counted else None,
        )


def _read_log(log: LogLook, backlogs: list[_Backlog]) -> LogInfo:
    info = LogInfo([], damaged=len(log.flaws), spare_files=len(log.spares))
    info.spare_bytes = sum(size for _, size in log.spares)
    oldest_ns = newest_ns = 0
    for segment in log.segments:
        base = segment.header.base
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
            for backlog in backlogs:
                backlog.add(base, found)
        info.messages += one.messages
        info.bytes += one.bytes
        info.file_bytes += one.file_bytes
        info.damaged += one.damaged
    if info.messages:
        info.oldest, info.newest = rfc3339(oldest_ns), rfc3339(newest_ns)
    for route in log.routes_aside():
        info.aside_bytes += sum(part.size for part in log.parts(route))
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
                _minute(log.oldest),
                _minute(log.newest),
            )
            for name, log in info.logs.items()
        ],
        "<>>>>>>",
    )
    if aside := sum(log.aside_bytes for log in info.logs.values()):
        yield f"  and {size(aside)} moved aside for routes that are far behind"
    if spares := sum(log.spare_bytes for log in info.logs.values()):
        yield f"  and {size(spares)} in files that hold nothing any more, for the next segments"
    yield ""
    yield from table(
        ("ROUTE", "BACKLOG", "BYTES", "OLDEST", "CURSOR"),
        [
            (
                name,
                count(route.messages) if route.known else f"≤ {count(route.messages)}",
                size(route.bytes),
                _minute(route.oldest),
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
        yield "tables   records: " + ", ".join(f"{name} {records:,}" for name, records in info.tables.items())


def _minute(moment: str | None) -> str:
    return "-" if moment is None else moment[:16] + "Z"


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
            for flaw in _flaws_aside(log):
                flaws += 1
                print(_flaw_line(look, flaw))
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


def _flaws_aside(log: LogLook) -> Iterator[Flaw]:
    for route in log.routes_aside():
        for part in log.parts(route):
            with contextlib.suppress(FileNotFoundError):
                for found in log.walk_part(part):
                    if isinstance(found, Damage):
                        begin, end = found.begin - part.begin, found.end - part.begin
                        yield Flaw(part.path, begin, end, "no whole record; readers step over it", lost=True)


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
