from hypothesis import given
from hypothesis import strategies as st

from bridge.store.window import Window


@given(st.permutations(range(12)))
def test_in_whatever_order_items_are_settled_the_mark_is_the_end_of_the_longest_settled_prefix(order):
    window = Window(100)
    for key in range(12):
        window.hand_out(key, 110 + 10 * key)
    settled = set()
    for key in order:
        settled.add(key)
        before = window.mark
        moved = window.settle(key)
        prefix = next((one for one in range(12) if one not in settled), 12)
        assert window.mark == 100 + 10 * prefix
        assert moved == (window.mark != before)
        assert len(window) == 12 - prefix
    assert not window.settle(order[0])


def test_an_unknown_key_changes_nothing():
    window = Window(5)
    assert not window.settle("nobody")
    assert window.mark == 5


def test_what_is_forgotten_does_not_count_as_settled():
    window = Window(0)
    window.hand_out(1, 10)
    window.hand_out(2, 20)
    window.settle(2)
    window.clear()
    assert window.mark == 0
    window.hand_out(2, 20)
    assert not window.settle(1)
    assert window.settle(2)
    assert window.mark == 20


def test_everything_before_a_position_is_settled_at_one_stroke():
    window = Window(0)
    for key in (0, 10, 20, 30):
        window.hand_out(key, key + 10)
    window.settle(10)
    assert window.settle_before(30) == 2
    assert window.mark == 30
    assert len(window) == 1
