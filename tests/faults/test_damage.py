"""Bytes that rot, tear and go missing while the gateway is off (D6, D7, D13, D16).

Each test lays the files of one store down as they were, spoils them in one place and
opens the store on them.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import StoreFailed
from bridge.message import Message
from bridge.store import Spool
from bridge.store.log import Log
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import Entry
from bridge.store.segment import HEADER_BYTES

QUOTA = 1 << 20  # segments of the smallest size, so that a few hundred messages make several
KIB = 1024
TAIL_BYTES = 4 * KIB
MARK_BYTES = RECORD_BYTES  # the zeros behind the last record of a file used again
MESSAGES = 700
LETTERS = 8
# A folder in memory where there is one: these open a store thousands of times, and pull no plug.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as found:
        yield Path(found)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of lines about damage help nobody; the tests that ask for one read the count."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def message(number: int) -> Message:
    return Message("plant/a/7", b"%d:" % number + bytes([number % 251]) * 300, 1, False, "device", number)


def number_of(entry: Entry) -> int:
    return int(entry.message.payload.split(b":")[0])


def everything(log: Log, position: int = 0) -> list[Entry]:
    entries: list[Entry] = []
    while more := log.read(position):
        entries += more
        position = more[-1].end
    return entries


async def filled(path: Path) -> tuple[int, dict[str, dict[str, bytes]]]:
    """A store with something in every kind of file; where its cursor stands, and what its tables say."""
    spool = Spool.open(str(path), QUOTA)
    tables = {"sessions": spool.sessions, "retained": spool.retained, "marks": spool.marks}
    cursor = spool.uplink.cursor("cloud")
    for begin in range(0, MESSAGES, 50):
        spool.uplink.extend([message(number) for number in range(begin, begin + 50)])
        spool.downlink.append(message(begin), b"a note")
        for name, table in tables.items():
            table.put(f"{name}-{begin}", b"%d" % begin * 20)
        assert await spool.committer.flush() is None
    for number in range(LETTERS):
        spool.dead.append(message(number), b"refused")
    assert await spool.committer.flush() is None
    for position in (30, 60):
        cursor.save(everything(spool.uplink)[position].position)
    said = {name: {key: table.get(key) or b"" for key in table} for name, table in tables.items()}
    position = cursor.position
    await spool.close()
    return position, said


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()
    }


def lay(path: Path, files: dict[str, bytes]) -> None:
    """Afterwards exactly these files are there."""
    shutil.rmtree(path, ignore_errors=True)
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- one bit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flips", "seed"),
    [
        pytest.param(200, 1, id="200-flips"),
        pytest.param(2000, 2, id="2000-flips", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_given_one_flipped_bit_anywhere_it_is_noticed_and_costs_one_record_and_alters_none(
    folder: Path, flips: int, seed: int
) -> None:
    luck = random.Random(seed)
    path = folder / "state"
    position, said = await filled(path)
    sound = contents(path)
    # By kind of file first: by bytes alone hardly any flip would meet a cursor.
    kinds = [
        [name for name in sound if name.startswith("uplink") and name.endswith(".seg")],
        [name for name in sound if name.startswith(("downlink", "dead")) and name.endswith(".seg")],
        [name for name in sound if name.endswith(".cur")],
        [name for name in sound if name.endswith(".tab")],
    ]
    assert all(kinds), sound.keys()
    assert len(kinds[0]) > 3
    lost = 0
    for _ in range(flips):
        [names] = luck.choices(kinds, (5, 2, 2, 3))
        name = luck.choice(names)
        bit = luck.randrange(8 * len(sound[name]))
        lay(path, {**sound, name: flipped(sound[name], bit)})
        lost += await _costs_one_record_at_most(path, position, said, f"bit {bit} of {name}")
    print(f"{flips} bits flipped, {flips} noticed, {lost} records lost, 0 altered")
    assert lost <= flips


async def _costs_one_record_at_most(
    path: Path, position: int, said: dict[str, dict[str, bytes]], where: str
) -> int:
    """Open what was spoiled, go on with it, and return how many records it cost."""
    spool = Spool.open(str(path), QUOTA)
    try:
        cursor = spool.uplink.cursor("cloud")
        uplink, downlink, letters = (everything(one) for one in (spool.uplink, spool.downlink, spool.dead))
        for entries in (uplink, downlink, letters):
            for entry in entries:
                assert entry.message == message(number_of(entry)), where
        lost = MESSAGES + MESSAGES // 50 + LETTERS - len(uplink) - len(downlink) - len(letters)
        numbers = [number_of(entry) for entry in uplink]
        assert numbers == sorted(set(numbers)), where
        for name, table in (
            ("sessions", spool.sessions),
            ("retained", spool.retained),
            ("marks", spool.marks),
        ):
            found = {key: table.get(key) for key in table}
            assert found.items() <= said[name].items(), where
            lost += len(said[name]) - len(found)
        assert lost <= 1, where
        assert cursor.position <= position, f"{where}: a cursor that has moved on skips what it passed"
        assert spool.damaged == 1, f"{where}: nobody noticed"
        # And it goes on.
        spool.uplink.append(message(MESSAGES))
        spool.sessions.put("new", b"value")
        assert await spool.committer.flush() is None
        assert number_of(everything(spool.uplink)[-1]) == MESSAGES, where
        return lost
    finally:
        await spool.close()


# ---- the tail ----------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["gone", "zeros", "what lay there before"])
def test_given_the_tail_torn_at_any_of_its_last_4096_bytes_only_what_was_torn_is_lost(
    folder: Path, rest: str
) -> None:
    path = folder / "uplink"
    log = Log.open(str(path), max_bytes=QUOTA, segment_bytes=None)
    older = b""
    if rest == "what lay there before":
        older = _let_go_of_a_segment(log)
    log.extend([message(number) for number in range(150)])
    batch = log.take()
    log.write(batch)
    log.settle(batch)
    log.close()
    end, segment = log.durable, log._segments[-1].path
    assert (log._segments[-1].header.earlier is not None) == bool(older)
    base = log._segments[-1].base
    entries, sound = batch.entries, contents(path)
    newest = os.path.basename(segment)
    assert end - base > TAIL_BYTES + HEADER_BYTES
    opened = 0
    for cut in range(TAIL_BYTES):
        size = end - base - cut
        torn = sound[newest][:size]
        behind = {"gone": b"", "zeros": bytes(len(sound[newest]) - size)}.get(rest, older[size:])
        lay(path, {**sound, newest: torn + behind})
        log = Log.open(str(path), max_bytes=QUOTA, segment_bytes=None)
        whole = [number_of(entry) for entry in entries if entry.end <= base + size]
        assert [number_of(entry) for entry in everything(log, base)] == whole, (
            f"torn {cut} bytes before the end"
        )
        log.append(message(999))
        batch = log.take()
        log.write(batch)
        log.settle(batch)
        assert number_of(everything(log)[-1]) == 999
        log.close()
        opened += 1
    assert opened == TAIL_BYTES
    print(f"{opened} tails, all opened, none lost more than what was torn")


def _let_go_of_a_segment(log: Log) -> bytes:
    """Afterwards the next segment is begun, in the file of one that had these bytes."""
    while not log._spares.bytes:
        log.append(message(0))
        batch = log.take()
        log.write(batch)
        log.settle(batch)
        log.trim(log.durable)
    log._writer.segment = None  # as when it is full
    [spare] = Path(log.folder).glob("*.spare")
    return spare.read_bytes()


def test_given_one_flipped_bit_in_a_file_used_again_only_what_counts_in_it_can_be_damaged(
    folder: Path,
) -> None:
    path = folder / "uplink"
    log = Log.open(str(path), max_bytes=QUOTA, segment_bytes=None)
    older = _let_go_of_a_segment(log)
    log.extend([message(number) for number in range(100)])
    batch = log.take()
    log.write(batch)
    log.settle(batch)
    log.close()
    segment, sound = log._segments[-1], contents(path)
    newest, end = os.path.basename(segment.path), log.durable - segment.base
    assert segment.header.earlier is not None
    assert sound[newest][end + MARK_BYTES : len(older)] == older[end + MARK_BYTES :]
    luck = random.Random(5)
    for _ in range(400):
        bit = luck.randrange(8 * len(sound[newest]))
        lay(path, {**sound, newest: flipped(sound[newest], bit)})
        log = Log.open(str(path), max_bytes=QUOTA, segment_bytes=None)
        found = [number_of(entry) for entry in everything(log, segment.base)]
        assert found == sorted(set(found) & set(range(100)))
        assert len(found) >= 99
        assert log.damaged == (bit // 8 < end + MARK_BYTES), f"bit {bit} of {newest}"
        log.close()


# ---- what is missing, or from yesterday ---------------------------------------------


async def _delivers_from(path: Path, first: int) -> None:
    """Opened, it has every message from `first` on before its cursor, and goes on."""
    spool = Spool.open(str(path), QUOTA)
    try:
        cursor = spool.uplink.cursor("cloud")
        waiting = [number_of(entry) for entry in everything(spool.uplink, cursor.position)]
        assert waiting == list(range(first, MESSAGES))
        spool.uplink.append(message(MESSAGES))
        assert await spool.committer.flush() is None
        assert number_of(everything(spool.uplink)[-1]) == MESSAGES
    finally:
        await spool.close()


@pytest.mark.parametrize(
    ("gone", "first"),
    [
        ("uplink/cursors/", 0),
        ("uplink/cursors/cloud.cur", 0),
        ("tables/", 60),
        ("tables/marks.tab", 60),
        ("tables/sessions.tab", 60),
        ("dead/", 60),
        ("downlink/", 60),
        ("lock", 60),
    ],
)
async def test_given_a_file_that_is_missing_nothing_acknowledged_is_lost(
    folder: Path, gone: str, first: int
) -> None:
    path = folder / "state"
    await filled(path)
    sound = contents(path)
    kept = {name: data for name, data in sound.items() if not name.startswith(gone)}
    assert kept != sound
    lay(path, kept)
    await _delivers_from(path, first)


@pytest.mark.parametrize("left", [b"", bytes(48), b"\xff" * 48, b"not a cursor at all", bytes(7)])
async def test_given_a_cursor_of_garbage_everything_is_sent_again(folder: Path, left: bytes) -> None:
    path = folder / "state"
    await filled(path)
    (path / "uplink/cursors/cloud.cur").write_bytes(left)
    await _delivers_from(path, 0)


async def test_given_the_cursor_of_yesterday_what_came_since_is_sent_again(folder: Path) -> None:
    path = folder / "state"
    await filled(path)
    yesterday = (path / "uplink/cursors/cloud.cur").read_bytes()
    spool = Spool.open(str(path), QUOTA)
    spool.uplink.cursor("cloud").save(everything(spool.uplink)[200].position)
    await spool.close()
    (path / "uplink/cursors/cloud.cur").write_bytes(yesterday)
    await _delivers_from(path, 60)


async def test_given_the_cursor_of_yesterday_and_its_segments_let_go_the_oldest_is_next(folder: Path) -> None:
    path = folder / "state"
    await filled(path)
    yesterday = (path / "uplink/cursors/cloud.cur").read_bytes()
    spool = Spool.open(str(path), QUOTA)
    spool.uplink.cursor("cloud").save(everything(spool.uplink)[400].position)
    assert spool.uplink.trim()
    head = number_of(everything(spool.uplink)[0])
    await spool.close()
    assert 60 < head <= 400
    (path / "uplink/cursors/cloud.cur").write_bytes(yesterday)
    await _delivers_from(path, head)


# ---- a newer store ------------------------------------------------------------------


async def test_given_a_store_of_a_newer_version_in_50_forms_it_is_refused_and_no_byte_is_touched(
    folder: Path,
) -> None:
    path = folder / "state"
    await filled(path)
    sound = contents(path)
    names = [name for name in sound if name.endswith((".seg", ".tab", ".cur"))]
    luck = random.Random(3)
    for nth in range(50):
        name = names[nth % len(names)]
        version = luck.randrange(3, 256)
        data = bytearray(sound[name])
        # Of a cursor it is the lowest byte of the magic in each slot, else the byte behind the magic.
        for at in range(0, len(data), 512) if name.endswith(".cur") else (8, 64 + 8):
            data[at] = version
        newer = {**sound, name: bytes(data)}
        if nth % 2:  # and there is something that recovery would like to do
            newer["tables/sessions.tab.new"] = b"half a table"
        lay(path, newer)
        with pytest.raises(StoreFailed, match="nothing was touched"):
            Spool.open(str(path), QUOTA)
        assert contents(path) == newer, name
    lay(path, sound)
    await _delivers_from(path, 60)
