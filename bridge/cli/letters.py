"""What `edgespool dlq` does: dead letters, listed, shown, exported, sent again, dropped.

Looking reads the store as it stands, whether a gateway runs on it or not, and changes
nothing (`bridge.store.look`). What changes something a running gateway does, when it is
asked (`bridge.forward.orders`). Without one, letters are dropped here, under the store's
lock; a replay needs sinks, so that order lies there until a gateway starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bridge.cli.cat import exported_line, print_lines
from bridge.cli.columns import count, table, wrapped
from bridge.cli.replay import attend
from bridge.cli.spool import Place, guarded, open_store
from bridge.config.load import load
from bridge.errors import StoreFailed
from bridge.forward.letters import DeadLetter, Letters, Selection, kind_of, letter_of
from bridge.forward.orders import ORDER_BYTES_MAX, LetterOrder, LetterOutcome, letter_desk
from bridge.forward.redelivery import drop
from bridge.observe.escape import printable
from bridge.policy.envelope import rfc3339
from bridge.policy.route import Route
from bridge.store import Entry, Spool
from bridge.store.look import StoreLook

__all__ = ["export", "order", "print_list", "print_one"]

SHOWN_BYTES_MAX: Final = 2048
_HEX_WIDTH: Final = 16


def _waiting(place: Place, selection: Selection) -> Iterator[tuple[Entry, DeadLetter]]:
    """The letters that are meant and wait, oldest first."""
    settled = place.look.settled()
    for found in place.look.logs["dead"].walk():
        if isinstance(found, Entry) and not settled(found):
            letter = letter_of(found)
            if selection.has(letter):
                yield found, letter


def _route(place: Place, entry: Entry, letter: DeadLetter) -> Route | None:
    """Its route, if that would still take it."""
    route = place.routes.get(letter.route)
    return route if route is not None and route.wants(entry.message.topic) else None


def print_list(config: Path | None, state: Path | None, selection: Selection) -> int:
    """Print a line for each letter, then how many there are; return the exit code."""

    def work() -> int:
        kinds: Counter[tuple[str, str]] = Counter()

        def lines() -> Iterator[str]:
            for entry, letter in _waiting(open_store(config, state), selection):
                kinds[letter.route, kind_of(letter.reason)] += 1
                yield (
                    f"{rfc3339(letter.refused_at_ns)[:19]}Z  {printable(letter.id)}  "
                    f"{printable(letter.route)} to {printable(letter.sink)}, {_tries(letter)}  "
                    f"{printable(entry.message.topic)}  ({printable(letter.reason)})\n"
                )

        print_lines(lines())
        if kinds:
            print()
        rows = [(route or "-", count(letters), reason) for (route, reason), letters in kinds.most_common()]
        print("\n".join(table(("ROUTE", "LETTERS", "REASON"), rows, "<><") if rows else ["no dead letters"]))
        return 0

    return guarded(work)


def _tries(letter: DeadLetter) -> str:
    return f"{letter.tries:,} {'try' if letter.tries == 1 else 'tries'}"


def print_one(config: Path | None, state: Path | None, id: str) -> int:
    """Print the letter with this id (the letters, if several routes have one); return the exit code."""

    def work() -> int:
        place = open_store(config, state)
        found = list(_waiting(place, Selection(ids=[id])))
        if not found:
            raise StoreFailed(f"there is no dead letter {id[:300]!r}; edgespool dlq list has those that wait")
        for nth, (entry, letter) in enumerate(found):
            print("\n" * bool(nth) + "\n".join(_shown(entry, letter, _route(place, entry, letter))))
        return 0

    return guarded(work)


def _shown(entry: Entry, letter: DeadLetter, route: Route | None) -> Iterator[str]:
    message = entry.message
    yield printable(letter.id)
    facts = [
        ("reason", letter.reason),
        ("refused", f"{rfc3339(letter.refused_at_ns)} by {letter.sink}, after {_tries(letter)}"),
        ("route", letter.route + ("" if route else ", which does not take it any more")),
        ("topic", message.topic),
        ("address", "" if route is None else route.address(message)),
        ("arrived", rfc3339(message.received_ns)),
        ("publisher", message.publisher),
        ("qos", f"{message.qos}{', retained' if message.retain else ''}"),
    ]
    properties = msgspec.to_builtins(message.properties) if message.properties is not None else {}
    facts += [(name, str(value)) for name, value in properties.items()]
    for name, value in facts:
        if value:
            yield from wrapped(f"  {name:<9} ", value) if len(name) < 10 else wrapped("  ", f"{name} {value}")
    yield f"  payload   {len(message.payload):,} bytes"
    yield from (f"    {line}" for line in _payload_lines(message.payload[:SHOWN_BYTES_MAX]))
    if len(message.payload) > SHOWN_BYTES_MAX:
        yield f"    … edgespool dlq export --id {printable(letter.id)} has all of it"


def _payload_lines(payload: bytes) -> Iterator[str]:
    """Text as its lines, whatever else as bytes, a row of them each."""
    try:
        # A cut may go through a character: what is left of it is not the payload's fault.
        text = payload.decode(errors="ignore" if len(payload) == SHOWN_BYTES_MAX else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character in "\n\r\t" for character in text):
        for line in text.splitlines():
            yield from textwrap.wrap(printable(line), 76, drop_whitespace=False) or [""]
        return
    for at in range(0, len(payload), _HEX_WIDTH):
        row = payload[at : at + _HEX_WIDTH]
        readable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:06x}  {row.hex(' '):<{3 * _HEX_WIDTH}} {readable}"


def export(config: Path | None, state: Path | None, selection: Selection) -> int:
    """Print letters as NDJSON, whole; return the exit code."""

    def work() -> int:
        place = open_store(config, state)
        print_lines(
            exported_line(letter.id, entry, _route(place, entry, letter))
            for entry, letter in _waiting(place, selection)
        )
        return 0

    return guarded(work)


# ---- what changes something ------------------------------------------------------------


def order(config: Path | None, state: Path | None, order: LetterOrder, *, wait: bool) -> int:
    """Have it done, and say what became of it; return the exit code: 1 when letters stay that were meant."""

    def work() -> int:
        found = load(config, {"store.path": str(state.absolute())} if state is not None else None)
        path = str(found.store.path)
        StoreLook(path)  # says so if there is none
        if len(msgspec.json.encode(order)) > ORDER_BYTES_MAX // 2:
            raise StoreFailed("these are too many ids for one order; name them in several, or by --route")
        if not _is_running(path):
            _become_owner(path)
            if order.what == "drop":
                return _told(order, asyncio.run(_drop_here(path, found.store.max_bytes, order)))
        desk = letter_desk(path)
        if not _is_running(path):
            desk.open()
            desk.ask(order)
            print("no gateway is running; the letters go when it starts")
            return 0
        name = desk.ask(order)
        try:
            outcome = attend(desk, name, wait=wait)
        except TimeoutError:
            desk.take_back(name)
            raise StoreFailed(f"the gateway on the store {path} does not answer; nothing was done") from None
        except KeyboardInterrupt:
            desk.take_back(name)
            print("edgespool: stopped; what was done by now is done", file=sys.stderr)
            return 1
        if outcome is None:
            print(f"the gateway has begun; to stop it, remove {printable(desk.folder)}/{name}.run")
            return 0
        return _told(order, outcome)

    return guarded(work)


def _is_running(path: str) -> bool:
    """Whether a process holds the store."""
    try:
        fd = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _become_owner(path: str) -> None:
    """Root is let in everywhere, but a file that root makes here would keep the gateway out."""
    owner = os.stat(path)
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


async def _drop_here(path: str, max_bytes: int, order: LetterOrder) -> LetterOutcome:
    outcome = LetterOutcome()
    spool = Spool.open(path, max_bytes)
    try:
        letters = Letters(spool)
        await drop(letters, order, outcome)
        letters.let_go()
    finally:
        await spool.close()
    return outcome


def _told(order: LetterOrder, outcome: LetterOutcome) -> int:
    if outcome.error:
        raise StoreFailed(outcome.error)
    what = "dropped" if order.what == "drop" else "sent and confirmed"
    since = " since the gateway was started again" if outcome.resumed else ""
    print(f"{outcome.settled:,} dead letter{'' if outcome.settled == 1 else 's'} {what}{since}")
    if outcome.refused:
        print(f"  refused again, and still there: {outcome.refused:,} ({printable(outcome.reason)})")
    if outcome.stranded:
        left = f"{outcome.stranded:,}; name a sink with --to SINK"
        print(f"  their route is gone, and they are still there: {left}")
    return 1 if outcome.refused or outcome.stranded else 0
