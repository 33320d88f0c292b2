"""Which entries are done with, held against a set; and what of it survives."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Message
from bridge.store import Spool
from bridge.store.files import OS_FILES
from bridge.store.look import StoreLook
from bridge.store.record import Entry
from bridge.store.settled import Settled
from bridge.store.table import Table

MESSAGE = Message("a", b"x")
SEQUENCES = st.integers(1, 5_000)
STEPS = st.lists(
    st.tuples(st.just("add"), st.lists(SEQUENCES, max_size=20)) | st.tuples(st.just("forget"), SEQUENCES),
    max_size=20,
)


@given(STEPS)
def test_it_is_a_set_but_for_what_was_forgotten(tmp_path_factory, steps):
    table = Table(str(tmp_path_factory.mktemp("t") / "settled.tab"), OS_FILES)
    settled, model, first = Settled(table, 7), set(), 0
    for step, value in steps:
        if step == "add":
            settled.add(value)
            model |= set(value)
        else:
            settled.forget_before(value)
            first = max(first, value)
    alive = {one for one in model if one >= first}
    assert alive <= {one for one in range(1, 5_001) if one in settled} <= model | set(range(first))


async def test_what_was_committed_survives_and_can_be_seen_from_outside(tmp_path):
    spool = Spool.open(str(tmp_path), 1 << 20)
    spool.dead.append(MESSAGE)
    spool.settled.add([1, 3, 1_023, 1_024, 70_000])
    assert await spool.committer.flush() is None
    seen = StoreLook(str(tmp_path)).settled()
    assert [nth for nth in (1, 2, 3, 1_024, 1_025, 70_000) if seen(Entry(0, 1, nth, MESSAGE))] == [
        1, 3, 1_024, 70_000,
    ]  # fmt: skip
    await spool.close()
    again = Spool.open(str(tmp_path), 1 << 20)
    assert [nth for nth in range(71_000) if nth in again.settled] == [1, 3, 1_023, 1_024, 70_000]
    await again.close()


async def test_a_log_that_began_anew_begins_with_nothing_settled(tmp_path):
    """Its sequence numbers come again: what was settled before would hide other messages."""
    table = Table(str(tmp_path / "settled.tab"), OS_FILES)
    Settled(table, 1).add([1, 2])
    other = Settled(table, 2)
    assert 1 not in other
    other.add([5])
    other.forget_before(1)
    assert list(table) == ["00000002/0"]
