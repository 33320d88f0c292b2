"""Settled stretches against a plain set of positions."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.settled import STRETCHES_SAVED, Settled

pieces = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=60)


@given(st.integers(0, 10), pieces)
def test_it_knows_what_a_set_of_positions_knows(mark, added):
    settled, model = Settled(mark), set(range(mark))
    for begin, size in added:
        settled.add(begin, begin + size)
        model |= set(range(begin, begin + size))
    open_ = [position for position in range(80) if position not in model]
    assert settled.mark == open_[0]
    inside = {position for begin, end in settled.stretches for position in range(begin, end)}
    assert inside == {position for position in model if position > settled.mark}
    for position in range(80):
        assert settled.skip(position) == next(one for one in open_ if one >= position)
        begins = [begin for begin, _ in settled.stretches if begin > position]
        assert settled.next_begin(position) == (begins[0] if begins else None)
    for (_, end), (begin, _) in zip(settled.stretches, settled.stretches[1:], strict=False):
        assert end < begin, "stretches that touch are one"
    assert Settled(settled.mark, settled.stretches).stretches == settled.stretches


@given(st.permutations(range(40)), st.integers(0, 40))
def test_what_is_saved_and_what_is_left_out_are_together_what_became_of_all_beyond_the_mark(order, count):
    settled = Settled(0)
    delivered = 0
    for number in order[:count]:
        settled.add(number * 10 + 5, number * 10 + 5 + number % 3 + 1, Counter(delivered=number + 1))
        delivered += number + 1
    saved, left_out = settled.saved()
    assert len(saved) == min(count, STRETCHES_SAVED)
    kept = sum(begin // 10 + 1 for begin, _ in saved)
    assert kept + left_out["delivered"] == delivered
    smallest = min((end - begin for begin, end in saved), default=0)
    others = set(settled.stretches) - set(saved)
    assert all(end - begin <= smallest for begin, end in others)


def test_fates_of_stretches_that_grow_together_are_added_up_and_end_with_the_mark():
    settled = Settled(0)
    settled.add(10, 20, Counter(delivered=1))
    settled.add(30, 40, Counter(refused=1))
    settled.add(20, 30, Counter(delivered=1))
    assert settled.stretches == [(10, 40)]
    settled.add(0, 10)
    assert (settled.mark, settled.stretches, settled.saved()) == (40, [], ([], Counter()))


def test_what_is_passed_over_takes_stretches_with_it():
    settled = Settled(0, [(10, 20), (30, 40)])
    settled.pass_over(35)
    assert (settled.mark, settled.stretches) == (40, [])
