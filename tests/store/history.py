"""Histories of a store on a hostile disk, and what has to be true in each of them.

1. What a commit has confirmed is there, once, in order, until its cursor has passed it.
2. A sequence number never stands for two contents, for anyone who ever saw them.
3. A cursor stands where it was saved, or before; never behind the end of the log.
4. A key of a table has the value last confirmed, or one handed over after it.
5. After a clean stop nothing is repeated.
6. The store always opens.
7. A second, slow route gets what it wants, in order, whatever was moved out of the way for it.
8. What is found damaged is what a commit left that nobody was told of, and nothing older: neither
   a record that was confirmed, nor what lay in a file before it was used again.
"""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Any

from bridge.message import Message
from bridge.store.log import Log
from bridge.store.reader import Reader
from bridge.store.record import Entry
from bridge.store.table import Table
from tests.store.disk import HostileDisk, Killed, Site

FOLDER = "/gateway/state/uplink"
TABLE = "/gateway/state/tables/marks.tab"
SEGMENT_BYTES = 600


class History:
    """One store, and what its users know."""

    def __init__(self, luck: Random, forgetful: Site | None = None) -> None:
        self.luck = luck
        self.disk = HostileDisk(forgetful)
        self.disk.add_folder("/gateway")
        self.disk.sync_folder("/")
        self.number = 0
        self.confirmed: list[int] = []  # numbers of messages a device got its PUBACK for
        self.settled: set[int] = set()  # numbers the far end has taken
        self.seen: dict[tuple[int, int], int] = {}  # identity → number of the message
        self.late: int | None = None  # the number with which a second route began
        self.late_cursor = 0  # where it stood when it was last seen
        self.late_settled: set[int] = set()
        self.late_began: int | None = None  # where it began, until it has moved
        self.values: dict[str, list[bytes]] = {}  # key → value confirmed, values handed over since
        self.confirmed_places: list[tuple[int, int]] = []  # where they lay
        self.confirmed_files: set[str] = set()  # and the segments that they were the first in
        self.let_go = 0  # up to here nobody wanted any more
        self.torn = False  # whether a commit has come to nothing since the last that was confirmed
        self.found_damaged: set[str] = set()
        self.used_again = 0  # segments written to a file that was another's
        self.reopen()
        if luck.random() < 0.4:
            self.begin_route()

    # ---- steps ---------------------------------------------------------------------

    def open(self) -> None:
        self.disk.make_folder("/gateway/state")
        self.log = Log.open(FOLDER, max_bytes=1 << 20, segment_bytes=SEGMENT_BYTES, files=self.disk)
        self.disk.make_folder("/gateway/state/tables")
        self.table = Table(TABLE, self.disk)
        self.cursor = self.log.cursor("cloud")
        if self.late is not None:
            self.slow = Reader(self.log, "late")
            found = self.slow.cursor.position
            assert found <= max(self.late_cursor, self.log.head)
            if self.late_began is not None:
                assert found == max(self.late_began, self.log.head), "a new route begins where it began"

    def reopen(self, deaths: int = 0) -> None:
        dying = deaths < 3 and self.luck.random() < 0.3
        try:
            if dying:
                self.die_after(self.luck.randrange(12))
            self.open()
        except Killed:
            self.crash(deaths + 1)
            return
        self.disk.before = lambda call: None
        self.check()

    def crash(self, deaths: int = 0) -> None:
        if self.luck.random() < 0.6:
            self.disk.power_cut(self.luck)
        else:
            self.disk.kill()
        self.reopen(deaths)

    def stop(self) -> None:
        """A clean stop, and then the plug is pulled."""
        position = self.cursor.position
        self.log.close()
        self.table.close()
        assert not self.disk.open_files
        self.disk.power_cut(self.luck)
        self.open()
        # A log in which nothing was ever confirmed may find itself beginning further on.
        assert self.cursor.position == max(position, self.log.head)
        self.check()

    def die_after(self, count: int) -> None:
        left = [count]

        def before(call: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        self.disk.before = before

    def fail_after(self, count: int) -> None:
        left = [count]
        number = self.luck.choice((errno.EIO, errno.ENOSPC))

        def before(call: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(number, "injected")

        self.disk.before = before

    def commit(self) -> None:
        count = self.luck.randrange(1, 5)
        numbers = range(self.number, self.number + count)
        self.number += count
        for number in numbers:
            size = self.luck.choice((0, 10, 80, 300, 900))
            self.log.append(Message("a/b", b"%d:" % number + b"x" * size), self.luck.choice((b"", b"why")))
        key = self.luck.choice("kl")
        if put := self.luck.random() < 0.5:
            value = b"%d" % self.number
            self.table.put(key, value * self.luck.choice((1, 40)))
            self.values.setdefault(key, [b""]).append(self.table.get(key) or b"")
        work: list[tuple[Any, Any]] = [(self.log, self.log.take())]
        if put or self.table.dirty:
            work.append((self.table, self.table.take()))
        fate = self.luck.random()
        if fate < 0.15:
            self.die_after(self.luck.randrange(10))
        elif fate < 0.3:
            self.fail_after(self.luck.randrange(8))
        self.torn = True
        try:
            for part, batch in work:
                part.write(batch)
        except Killed:
            if self.luck.random() < 0.6:  # a kill first, and more is built on what it left
                self.disk.kill()
                self.reopen()
                self.commit()
            self.crash()
            return
        except OSError as error:
            for part, batch in work:
                part.fail(batch, error)
            self.disk.before = lambda call: None
            return
        self.disk.before = lambda call: None
        for part, batch in work:
            part.settle(batch)
        self.confirmed += numbers
        self.torn = False
        self.confirmed_places += [(entry.position, entry.end) for entry in work[0][1].entries]
        for segment in work[0][1].new_segments:
            self.confirmed_files.add(os.path.basename(segment.path))
            self.used_again += segment.header.earlier is not None
        for key in work[1][1].changes if len(work) > 1 else ():
            self.values[key] = self.values[key][-1:]

    def deliver(self) -> None:
        """The far end takes some of what waits; the cursor follows."""
        entries = self.log.read(self.cursor.position, self.luck.randrange(1, 6), self.luck.choice((1, 500)))
        self.see(entries)
        if entries and self.luck.random() < 0.8:
            self.settled.update(number_of(entry) for entry in entries)
            self.cursor.save(entries[-1].end)

    def trim(self) -> None:
        self.log.trim()
        self.let_go = max(self.let_go, self.log.head)

    def keep_up(self) -> None:
        """The far end takes all that waits, and the files of what is passed are free to be used again."""
        while entries := self.log.read(self.cursor.position):
            self.see(entries)
            self.settled.update(number_of(entry) for entry in entries)
            self.cursor.save(entries[-1].end)
        self.trim()

    def begin_route(self) -> None:
        """A second route, that wants a third of all and is slow to take it."""
        if self.late is None:
            self.slow = Reader(self.log, "late")
            self.late = self.number
            self.late_began = self.late_cursor = self.slow.cursor.position

    def deliver_slowly(self) -> None:
        if self.late is None:
            self.crash()
            return
        entries = self.slow.read(self.slow.cursor.position, self.luck.randrange(1, 6))
        if entries:
            self.see(entries)
            self.late_settled.update(number_of(entry) for entry in entries)
            self.late_began = None
            self.slow.save(entries[-1].end)
            self.let_go = max(self.let_go, self.log.head)
            self.late_cursor = self.slow.cursor.position

    def move(self) -> None:
        """What the slow route wants of the oldest segments goes aside."""
        sealed = self.log.sealed()
        if self.late is None or not sealed:
            self.commit()
            return
        end = self.luck.choice(sealed)[1]
        begin = self.slow.pin
        entries = [one for one in everything(self.log, begin) if one.position < end]
        wanted = [one for one in entries if one.position >= begin and wants(number_of(one))]
        plan = self.slow.prepare(end, wanted)
        self.late_began = None
        fate = self.luck.random()
        if fate < 0.3:
            self.die_after(self.luck.randrange(14))
        elif fate < 0.4:
            self.fail_after(self.luck.randrange(14))
        try:
            part = None if plan is None else self.slow.write(*plan)
            if end > begin:
                self.late_cursor = max(self.late_cursor, end)
                self.slow.settle(end, part)
                self.trim()
        except Killed:
            if self.luck.random() < 0.5:  # a kill, and the power cut only when all that could be is freed
                self.disk.kill()
                self.reopen()
                self.trim()
            self.crash()
            return
        except OSError:
            self.disk.before = lambda call: None
            return
        self.disk.before = lambda call: None

    def write_table_anew(self) -> None:
        self.table._rewrite = True

    # ---- what has to be true -------------------------------------------------------

    def see(self, entries: list[Entry]) -> None:
        for entry in entries:
            identity = self.log.epoch, entry.sequence
            number = number_of(entry)
            assert self.seen.setdefault(identity, number) == number, "one identity, two messages"

    def check(self) -> None:
        log = self.log
        assert log.head <= self.cursor.position <= log.durable
        self.check_damage()
        entries = everything(log, log.head)
        self.see(entries)
        sequences = [entry.sequence for entry in entries]
        assert sequences == sorted(set(sequences))
        numbers = [number_of(entry) for entry in entries]
        assert numbers == sorted(set(numbers)), "in order, once"
        waiting = {number_of(entry) for entry in everything(log, self.cursor.position)}
        lost = set(self.confirmed) - self.settled - waiting
        assert not lost, f"confirmed and lost: {sorted(lost)}"
        if self.late is not None:
            slow = everything(self.slow, self.slow.cursor.position)
            self.see(slow)
            numbers = [number_of(entry) for entry in slow if wants(number_of(entry))]
            assert numbers == sorted(set(numbers)), "in order, once, also what was moved"
            due = {number for number in self.confirmed if number >= self.late and wants(number)}
            lost = due - self.late_settled - set(numbers)
            assert not lost, f"confirmed and lost to the slow route: {sorted(lost)}"
        for key, values in self.values.items():
            assert (self.table.get(key) or b"") in values, "table"
        assert set(self.table) <= set(self.values)

    def check_damage(self) -> None:
        for name in self.disk.names(FOLDER + "-damaged"):
            if name not in self.found_damaged:
                self.found_damaged.add(name)
                place = name.removeprefix("uplink-")
                assert place not in self.confirmed_files, "a whole segment was taken for damaged"
                if place.endswith(".bin"):
                    at = int(place.removesuffix(".bin"))
                    # Of segments that were let go any may come back, and leave out those between them.
                    kept = [one for one in self.confirmed_places if one[0] >= self.let_go]
                    within = [one for one in kept if one[0] <= at < one[1]]
                    assert not within, "a confirmed record was taken for damaged"
                    behind = self.confirmed_places and at >= self.confirmed_places[-1][1]
                    assert self.torn or not behind, "what lay in the file before was taken for damaged"

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.luck.choices(
                (
                    self.commit,
                    self.deliver,
                    self.trim,
                    self.crash,
                    self.stop,
                    self.write_table_anew,
                    self.begin_route,
                    self.move,
                    self.deliver_slowly,
                    self.keep_up,
                ),
                (16, 8, 4, 6, 2, 4, 2, 6, 1, 6),
            )[0]()
        self.crash()


def wants(number: int) -> bool:
    return number % 3 == 0


def everything(log: Log | Reader, position: int) -> list[Entry]:
    entries: list[Entry] = []
    while more := log.read(position, 7):
        entries += more
        position = more[-1].end
    return entries


def number_of(entry: Entry) -> int:
    return int(entry.message.payload.split(b":")[0])
