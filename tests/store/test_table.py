import errno
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.store.files import Files
from bridge.store.record import encode_one
from bridge.store.table import SLACK_BYTES, Table
from tests.store.test_log import MEMORY, FailingFiles, change, flipped


def commit(table: Table) -> None:
    batch = table.take()
    table.write(batch)
    table.settle(batch)


def contents(table: Table) -> dict[str, bytes]:
    return {key: table.get(key) for key in table}


def reopened(table: Table, files: Files | None = None) -> Table:
    table.close()
    return Table(table.path, files or Files())


class TableAgainstADict(RuleBasedStateMachine):
    keys = st.sampled_from(["", "a", "b", "ü"])

    @initialize()
    def begin(self):
        self.folder = tempfile.mkdtemp(dir=MEMORY)
        self.files = FailingFiles()
        self.table = Table(os.path.join(self.folder, "retained.tab"), self.files)
        self.model: dict[str, bytes] = {}
        self.saved: dict[str, bytes] = {}
        self.maybe: dict[str, set[bytes | None]] = {}  # key → values handed over, not confirmed

    def teardown(self):
        if hasattr(self, "table"):
            self.table.close()
            shutil.rmtree(self.folder)

    @rule(key=keys, value=st.binary(max_size=30) | st.just(b"x" * 200_000))
    def put(self, key, value):
        self.table.put(key, value)
        self.model[key] = value

    @rule(key=keys)
    def delete(self, key):
        self.table.delete(key)
        self.model.pop(key, None)

    @rule()
    def commit(self):
        commit(self.table)
        self.saved = dict(self.model)
        self.maybe.clear()

    @rule(call=st.sampled_from(["write", "sync", "create", "sync_folder"]), at=st.integers(0, 2))
    def commit_that_may_fail(self, call, at):
        self.files.fail_in = {call: at}
        batch = self.table.take()
        try:
            self.table.write(batch)
        except OSError as error:
            self.table.fail(batch, error)
            for key in {*self.model, *self.saved}:
                self.maybe.setdefault(key, set()).add(self.model.get(key))
        else:
            self.table.settle(batch)
            self.saved = dict(self.model)
            self.maybe.clear()
        self.files.fail_in = {}

    @rule()
    def kill(self):
        self.table = reopened(self.table, self.files)
        for key in {*self.saved, *self.maybe, *self.table}:
            allowed = {self.saved.get(key), *self.maybe.get(key, ())}
            assert self.table.get(key) in allowed
        self.model = contents(self.table)
        self.saved = dict(self.model)

    @invariant()
    def the_table_is_its_model(self):
        if hasattr(self, "table"):
            assert contents(self.table) == self.model
            assert len(self.table) == len(self.model)


TableAgainstADict.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheTableIsADict = TableAgainstADict.TestCase


@pytest.fixture
def table(tmp_path):
    table = Table(str(tmp_path / "marks.tab"))
    yield table
    table.close()


def test_a_value_changed_for_ever_does_not_make_the_file_grow_for_ever(table):
    for number in range(100):
        table.put("a", b"%03d" % number * 10_000)
        commit(table)
    assert os.path.getsize(table.path) < 4 * 30_000 + 2 * SLACK_BYTES
    assert reopened(table).get("a") == b"099" * 10_000


def test_after_a_failed_commit_the_whole_table_goes_to_a_new_file(tmp_path):
    files = FailingFiles()
    table = Table(str(tmp_path / "marks.tab"), files)
    table.put("a", b"1")
    commit(table)
    inode = os.stat(table.path).st_ino
    table.put("b", b"2")
    files.fail_in = {"sync": 0}
    batch = table.take()
    with pytest.raises(OSError, match="sync") as caught:
        table.write(batch)
    table.fail(batch, caught.value)
    assert table.dirty, "nobody sends its changes again"
    commit(table)
    assert os.stat(table.path).st_ino != inode
    assert contents(reopened(table)) == {"a": b"1", "b": b"2"}


def test_given_a_later_change_a_failed_one_does_not_come_back_over_it(tmp_path):
    table = Table(str(tmp_path / "marks.tab"))
    table.put("a", b"1")
    batch = table.take()
    table.put("a", b"2")
    table.fail(batch, OSError(errno.EIO, "bad sector"))
    commit(table)
    assert reopened(table).get("a") == b"2"


def test_a_rewrite_that_was_not_finished_is_removed(table):
    table.put("a", b"1")
    commit(table)
    with open(table.path + ".new", "wb") as file:
        file.write(b"half of it")
    assert reopened(table).get("a") == b"1"
    assert not os.path.exists(table.path + ".new")


def test_one_rotten_bit_costs_one_change_at_most_and_is_kept_and_counted(tmp_path):
    table = Table(str(tmp_path / "marks.tab"), damaged_folder=str(tmp_path / "damaged"))
    values = {f"key{number}": b"%d" % number * 9 for number in range(5)}
    for key, value in values.items():
        table.put(key, value)
        commit(table)
    table.close()
    with open(table.path, "rb") as file:
        sound = file.read()
    for bit in range(0, 8 * len(sound), 11):
        with open(table.path, "wb") as file:
            file.write(flipped(sound, bit))
        table = Table(table.path, damaged_folder=str(tmp_path / "damaged"))
        left = contents(table)
        assert left.items() <= values.items()
        assert len(left) >= 4
        assert table.damaged == 1
        # Of a header there are two: nothing is lost with one of them, and nothing kept aside.
        assert len(list(tmp_path.glob("damaged/*"))) == 5 - len(left)
        table.close()
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)


def test_an_unreadable_table_is_kept_and_a_new_one_begins(tmp_path):
    path, damaged = tmp_path / "marks.tab", tmp_path / "damaged"
    path.write_bytes(b"no table at all")
    table = Table(str(path), damaged_folder=str(damaged))
    assert len(table) == 0
    assert [kept.read_bytes() for kept in damaged.iterdir()] == [b"no table at all"]
    table.put("a", b"1")
    commit(table)
    assert contents(reopened(table)) == {"a": b"1"}


def test_a_record_that_nobody_can_decode_does_not_stop_the_start(table):
    table.put("a", b"1")
    commit(table)
    strange = encode_one(3, b"no pair", table._end, 9, table._segment.salt)
    table.close()
    change(table.path, lambda data: data + strange)
    table = Table(table.path)
    assert contents(table) == {"a": b"1"}
    assert table.damaged == 1
    table.put("b", b"2")
    commit(table)
    table = reopened(table)
    assert contents(table) == {"a": b"1", "b": b"2"}
    assert table.damaged == 0
    table.close()
