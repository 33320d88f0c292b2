"""Which stretches of the log a batch settles, and which it leaves open because something in them is held."""

import pytest

from bridge.forward.under_way import Sent, without
from bridge.message import Message
from bridge.store import Entry


def entry(position):
    """Each is ten bytes long."""
    return Entry(position, position + 10, position // 10, Message("a", b""), b"")


@pytest.mark.parametrize(
    ("holes", "left"),
    [
        ([], [(0, 100)]),
        ([30], [(0, 30), (40, 100)]),
        ([0, 10, 50], [(20, 50), (60, 100)]),
        ([90, 40], [(0, 40), (50, 90)]),
        ([40, 100, 120], [(0, 40), (50, 100)]),
    ],
)
def test_a_stretch_without_its_holes(holes, left):
    assert without((0, 100), [entry(hole) for hole in holes]) == left


def test_a_batch_settles_up_to_its_last_confirmed_message_what_is_not_held():
    sent = Sent([entry(20), entry(50)], [], 0, 90, None, held=[entry(30), entry(60)])
    assert sent.stretches(60, sent.entries, []) == [(0, 30), (40, 60)]
    assert sent.stretches(90, sent.entries, [entry(20)]) == [(0, 20), (40, 60), (70, 90)]


def test_what_is_sent_again_settles_only_itself():
    sent = Sent([entry(20), entry(50)], [], 20, 60, None, again=True)
    assert sent.stretches(60, sent.entries, [entry(20)]) == [(50, 60)]
