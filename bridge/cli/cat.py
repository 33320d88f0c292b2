"""`edgespool spool cat` and `export`: the messages of a store, for a person and for a program.

A message is shown when it passes what was asked for: behind the cursor of a route
and wanted by it, a topic that a filter matches, an arrival between two moments. Lines
come in the order of the log, each message once, also while a gateway is writing.

An exported line is the object of `edgespool tail --json`, without the address where
no route was named; one of the dead letters also says why it was refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from bridge.cli.lines import for_programs, payload_for_people
from bridge.cli.spool import Place, guarded, open_store
from bridge.errors import StoreFailed
from bridge.forward.letters import letter_of
from bridge.observe.escape import printable
from bridge.policy.route import Route
from bridge.policy.spelling import did_you_mean
from bridge.sinks.base import Outgoing
from bridge.sinks.metadata import metadata, rfc3339
from bridge.sinks.receiver import Received
from bridge.store import Entry
from bridge.topic import matches

__all__ = ["Wanted", "exported_line", "print_lines", "print_messages"]

_FLUSH_LINES: Final = 200


class Wanted(msgspec.Struct, frozen=True):
    """Which messages are asked for; what is None or empty asks for nothing in particular."""

    route: str | None = None
    delivered_too: bool = False
    topic_filters: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    dead: bool = False


def print_messages(config: Path | None, state: Path | None, wanted: Wanted, as_json: bool) -> int:
    """Print the messages that are wanted; return the exit code."""

    def work() -> int:
        place = open_store(config, state)
        route = _route(place, wanted)
        line = exported_line if as_json else _for_people
        print_lines(line(id, entry, route) for id, entry in _entries(place, wanted, route))
        return 0

    return guarded(work)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, many at a stroke; each ends with a line feed."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) >= _FLUSH_LINES:
            sys.stdout.write("".join(waiting))
            waiting.clear()
    sys.stdout.write("".join(waiting))
    sys.stdout.flush()


def _route(place: Place, wanted: Wanted) -> Route | None:
    """The route that is meant, if its filters are known. Raises StoreFailed when there is none."""
    name = wanted.route
    if name is None:
        return None
    if (route := place.routes.get(name)) is not None:
        return route
    there = [*place.routes, *place.look.logs["uplink"].cursors]
    if wanted.dead:
        return None  # also of a route that is gone
    if name not in there:
        raise StoreFailed(
            f"there is no route {name[:64]!r}; there are {', '.join(sorted(set(there))[:20])}"
            f"{did_you_mean(name, there)}"
        )
    print(
        f"edgespool: what {printable(name)} wants stands in its configuration, which was not named; "
        "these are all messages from its place on",
        file=sys.stderr,
    )
    return None


def _entries(place: Place, wanted: Wanted, route: Route | None) -> Iterator[tuple[str, Entry]]:
    log = place.look.logs["dead" if wanted.dead else "uplink"]
    position = 0
    if wanted.route is not None and not wanted.delivered_too and not wanted.dead:
        position = log.cursors.get(wanted.route) or 0
        behind: str | None = wanted.route
    else:
        behind = None
    asks = _asker(wanted, None if wanted.dead else route)
    settled = place.look.settled() if wanted.dead and not wanted.delivered_too else None
    since_ns, until_ns = wanted.since_ns, wanted.until_ns
    prefix = f"{place.gateway}/{place.look.logs['uplink'].epoch:08x}/"
    for found in log.walk(position, behind):
        if isinstance(found, Entry):
            received_ns = found.message.received_ns
            if since_ns is not None and received_ns < since_ns:
                continue
            if until_ns is not None and received_ns >= until_ns:
                continue
            if settled is not None and settled(found):
                continue
            if wanted.dead and wanted.route is not None and letter_of(found).route != wanted.route:
                continue
            if asks(found.message.topic):
                yield prefix + str(found.sequence), found


def _asker(wanted: Wanted, route: Route | None) -> Callable[[str], bool]:
    filters = wanted.topic_filters

    @lru_cache(maxsize=4096)
    def asks(topic: str) -> bool:
        if route is not None and not route.wants(topic):
            return False
        return not filters or any(matches(topic_filter, topic) for topic_filter in filters)

    return asks


def _for_people(id: str, entry: Entry, route: Route | None) -> str:
    message = entry.message
    arrived, payload = rfc3339(message.received_ns)[:23], payload_for_people(message.payload)
    letter = _letter(entry)
    why = f", refused by {letter.get('sink')}: {letter.get('reason')}" if letter else ""
    about = printable(str(letter.get("id", id)) + why)
    return f"{arrived}Z  {printable(message.topic)}  {payload}  ({about})\n"


def exported_line(id: str, entry: Entry, route: Route | None) -> str:
    """One message as an object of JSON; with its address where its route is known."""
    address = route.address(entry.message) if route is not None else ""
    meta: dict[str, Any] = msgspec.to_builtins(metadata(Outgoing(id, address, entry.message)))
    if not address:
        del meta["address"]
    letter = _letter(entry)
    if letter:
        meta["id"] = letter.get("id", id)
    told = for_programs(Received(id, entry.message.topic, address, entry.message.payload, meta))
    if letter:
        told = f'{told[:-1]}, "dead_letter": {json.dumps(letter)}}}'
    return told + "\n"


def _letter(entry: Entry) -> dict[str, Any]:
    """Why a dead letter was refused; empty for a message that is none."""
    if not entry.note:
        return {}
    try:
        found = json.loads(entry.note)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    if isinstance(found.get("refused_at_ns"), int):
        found["refused_at"] = rfc3339(found.pop("refused_at_ns"))
    return found
