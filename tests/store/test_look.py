"""A look from outside: everything is seen, nothing is touched, and a gateway at work is no damage."""

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest

from bridge.errors import StoreFailed
from bridge.message import Message
from bridge.store import Entry, Log, Reader, Spool
from bridge.store.look import LOOKING, LogLook, StoreLook
from bridge.store.segment import HEADER_BYTES, Damage

RECEIVED_NS = 1_800_000_000 * 10**9
SMALL = 1 << 20  # of a quota: the uplink then has segments of 64 KiB


def message(number, size=0):
    return Message("a", str(number).encode().ljust(size), 1, received_ns=RECEIVED_NS + number)


def commit(log, *messages):
    log.extend(messages)
    batch = log.take()
    log.write(batch)
    log.settle(batch)


@pytest.fixture
def log(tmp_path):
    """A log of 40 messages in several segments, still open, as that of a running gateway."""
    log = Log.open(str(tmp_path / "uplink"), max_bytes=SMALL, segment_bytes=4096)
    for begin in range(0, 40, 4):
        commit(log, *(message(number, 500) for number in range(begin, begin + 4)))
    assert len(segments(log)) > 3
    yield log
    log.close()


def segments(log):
    return sorted(Path(log.folder).glob("*.seg"))


def numbers(found):
    return [int(one.message.payload) for one in found if isinstance(one, Entry)]


def damage(found):
    return [one for one in found if isinstance(one, Damage)]


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def everything_in(folder):
    """Names, bytes and times of change: what may not be other after a look."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else os.listdir(path))
        for path in [folder, *folder.rglob("*")]
    }


def test_every_message_is_seen_once_and_in_order(log):
    found = list(LogLook(log.folder).walk())
    assert numbers(found) == list(range(40))
    assert [one.end for one in found] == sorted(one.end for one in found)


def test_from_a_position_on_only_what_lies_there_or_behind(log):
    entries = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)]
    assert numbers(LogLook(log.folder).walk(entries[17].position)) == list(range(17, 40))
    assert numbers(LogLook(log.folder).walk(entries[-1].end)) == []


def test_a_look_cannot_write():
    for call in (LOOKING.create, LOOKING.write, LOOKING.sync, LOOKING.unlink, LOOKING.rename, LOOKING.lock):
        with pytest.raises(AssertionError):
            call("anything", b"")


async def test_given_a_store_when_looked_at_then_no_byte_and_no_time_of_it_changes(tmp_path):
    spool = Spool.open(str(tmp_path / "store"), SMALL)
    spool.uplink.cursor("telemetry")
    spool.uplink.extend([message(number) for number in range(100)])
    spool.retained.put("a", b"value")
    assert await spool.committer.flush() is None

    def look():
        before = everything_in(tmp_path / "store")
        look = StoreLook(str(tmp_path / "store"))
        assert numbers(look.logs["uplink"].walk()) == list(range(100))
        assert [(Path(table.path).name, table.records, table.flaws) for table in look.tables()] == [
            ("retained.tab", 1, [])
        ]
        assert everything_in(tmp_path / "store") == before

    look()  # beside a process that has it open
    await spool.close()
    look()


def test_every_file_is_opened_for_reading_only(log, monkeypatch):
    opened = []
    os_open = os.open

    def noted(path, flags, *more, **named):
        opened.append((path, flags))
        return os_open(path, flags, *more, **named)

    log.cursor("telemetry")
    monkeypatch.setattr("bridge.store.look.os.open", noted)
    assert numbers(LogLook(log.folder).walk()) == list(range(40))
    assert len({path for path, _ in opened}) == len(segments(log)) + 1
    assert {flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC) for _, flags in opened} == {os.O_RDONLY}


async def test_given_looks_that_go_on_when_a_gateway_starts_then_it_gets_the_lock(tmp_path):
    for _ in range(3):
        spool = Spool.open(str(tmp_path / "store"), SMALL)
        look = StoreLook(str(tmp_path / "store"))
        await spool.close()
        walking = look.logs["uplink"].walk()
        spool = Spool.open(str(tmp_path / "store"), SMALL)
        assert list(walking) == []
        await spool.close()


def test_given_a_segment_unlinked_under_it_then_the_look_goes_on_behind_it(log):
    walking = LogLook(log.folder).walk()
    seen = [next(walking)]
    for path in segments(log)[:3]:
        path.unlink()
    seen += walking
    assert not damage(seen)
    assert numbers(seen) == sorted(set(numbers(seen)))
    assert numbers(seen)[0] == 0
    assert numbers(seen)[-1] == 39
    assert len(numbers(seen)) < 40


async def test_while_a_gateway_writes_and_lets_go_every_look_is_whole_and_in_order(tmp_path):
    """A writer, a reader that lets segments go, and looks in between, with turns of their own."""
    spool = Spool.open(str(tmp_path / "store"), SMALL)
    cursor = spool.uplink.cursor("telemetry")
    stop = asyncio.Event()
    written = 0

    async def write():
        nonlocal written
        while not stop.is_set():
            spool.uplink.extend([message(number, 700) for number in range(written, written + 50)])
            assert await spool.committer.flush() is None
            written += 50
            cursor.save(max(cursor.position, spool.uplink.durable - 300_000))
            spool.uplink.trim()

    def look():
        looked = 0
        gone = 0
        while gone < 10 or written < 5000:
            assert looked < 5000, "nothing was let go of meanwhile"
            before, durable, at = written, spool.uplink.durable, cursor.position
            log = StoreLook(str(tmp_path / "store")).logs["uplink"]
            seen = list(log.walk())
            assert not damage(seen), damage(seen)
            assert not log.flaws
            assert [one.sequence for one in seen] == sorted({one.sequence for one in seen})
            kept = numbers(seen)
            # All that was acknowledged before the look, and is not delivered yet, is in it.
            behind = [one for one in seen if one.position >= cursor.position]
            if behind:
                first = int(behind[0].message.payload)
                assert kept[-1] >= before - 1
                assert [number for number in kept if number >= first] == list(range(first, kept[-1] + 1))
            else:
                assert cursor.position >= durable
            assert at <= (log.cursors["telemetry"] or 0) <= cursor.position
            gone += log.head > 0
            looked += 1

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    await asyncio.to_thread(look)
    stop.set()
    await writing
    await spool.close()


def test_given_one_flipped_bit_then_that_record_is_damage_and_all_others_are_seen(log):
    entries = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)]
    for index in (0, 13, 25):
        one = entries[index]
        path = next(path for path in reversed(segments(log)) if int(path.stem) <= one.position)
        flip(path, one.position - int(path.stem) + 40)
        found = list(LogLook(log.folder).walk())
        assert damage(found) == [Damage(one.position, one.end, at_tail=False)]
        assert numbers(found) == [number for number in range(40) if number != index]
        flip(path, one.position - int(path.stem) + 40)


def test_given_zeros_where_older_records_were_then_that_is_damage_too(log):
    path = segments(log)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    [(begin, end, at_tail)] = damage(LogLook(log.folder).walk())
    assert int(path.stem) < begin < end
    assert end == int(segments(log)[2].stem)
    assert not at_tail
    path.write_bytes(whole[: len(whole) // 2])  # and so is a file that was cut
    assert [(one.begin, one.end) for one in damage(LogLook(log.folder).walk())] == [(begin, end)]


def test_given_zeros_from_the_end_of_a_record_on_then_that_is_damage_as_well(log):
    path = segments(log)[1]
    entries = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)]
    inside = [one for one in entries if int(path.stem) <= one.position < int(segments(log)[2].stem)]
    whole = path.read_bytes()
    path.write_bytes(whole[: inside[0].end - int(path.stem)].ljust(len(whole), b"\0"))
    found = list(LogLook(log.folder).walk())
    assert damage(found) == [Damage(inside[0].end, inside[-1].end, at_tail=False)]
    assert len(numbers(found)) == 40 - len(inside) + 1


def test_given_an_end_that_rotted_then_it_is_damage_at_the_tail(log):
    last = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)][-1]
    path = segments(log)[-1]
    flip(path, last.end - int(path.stem) - 1)
    found = list(LogLook(log.folder).walk())
    assert numbers(found) == list(range(39))
    assert [(one.begin, one.at_tail) for one in damage(found)] == [(last.position, True)]


def test_given_a_write_half_done_when_looked_at_then_the_record_is_awaited_and_is_no_damage(log, monkeypatch):
    path = segments(log)[-1]
    before = path.read_bytes()
    last = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)][-1]
    middle = (last.position + last.end) // 2 - int(path.stem)
    path.write_bytes(before[:middle].ljust(len(before), b"\0"))
    waits = []

    def the_write_ends(seconds):
        waits.append(seconds)
        path.write_bytes(before)

    monkeypatch.setattr("bridge.store.look.time.sleep", the_write_ends)
    found = list(LogLook(log.folder).walk())
    assert numbers(found) == list(range(40))
    assert not damage(found)
    assert len(waits) == 1


def test_given_a_record_half_seen_with_whole_ones_behind_it_then_it_is_looked_at_again(log, monkeypatch):
    """Pages of one write become visible one by one; a read may fall in between."""
    path = segments(log)[-1]
    entries = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)]
    one = next(entry for entry in entries if entry.position > int(path.stem))
    assert one is not entries[-1]
    whole = path.read_bytes()
    path.write_bytes(
        whole[: one.position - int(path.stem) + 30] + bytes(50) + whole[one.position - int(path.stem) + 80 :]
    )
    read = LOOKING.read
    reads = []

    def arrives_after_the_first(fd, length, offset):
        data = read(fd, length, offset)
        reads.append(offset)
        if length > HEADER_BYTES and os.fstat(fd).st_ino == path.stat().st_ino:
            path.write_bytes(whole)
        return data

    monkeypatch.setattr(LOOKING, "read", arrives_after_the_first)
    found = list(LogLook(log.folder).walk())
    assert not damage(found)
    assert numbers(found) == list(range(40))


def test_given_a_file_used_again_for_another_segment_then_its_old_records_are_gone_and_no_damage(log):
    look = LogLook(log.folder)
    first, second, *_ = segments(log)
    walking = look.walk()
    assert isinstance(next(walking), Entry)
    os.replace(first, second)  # what was the second is no more
    assert not damage(walking)


def test_half_of_a_header_or_of_a_cursor_is_a_flaw_that_costs_nothing(log):
    log.cursor("telemetry")
    path = segments(log)[2]
    flip(path, 20)
    cursor = Path(log.folder) / "cursors" / "telemetry.cur"
    flip(cursor, 512 + 6)
    look = LogLook(log.folder)
    assert [(Path(flaw.file).name, flaw.lost) for flaw in look.flaws] == [
        ("telemetry.cur", False),
        (path.name, False),
    ]
    assert look.cursors == {"telemetry": log.cursors["telemetry"].position}
    assert numbers(look.walk()) == list(range(40))
    flip(cursor, 3 + 8)
    look = LogLook(log.folder)
    assert look.cursors == {"telemetry": None}


def test_given_a_segment_without_a_header_then_it_is_named_and_the_others_are_read(log):
    path = segments(log)[2]
    flip(path, 20)
    flip(path, 20 + 64)
    look = LogLook(log.folder)
    assert [(Path(flaw.file).name, flaw.lost) for flaw in look.flaws] == [(path.name, True)]
    seen = numbers(look.walk())
    assert seen == sorted(set(seen))
    assert seen[-1] == 39


def test_given_a_segment_only_just_begun_then_it_is_no_damage(log):
    (Path(log.folder) / f"{log.durable + 4096:020d}.seg").write_bytes(bytes(4096))
    look = LogLook(log.folder)
    assert not look.flaws
    assert numbers(look.walk()) == list(range(40))


# ---- what was moved aside for a slow route -------------------------------------------------


def odd(entry):
    return int(entry.message.payload) % 2 == 1


@pytest.fixture
def slow(log):
    """A reader that wants every other message and has delivered none; `telemetry` has delivered all."""
    reader = Reader(log, "slow")
    log.cursor("telemetry").save(log.durable)
    return reader


def move(log, reader, segment_count):
    """What the reader wants of the oldest segments goes aside, and they go."""
    end = log.sealed()[segment_count - 1][1]
    position = reader.pin
    wanted = []
    while position < end and (entries := log.read(position)):
        wanted += [one for one in entries if one.position < end and odd(one)]
        position = entries[-1].end
    reader.settle(end, reader.write(*reader.prepare(end, wanted)))
    log.trim()
    assert log.head >= end


def test_what_was_moved_aside_comes_in_its_place_for_its_route_and_for_all(log, slow):
    whole = [one for one in LogLook(log.folder).walk() if isinstance(one, Entry)]
    move(log, slow, 2)
    look = LogLook(log.folder)
    for_route = numbers(look.walk(0, "slow"))
    aside = [number for number in for_route if whole[number].position < log.head]
    assert aside == list(range(1, 2 * len(aside), 2))
    assert for_route == aside + list(range(for_route[len(aside)], 40))
    assert numbers(look.walk()) == for_route
    by_number = {int(one.message.payload): one for one in look.walk() if isinstance(one, Entry)}
    assert [by_number[number] for number in for_route] == [whole[number] for number in for_route]
    assert not look.flaws


def test_for_its_route_nothing_comes_twice_where_the_segment_is_still_kept(log, slow):
    log.history.keep_s = 10**12
    end = log.sealed()[1][1]
    with pytest.raises(AssertionError):
        move(log, slow, 2)
    assert log.head < end  # kept as history
    look = LogLook(log.folder)
    for_route = numbers(look.walk(0, "slow"))
    assert for_route == sorted(set(for_route))
    assert for_route[:3] == [1, 3, 5]
    assert numbers(look.walk()) == list(range(40))


def test_given_records_moved_under_it_then_the_look_finds_them_aside(log, slow):
    for route in ("slow", None):
        look = LogLook(log.folder)
        walking = look.walk(0, route)
        seen = [next(walking)]
        move(log, slow, 2)
        seen += walking
        kept = numbers(seen)
        assert kept == sorted(set(kept))
        assert {number for number in kept if number % 2} == set(range(numbers(look.walk())[0] | 1, 40, 2))
        assert not damage(seen)


def test_given_a_file_aside_written_anew_under_it_then_nothing_is_missed_or_twice(log, slow):
    move(log, slow, 1)
    walking = LogLook(log.folder).walk(0, "slow")
    seen = [next(walking)]
    move(log, slow, 2)  # the small file goes into the next one
    assert len(list(Path(log.folder).glob("aside/slow/*.mvd"))) == 1
    seen += walking
    kept = numbers(seen)
    assert kept == sorted(set(kept))
    assert {number for number in kept if number % 2} == set(range(1, 40, 2))


def test_given_rot_in_what_was_moved_then_the_others_are_seen(log, slow):
    move(log, slow, 2)
    [path] = Path(log.folder).glob("aside/slow/*.mvd")
    before = numbers(LogLook(log.folder).walk(0, "slow"))
    flip(path, 128 + 40)
    look = LogLook(log.folder)
    assert numbers(look.walk(0, "slow")) == before[1:]
    [part] = look.parts("slow")
    assert len(damage(look.walk_part(part))) == 1
    flip(path, 20)
    flip(path, 20 + 64)
    assert [(Path(flaw.file), flaw.lost) for flaw in LogLook(log.folder).flaws] == [(path, True)]


@pytest.mark.parametrize("name", ["uplink/{segment}", "uplink/cursors/telemetry.cur", "tables/retained.tab"])
async def test_a_newer_format_is_refused_with_what_to_do(tmp_path, name):
    spool = Spool.open(str(tmp_path / "store"), SMALL)
    spool.uplink.cursor("telemetry")
    spool.uplink.extend([message(1)])
    spool.retained.put("a", b"value")
    assert await spool.committer.flush() is None
    await spool.close()
    path = tmp_path / "store" / name.format(segment=f"{0:020d}.seg")
    content = bytearray(path.read_bytes())
    for at in (0, 512) if path.suffix == ".cur" else (8, 72):
        content[at] = 9
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match=r"run the newer edgespool"):
        list(StoreLook(str(tmp_path / "store")).tables())


def test_a_folder_that_is_no_store_is_said_to_be_none(tmp_path):
    with pytest.raises(StoreFailed, match=r"there is no store in .*--state"):
        StoreLook(str(tmp_path))


def test_memory_does_not_grow_with_the_store(tmp_path):
    def peak_of(segment_count):
        folder = str(tmp_path / str(segment_count))
        log = Log.open(folder, max_bytes=1 << 30, segment_bytes=64 * 1024)
        for begin in range(segment_count):
            commit(log, *(message(number, 1000) for number in range(begin * 60, begin * 60 + 60)))
        log.close()
        tracemalloc.start()
        read = sum(1 for _ in LogLook(folder).walk())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert read == segment_count * 60
        return peak

    few, many = peak_of(4), peak_of(64)
    assert many < 1.5 * few + 64 * 1024
