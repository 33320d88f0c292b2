"""The log, held against its model, and what it makes of files that were damaged."""

import errno
import os
import resource
import shutil
import stat
import struct
import tempfile
import threading
import zlib
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.errors import StoreFailed
from bridge.message import Message, Properties
from bridge.store import log as log_module
from bridge.store.files import Files
from bridge.store.log import Log
from bridge.store.memory import MemoryLog
from bridge.store.record import Entry, encode_one
from bridge.store.segment import HEADER_BYTES

QUOTA = 1 << 20
# A folder in memory where there is one, for tests that sync often and pull no plug.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def commit(log: Log, *messages: Message) -> list[Entry]:
    log.extend(messages)
    batch = log.take()
    log.write(batch)
    log.settle(batch)
    return batch.entries


def numbered(*numbers: int, size: int = 0) -> list[Message]:
    return [Message("a/b", b"%d:" % number + b"x" * size, 1, False, "dev", number) for number in numbers]


def everything(log: Log, position: int = 0, messages_max: int = 1000) -> list[Entry]:
    entries: list[Entry] = []
    while more := log.read(position, messages_max):
        assert more[-1].end > position
        entries += more
        position = more[-1].end
    assert position <= log.durable
    return entries


def numbers(entries: list[Entry]) -> list[int]:
    return [int(entry.message.payload.split(b":")[0]) for entry in entries]


def reopened(log: Log, **options: int) -> Log:
    log.close()
    return Log.open(log.folder, max_bytes=log.max_bytes, segment_bytes=log.segment_bytes, **options)


class FailingFiles(Files):
    """The disk, that fails at one call to come and then works again."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_in: dict[str, int] = {}

    def _may_fail(self, call: str) -> None:
        left = self.fail_in.get(call)
        if left is not None:
            self.fail_in[call] = left - 1
            if left == 0:
                self.fail_in.clear()
                raise OSError(errno.EIO, f"{call} failed")

    def write(self, fd, data, offset):
        try:
            self._may_fail("write")
        except OSError:
            super().write(fd, data[: len(data) // 2], offset)
            raise
        super().write(fd, data, offset)

    def sync(self, fd):
        self._may_fail("sync")
        super().sync(fd)

    def sync_folder(self, path):
        self._may_fail("sync_folder")
        super().sync_folder(path)

    def create(self, path, size=0):
        self._may_fail("create")
        return super().create(path, size)

    def truncate(self, fd, size):
        self._may_fail("truncate")
        super().truncate(fd, size)

    def unlink(self, path):
        self._may_fail("unlink")
        super().unlink(path)


messages = st.builds(
    Message,
    topic=st.sampled_from(["a", "a/b", "ü/€"]),
    payload=st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * 700, b"y" * 5000])),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    publisher=st.sampled_from(["", "dev"]),
    received_ns=st.integers(0, 2**62),
    properties=st.none() | st.builds(Properties, user_properties=st.just((("k", "v"),))),
)
noted = st.tuples(messages, st.sampled_from([b"", b"", b"why"]))


class LogAgainstItsModel(RuleBasedStateMachine):
    @initialize(segment_bytes=st.sampled_from([600, 4000, 65536]))
    def begin(self, segment_bytes):
        self.root = tempfile.mkdtemp(dir=MEMORY)
        self.segment_bytes = segment_bytes
        self.files = FailingFiles()
        self.model = MemoryLog()
        self.handed_over: list[tuple[Message, bytes]] = []  # by commits that failed and may come back
        self.known: dict[int, tuple[Message, bytes]] = {}  # sequence → contents ever read
        self.open()

    def open(self):
        self.log = Log.open(
            os.path.join(self.root, "uplink"),
            max_bytes=QUOTA,
            segment_bytes=self.segment_bytes,
            files=self.files,
        )
        self.cursor = self.log.cursor("cloud")
        # What was handed to a commit that nobody confirmed may be there, or not.
        newest = max(self.known, default=0)
        for entry in everything(self.log):
            if entry.sequence > newest:
                assert (entry.message, entry.note) in self.handed_over
                self.model.committed.append((entry.message, entry.note))
        self.handed_over = []

    def teardown(self):
        if hasattr(self, "log"):
            self.log.close()
            shutil.rmtree(self.root)

    @rule(items=st.lists(noted, min_size=1, max_size=6))
    def append(self, items):
        for message, note in items:
            self.model.append(message, note)
            self.log.append(message, note)

    @rule()
    def commit(self):
        batch = self.log.take()
        self.log.write(batch)
        self.log.settle(batch)
        self.model.commit()

    @rule(
        call=st.sampled_from(["write", "sync", "create", "sync_folder", "truncate", "unlink"]),
        at=st.integers(0, 4),
        undo_fails=st.booleans(),
    )
    def commit_that_may_fail(self, call, at, undo_fails):
        self.files.fail_in = {call: at}
        batch = self.log.take()
        try:
            self.log.write(batch)
        except OSError as error:
            if undo_fails:
                self.files.fail_in = {"unlink": 0}
            self.log.fail(batch, error)
            self.handed_over += self.model.pending
            self.model.crash()
        else:
            self.log.settle(batch)
            self.model.commit()
        self.files.fail_in = {}

    @precondition(lambda self: not self.model.pending)
    @rule()
    def stop_and_start(self):
        position = self.cursor.position
        self.log.close()
        self.open()
        assert self.cursor.position == position

    @rule()
    def crash_in_a_commit(self):
        batch = self.log.take()
        self.log.write(batch)  # and the process is killed before anyone hears of it
        self.handed_over += self.model.pending
        self.model.crash()
        self.log.close()
        self.open()

    @rule(share=st.floats(0, 1), messages_max=st.integers(1, 9), bytes_max=st.sampled_from([0, 300, 1 << 18]))
    def read_from_anywhere(self, share, messages_max, bytes_max):
        entries = everything(self.log)
        at = int(share * len(entries))
        position = entries[at].position if at < len(entries) else self.log.durable
        part = self.log.read(position, messages_max, bytes_max)
        assert part == entries[at : at + len(part)]
        assert len(part) <= messages_max
        assert bool(part) == (at < len(entries))

    @rule(messages_max=st.integers(1, 9))
    def deliver(self, messages_max):
        entries = self.log.read(self.cursor.position, messages_max)
        if entries:
            self.cursor.save(entries[-1].end)

    @rule()
    def trim(self):
        self.log.trim()

    @rule(amount=st.integers(0, 2 * QUOTA))
    def reserve(self, amount):
        had_room = self.log.has_room(amount)
        assert self.log.reserve(amount) == had_room
        if amount > QUOTA:
            assert not had_room

    @invariant()
    def the_log_is_its_model(self):
        if not hasattr(self, "log"):
            return
        log = self.log
        assert log.head <= self.cursor.position <= log.durable
        entries = everything(log)
        contents = [(entry.message, entry.note) for entry in entries]
        if contents:
            assert contents == self.model.committed[-len(contents) :]
        waiting = [entry for entry in entries if entry.position >= self.cursor.position]
        gone = len(self.model.committed) - len(contents)
        assert gone == 0 or log.head > 0
        assert len(waiting) <= len(contents)
        sequences = [entry.sequence for entry in entries]
        assert sequences == sorted(set(sequences))
        for entry in entries:
            known = self.known.setdefault(entry.sequence, (entry.message, entry.note))
            assert known == (entry.message, entry.note)


LogAgainstItsModel.TestCase.settings = settings(
    max_examples=80, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheLogIsItsModel = LogAgainstItsModel.TestCase


@pytest.fixture
def quick_path():
    path = Path(tempfile.mkdtemp(dir=MEMORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def log(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=1 << 30)
    yield log
    log.close()


@pytest.fixture
def three_segments(quick_path):
    """Thirty messages in three segments, closed."""
    log = Log.open(str(quick_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100)
    commit(log, *numbered(*range(30), size=60))
    assert len(log._bases) >= 3
    log.cursor("cloud")
    log.close()
    return log


def segments(log: Log) -> list[str]:
    return sorted(os.path.join(log.folder, name) for name in os.listdir(log.folder) if name.endswith(".seg"))


def change(path: str, how) -> None:
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(how(data))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- reading -----------------------------------------------------------------------


def test_a_caught_up_reader_reads_no_disk(log, monkeypatch):
    (entry,) = commit(log, *numbered(1))
    monkeypatch.setattr(log, "_read_disk", None)
    commit(log, *numbered(2, 3))
    assert numbers(log.read(entry.end)) == [2, 3]


def test_asked_for_no_messages_a_reader_gets_none_and_loses_none(log):
    commit(log, *numbered(1, 2))
    log._recent = type(log._recent)()
    assert log.read(0, 0) == []
    assert log.damaged == 0
    assert numbers(log.read(0)) == [1, 2]


@pytest.mark.parametrize("size", [log_module.READ_BYTES - 60, log_module.READ_BYTES, 3 * 1024 * 1024])
def test_a_message_longer_than_one_read_is_read_all_the_same(log, size):
    commit(log, *numbered(1, 2, size=size))
    log = reopened(log)
    assert numbers(everything(log)) == [1, 2]
    log.close()


def test_a_message_longer_than_a_segment_gets_a_segment_of_its_own(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100)
    commit(log, *numbered(1, size=10), *numbered(2, size=9000), *numbered(3, size=10))
    log = reopened(log)
    assert numbers(everything(log)) == [1, 2, 3]
    log.close()


def test_a_log_trimmed_by_force_does_not_hand_out_what_it_let_go(log):
    log.segment_bytes = 1100
    commit(log, *numbered(*range(30), size=60))
    log.trim(log.oldest_segment_end())
    first = log.read(0, 1)[0]
    assert first.position >= log.head


def test_reading_a_large_backlog_takes_no_memory(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=1 << 30)
    for _ in range(64):
        commit(log, *numbered(*range(64), size=16 * 1024))
    log = reopened(log)
    assert log.size > 64 * 1024 * 1024
    process = psutil.Process()
    position, grown, entries = 0, 0, log.read(0)
    before = process.memory_info().rss
    while entries := log.read(position):
        position = entries[-1].end
        grown = max(grown, process.memory_info().rss - before)
    log.close()
    assert grown < 6 * 1024 * 1024


def test_while_a_thread_writes_readers_see_only_what_is_durable_and_trim_lets_it_work(tmp_path):
    files = Files()
    entered, go_on = threading.Event(), threading.Event()
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100, files=files)
    commit(log, *numbered(*range(30), size=60))

    def slow(fd):
        entered.set()
        assert go_on.wait(10)
        os.fdatasync(fd)

    files.sync = slow
    log.extend(numbered(*range(30, 60), size=60))
    batch = log.take()
    thread = threading.Thread(target=log.write, args=(batch,))
    thread.start()
    assert entered.wait(10)
    log._recent = type(log._recent)()
    assert numbers(everything(log)) == list(range(30))
    assert log.trim(log.durable) >= 1
    go_on.set()
    thread.join()
    log.settle(batch)
    read = numbers(everything(log))
    assert read == list(range(read[0], 60))
    log.close()


def test_no_more_files_are_open_than_the_bound(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=600)
    for number in range(60):
        commit(log, *numbered(number, size=400))
    log = reopened(log)
    before = psutil.Process().num_fds()
    assert len(everything(log)) == 60
    assert psutil.Process().num_fds() - before <= log_module._OPEN_SEGMENTS_MAX + 1
    log.close()


def test_given_more_segments_than_descriptors_the_log_opens(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=600)
    for number in range(80):
        commit(log, *numbered(number, size=400))
    log.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 40, hard))
    try:
        log = Log.open(log.folder, max_bytes=QUOTA)
        assert len(everything(log)) == 80
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- commits that fail -------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "sync", "sync_folder", "create", "truncate"])
@pytest.mark.parametrize("at", range(5))
def test_given_a_batch_over_several_segments_fails_half_way_nothing_before_or_after_is_lost(
    tmp_path, call, at
):
    files = FailingFiles()
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100, files=files)
    commit(log, *numbered(1, 2))
    files.fail_in = {call: at}
    log.extend(numbered(*range(100, 140), size=60))
    batch = log.take()
    open_before = psutil.Process().num_fds()
    try:
        log.write(batch)
    except OSError as error:
        log.fail(batch, error)
        assert psutil.Process().num_fds() == open_before
        assert numbers(everything(log)) == [1, 2]
    else:
        log.settle(batch)
        assert files.fail_in
    files.fail_in = {}
    commit(log, *numbered(3, 4))
    log = reopened(log)
    assert [number for number in numbers(everything(log)) if number < 100] == [1, 2, 3, 4]
    log.close()


def test_given_the_leftovers_of_a_failed_commit_cannot_be_removed_they_cut_nothing_off(tmp_path):
    """A leftover segment lies in the middle of the one written in its place."""
    files = FailingFiles()
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100, files=files)
    commit(log, *numbered(1, 2))
    log.extend(numbered(*range(100, 115), size=60))
    batch = log.take()
    files.fail_in = {"sync_folder": 0}
    with pytest.raises(OSError, match="sync_folder") as caught:
        log.write(batch)
    files.fail_in = {"unlink": 0}
    log.fail(batch, caught.value)
    log.segment_bytes = 8000
    commit(log, *numbered(*range(3, 60), size=60))
    log = reopened(log)
    assert numbers(everything(log)) == list(range(1, 60))
    log.close()


def test_given_a_disk_nearly_full_a_segment_takes_the_room_there_is(tmp_path):
    class SmallDisk(Files):
        def create(self, path, size=0):
            if size > 300_000:
                raise OSError(errno.ENOSPC, "no space")
            return super().create(path, size)

    log = Log.open(str(tmp_path / "uplink"), max_bytes=1 << 30, files=SmallDisk())
    commit(log, *numbered(1, 2))
    assert os.path.getsize(segments(log)[0]) <= 300_000
    log.close()


def test_after_a_failed_commit_the_room_taken_in_advance_is_given_back(tmp_path):
    files = FailingFiles()
    log = Log.open(str(tmp_path / "uplink"), max_bytes=1 << 30, files=files)
    commit(log, *numbered(1))
    files.fail_in = {"sync": 0}
    log.extend(numbered(2))
    batch = log.take()
    with pytest.raises(OSError, match="sync") as caught:
        log.write(batch)
    log.fail(batch, caught.value)
    assert os.path.getsize(segments(log)[0]) == log.durable
    log.close()


# ---- the quota ---------------------------------------------------------------------


def test_what_is_reserved_stays_taken_until_its_commit_is_settled(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=10_000)
    assert log.reserve(9000)
    assert not log.reserve(1000)
    log.extend(numbered(1, size=100))
    batch = log.take()
    assert not log.reserve(1000)
    log.write(batch)
    log.settle(batch)
    assert log.reserve(9000)
    log.close()


def test_a_message_larger_than_the_quota_never_fits(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=10_000)
    assert not log.reserve(10_000)
    assert log.reserve(1000)
    log.close()


def test_the_last_segment_takes_no_more_room_than_the_quota_leaves(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=100_000, segment_bytes=65_536)
    for number in range(9):
        commit(log, *numbered(number, size=10_000))
    assert sum(map(os.path.getsize, segments(log))) <= 100_000
    log.close()


# ---- letting go --------------------------------------------------------------------


def test_a_small_quota_filled_by_one_large_message_takes_another_when_it_is_drained(tmp_path):
    # The newest segment used to stay for ever, and with it everything it held of the quota.
    log = Log.open(str(tmp_path / "log"), max_bytes=QUOTA)
    cursor = log.cursor("route")
    for number in range(5):
        assert log.reserve(700_000)
        [entry] = commit(log, *numbered(number, size=690_000))
        assert not log.reserve(700_000)
        assert numbers(everything(log, cursor.position)) == [number]
        cursor.save(entry.end)
        assert log.trim()
        assert len(segments(log)) == 1
    log = reopened(log)
    assert log.cursor("route").position == log.durable


def test_while_a_batch_is_under_way_trim_does_not_touch_the_segment_it_goes_to(tmp_path):
    log = Log.open(str(tmp_path / "log"), max_bytes=QUOTA)
    cursor = log.cursor("route")
    [entry] = commit(log, *numbered(1, size=690_000))
    cursor.save(entry.end)
    log.extend(numbered(2))
    batch = log.take()
    assert not log.trim()
    log.write(batch)
    log.settle(batch)
    assert numbers(everything(log)) == [1, 2]


def test_given_an_unlink_fails_the_log_stays_as_it_is_and_can_be_read(tmp_path):
    files = FailingFiles()
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100, files=files)
    commit(log, *numbered(*range(40), size=60))
    files.fail_in = {"unlink": 1}
    with pytest.raises(OSError, match="unlink"):
        log.trim(log.durable)
    log._recent = type(log._recent)()
    read = numbers(everything(log))
    assert read == list(range(read[0], 40))
    log.close()


# ---- damage ------------------------------------------------------------------------


def test_cut_short_at_any_byte_the_newest_segment_loses_only_what_was_cut(quick_path):
    log = Log.open(str(quick_path / "uplink"), max_bytes=QUOTA, segment_bytes=4000)
    entries = commit(log, *numbered(*range(6), size=20))
    log.close()
    (path,) = segments(log)
    with open(path, "rb") as file:
        data = file.read()[: entries[-1].end]
    for size in range(len(data) + 1):
        shutil.rmtree(log.folder)
        os.mkdir(log.folder)
        with open(path, "wb") as file:
            file.write(data[:size])
        log = Log.open(log.folder, max_bytes=QUOTA, segment_bytes=4000)
        whole = sum(1 for entry in entries if entry.end <= size)
        assert numbers(everything(log)) == list(range(whole))
        (new,) = commit(log, *numbered(99))
        assert new.sequence > whole
        if size > HEADER_BYTES:
            assert new.position >= size - 20
        log = reopened(log)
        assert numbers(everything(log)) == [*range(whole), 99]
        log.close()


@pytest.mark.parametrize("which", [0, 1, -1])
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_rotten_bit_costs_one_record_at_most_and_alters_none(three_segments, which, data):
    folder = three_segments.folder + "-rotten"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(three_segments.folder, folder)
    path = os.path.join(folder, os.path.basename(segments(three_segments)[which]))
    bit = data.draw(st.integers(0, 8 * os.path.getsize(path) - 1))
    change(path, lambda sound: flipped(sound, bit))
    log = Log.open(folder, max_bytes=QUOTA, segment_bytes=1100)
    read = everything(log)
    found = numbers(read)
    assert found == sorted(set(found))
    assert 29 <= len(found) <= 30
    assert [entry.message for entry in read] == numbered(*found, size=60)
    (new,) = commit(log, *numbered(99))
    assert new.sequence > 30
    log = reopened(log)
    assert numbers(everything(log)) == [*found, 99]
    log.close()


def test_a_torn_tail_is_kept_as_a_copy(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, damaged_folder=str(tmp_path / "damaged"))
    (entry,) = commit(log, *numbered(1))
    log.close()
    torn = b"torn" * 9
    change(segments(log)[0], lambda data: data[: entry.end] + torn + data[entry.end + len(torn) :])
    log = Log.open(log.folder, max_bytes=QUOTA, damaged_folder=str(tmp_path / "damaged"))
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.read_bytes() == torn
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert log.damaged == 1
    commit(log, *numbered(2))
    log.close()
    log = Log.open(log.folder, max_bytes=QUOTA, damaged_folder=str(tmp_path / "damaged"))
    assert numbers(everything(log)) == [1, 2]
    assert log.damaged == 0, "what was cut once is not found again"
    log.close()


@pytest.mark.parametrize("length", [1, 20, 5000])
def test_zeros_behind_the_end_are_room_and_garbage_behind_it_is_cut(tmp_path, length):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA, segment_bytes=1100)
    commit(log, *numbered(1))
    log.close()
    change(segments(log)[0], lambda data: data + bytes(length))
    log = reopened(log)
    assert log.damaged == 0
    log.close()
    change(segments(log)[0], lambda data: data + b"?" * length)
    log = reopened(log)
    assert log.damaged == 1
    commit(log, *numbered(2))
    assert numbers(everything(reopened(log))) == [1, 2]


def test_the_last_record_rotten_its_number_is_not_given_to_another(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA)
    entries = commit(log, *numbered(1, 2))
    cursor = log.cursor("cloud")
    cursor.save(entries[-1].end)  # the far end has it, and knows its number
    log.close()
    change(segments(log)[0], lambda data: flipped(data, 8 * (entries[-1].end - 1)))
    log = reopened(log)
    assert log.cursor("cloud").position == entries[-1].end, "nothing is sent again"
    (new,) = commit(log, *numbered(3))
    assert new.sequence > entries[-1].sequence
    assert new.position >= entries[-1].end
    assert numbers(everything(log, log.cursor("cloud").position)) == [3]
    log.close()


def test_given_an_old_copy_is_put_back_the_log_goes_on_behind_its_cursor(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA)
    first = commit(log, *numbered(1))
    with open(segments(log)[0], "rb") as file:
        yesterday = file.read()
    later = commit(log, *numbered(2, 3))
    log.cursor("cloud").save(later[-1].end)
    log.close()
    change(segments(log)[0], lambda _: yesterday)
    log = reopened(log)
    (new,) = commit(log, *numbered(4))
    assert new.sequence > later[-1].sequence > first[-1].sequence
    assert numbers(everything(log, log.cursor("cloud").position)) == [4]
    log.close()


def test_the_newest_segment_without_a_header_takes_its_numbers_with_it(three_segments):
    path = segments(three_segments)[-1]
    change(path, lambda data: bytes(HEADER_BYTES) + data[HEADER_BYTES:])
    for _ in range(2):  # another start before anything is written finds the same
        log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
        assert log.durable >= three_segments.durable
        log.close()
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    before = numbers(everything(log))
    assert before == list(range(len(before)))
    (new,) = commit(log, *numbered(99))
    assert new.sequence > 30
    log = reopened(log)
    assert numbers(everything(log)) == [*before, 99]
    assert not os.path.exists(path)
    log.close()


def test_a_segment_missing_in_the_middle_is_stepped_over_and_counted(three_segments):
    os.unlink(segments(three_segments)[1])
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    read = numbers(everything(log))
    assert read[0] == 0
    assert read[-1] == 29
    assert len(read) < 30
    assert log.damaged == 1
    log.close()


def test_a_renamed_copy_of_a_segment_is_set_aside(three_segments):
    shutil.copy(segments(three_segments)[0], os.path.join(three_segments.folder, "0" * 17 + "777.seg"))
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    assert numbers(everything(log)) == list(range(30))
    log.close()


def test_a_record_that_nobody_can_decode_does_not_hold_the_reader_for_ever(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA)
    (entry,) = commit(log, *numbered(1))
    salt = log._segments[0].salt
    log.close()
    strange = encode_one(77, b"of another age", entry.end, 2, salt)
    worse = encode_one(1, b"\x97no message", entry.end + len(strange), 3, salt)
    forged = strange + worse
    change(segments(log)[0], lambda data: data[: entry.end] + forged + data[entry.end + len(forged) :])
    log = reopened(log)
    commit(log, *numbered(4))
    log = reopened(log)
    assert numbers(everything(log)) == [1, 4]
    assert log.damaged == 2
    log.close()


def test_a_whole_record_sent_as_a_payload_is_not_taken_for_one(tmp_path):
    log = Log.open(str(tmp_path / "uplink"), max_bytes=QUOTA)
    (first,) = commit(log, *numbered(1))
    with open(segments(log)[0], "rb") as file:
        copy = file.read()[first.position : first.end]
    (outer,) = commit(log, Message("a/b", b"2:" + copy * 5))
    commit(log, *numbered(3))
    log.close()
    change(segments(log)[0], lambda data: flipped(data, 8 * outer.position))
    log = reopened(log)
    assert numbers(everything(log)) == [1, 3]
    log.close()


@pytest.mark.timeout(20)
def test_a_payload_of_forged_headers_does_not_make_recovery_slow(tmp_path):
    """With a magic that everybody knows, each of them would cost a checksum over the rest."""
    log = Log.open(str(tmp_path / "uplink"), max_bytes=1 << 30)
    forged = struct.pack("<IHBBI", 0, 0xD05E, 1, 0, 1 << 20) * (4 * 1024 * 1024 // 12)
    (outer,) = commit(log, Message("a/b", b"1:" + forged))
    log.close()
    change(segments(log)[0], lambda data: flipped(data, 8 * outer.position))
    log = reopened(log)
    assert everything(log) == []
    log.close()


# ---- newer formats -----------------------------------------------------------------


@pytest.mark.parametrize("sound_checksum", [True, False])
def test_a_segment_of_a_newer_format_stops_the_start_and_nothing_is_touched(three_segments, sound_checksum):
    def newer(data):
        header = data[:8] + b"\x03" + data[9:48]
        crc = zlib.crc32(header) if sound_checksum else 0
        return (header + struct.pack("<I", crc)).ljust(64, b"\0") * 2 + data[128:]

    change(segments(three_segments)[1], newer)
    change(segments(three_segments)[2], lambda data: data[:-5] + b"torn!")
    before = contents(three_segments.folder)
    with pytest.raises(StoreFailed, match="format 3"):
        Log.open(three_segments.folder, max_bytes=QUOTA)
    assert contents(three_segments.folder) == before


def test_a_cursor_of_a_newer_format_stops_the_start_and_nothing_is_touched(three_segments):
    path = os.path.join(three_segments.folder, "cursors", "cloud.cur")
    change(path, lambda data: b"\x03" + data[1:512] + b"\x03" + data[513:])
    change(segments(three_segments)[2], lambda data: data[:-5] + b"torn!")
    before = contents(three_segments.folder)
    with pytest.raises(StoreFailed, match="cursor"):
        Log.open(three_segments.folder, max_bytes=QUOTA)
    assert contents(three_segments.folder) == before


def contents(folder: str) -> dict[str, bytes]:
    found = {}
    for above, _, names in os.walk(os.path.dirname(folder)):
        for name in names:
            with open(os.path.join(above, name), "rb") as file:
                found[os.path.join(above, name)] = file.read()
    return found


# ---- cursors -----------------------------------------------------------------------


def test_a_new_cursor_begins_at_the_end_when_others_are_there(log):
    log.cursor("cloud")
    commit(log, *numbered(1))
    assert log.cursor("late").position == log.durable


def test_given_the_only_cursor_was_deleted_everything_is_sent_again(three_segments):
    os.unlink(os.path.join(three_segments.folder, "cursors", "cloud.cur"))
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    assert numbers(everything(log, log.cursor("cloud").position)) == list(range(30))
    log.close()


@pytest.mark.parametrize("left", [b"", b"?" * 48, bytes(48), b"?"])
def test_given_an_unreadable_cursor_everything_is_sent_again(three_segments, left):
    change(os.path.join(three_segments.folder, "cursors", "cloud.cur"), lambda _: left)
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    assert log.cursor("cloud").position == log.head
    assert numbers(everything(log, log.cursor("cloud").position)) == list(range(30))
    log.close()


def test_a_cursor_behind_the_oldest_message_starts_there(three_segments):
    log = Log.open(three_segments.folder, max_bytes=QUOTA, segment_bytes=1100)
    log.trim(log.durable)
    assert log.cursor("cloud").position == log.head > 0
    log.close()


def test_files_and_folders_are_nobody_elses_business(three_segments):
    for above, folders, names in os.walk(three_segments.folder):
        for name in folders:
            assert stat.S_IMODE(os.stat(os.path.join(above, name)).st_mode) == 0o700
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(above, name)).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(three_segments.folder).st_mode) == 0o700
