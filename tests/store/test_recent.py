from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Message
from bridge.store.recent import BYTES_MAX, Recent
from bridge.store.record import Entry


def run_of(position: int, sizes: list[int]) -> list[Entry]:
    entries = []
    for size in sizes:
        entries.append(Entry(position, position + size, position, Message("a", b"")))
        position += size
    return entries


@given(
    st.lists(st.tuples(st.sampled_from([0, 128]), st.lists(st.integers(20, 90), min_size=1, max_size=6))),
    st.integers(0, 40),
    st.integers(1, 5),
    st.integers(0, 200),
)
def test_a_read_returns_the_next_entries_or_leaves_it_to_the_files(chunks, pick, messages_max, bytes_max):
    recent, entries, position = Recent(), [], 128
    for gap, sizes in chunks:
        chunk = run_of(position + gap, sizes)
        position = chunk[-1].end
        entries += chunk
        recent.add(chunk)
    # Readers stand at the beginning or behind an entry, never within one.
    places = [0, 128, *(entry.end for entry in entries)]
    at = places[pick % len(places)]
    found = recent.read(at, messages_max, bytes_max)
    following = [entry for entry in entries if entry.position >= at]
    assert found == following[: len(found)]
    assert len(found) <= messages_max
    assert bool(found) == (bool(following) and at >= entries[0].position)
    assert len(found) <= 1 or found[-1].end - at <= bytes_max


def test_the_oldest_are_let_go_first_and_what_is_kept_is_bounded():
    recent, position = Recent(), 0
    for _ in range(20):
        chunk = run_of(position, [BYTES_MAX // 8])
        position = chunk[-1].end
        recent.add(chunk)
    assert recent._bytes <= BYTES_MAX
    assert recent.read(0, 9, BYTES_MAX) == []
    assert recent.read(chunk[0].position, 9, BYTES_MAX) == chunk


def test_a_commit_larger_than_all_the_room_is_not_kept():
    recent = Recent()
    recent.add(run_of(0, [BYTES_MAX + 1]))
    assert recent._bytes == 0
    assert recent.read(0, 9, BYTES_MAX) == []
    small = run_of(BYTES_MAX + 1, [20])
    recent.add(small)
    assert recent.read(BYTES_MAX + 1, 9, BYTES_MAX) == small
