"""What is refused is tried again, and holds up its own key only, and only for so long."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.retry import HELD_MAX, PATIENCE_S_MAX, Retries, RetryLimits


class FarEnd:
    """A route with one batch under way at a time; `refuses[place]` counts how often one is refused."""

    def __init__(self, limits, refuses):
        self.retries = Retries(limits)
        self.refuses = dict(refuses)
        self.keys = {}
        self.taken, self.given_up = [], {}
        self.tried = {}
        self.now_s = 0.0

    def publish(self, place, key):
        self.keys[place] = key
        if not self.retries.hold_back(key, place, place, 1):
            self.answer(place)

    def answer(self, place):
        key = self.keys[place]
        self.tried[place] = self.tried.get(place, 0) + 1
        self.refuses[place] = self.refuses.get(place, 0) - 1
        if self.refuses[place] < 0:
            self.taken.append((place, key))
        elif self.retries.gives_up(place, final=False):
            self.given_up[place] = self.retries.tries(place) + 1
        else:
            self.retries.refuse(key, place, place, 1, self.now_s)
            return
        self.retries.done(place)

    def work(self, messages_max=1000):
        """Everything that can be done now."""
        while places := self.retries.next(messages_max, 1 << 20, self.now_s):
            assert places == sorted(places)
            for place in places:
                self.answer(place)

    def settle(self):
        while self.retries:
            self.now_s += self.retries.wait_s(self.now_s)
            self.work()


messages = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=60)


@given(messages, st.integers(1, 5), st.integers(1, 20), st.integers(1, 7))
def test_every_message_is_taken_or_given_up_after_its_tries_and_each_key_keeps_its_order(
    messages, tries, together, messages_max
):
    far = FarEnd(RetryLimits(tries), {place: refused for place, (_, refused) in enumerate(messages)})
    for place, (key, _) in enumerate(messages):
        far.publish(place, key)
        if place % together == 0:
            far.now_s += 0.5
            far.work(messages_max)
    far.settle()
    expected = {place for place, (_, refused) in enumerate(messages) if refused >= tries}
    assert set(far.given_up) == expected
    assert set(far.given_up.values()) <= {tries}
    assert sorted(place for place, _ in far.taken) == sorted(set(range(len(messages))) - expected)
    for key in range(4):
        places = [place for place, one in far.taken if one == key and far.tried[place] == 1]
        assert places == sorted(places)
    assert (far.retries.count, far.retries.bytes, list(far.retries.held())) == (0, 0, [])


@given(messages, st.integers(0, 60), st.booleans())
def test_given_some_are_let_go_in_the_middle_then_they_are_said_once_and_the_others_go_on(
    messages, end, sent
):
    far = FarEnd(RetryLimits(9), {place: refused for place, (_, refused) in enumerate(messages)})
    for place, (key, _) in enumerate(messages):
        far.publish(place, key)
    far.now_s = 1.0
    under_way = far.retries.next(5, 1 << 20, far.now_s) if sent else []
    held = set(far.retries.held())
    gone = far.retries.forget_before(end)
    assert sorted(gone) == sorted(place for place in held if place < end)
    for place in under_way:
        far.answer(place)
    far.work()
    far.settle()
    assert {place for place, _ in far.taken} == set(range(len(messages))) - set(gone)
    assert (far.retries.count, far.retries.bytes) == (0, 0)


def test_a_key_waits_and_the_others_do_not():
    far = FarEnd(RetryLimits(3, 1.0), {0: 99})
    for place, key in enumerate("aabba"):
        far.publish(place, key)
    assert far.taken == [(2, "b"), (3, "b")]
    far.settle()
    assert (far.given_up, far.taken[2:]) == ({0: 3}, [(1, "a"), (4, "a")])
    assert far.now_s == 2.0


def test_given_all_of_a_key_were_refused_then_they_are_taken_in_their_order():
    """As when a queue is gone, and is made again while some are tried again and others are not yet."""
    far = FarEnd(RetryLimits(9, 1.0), {})
    far.keys = dict.fromkeys(range(6), "a")
    for place in (0, 1, 2):
        far.retries.refuse("a", place, place, 1, 0.0)
    assert far.retries.next(10, 99, 1.0) == [0, 1, 2]
    far.retries.refuse("a", 3, 3, 1, 1.0)  # was under way with them
    far.retries.refuse("a", 0, 0, 1, 1.1)
    assert far.retries.next(10, 99, 9.0) == []
    for place in (1, 2):
        far.retries.refuse("a", place, place, 1, 1.2)
    assert far.retries.next(10, 99, 9.0) == [0, 1, 2, 3]


def test_what_lies_behind_a_refused_one_is_done_with_within_twice_the_patience():
    limits = RetryLimits(16, 1.0)
    assert limits.patience_s == PATIENCE_S_MAX
    far = FarEnd(limits, dict.fromkeys(range(500), 99))
    for place in range(500):
        far.publish(place, "a")
    far.settle()
    assert len(far.given_up) == 500
    assert far.now_s <= 2 * PATIENCE_S_MAX


def test_given_no_more_room_then_what_was_refused_has_its_last_try_at_once():
    far = FarEnd(RetryLimits(5, 1.0), {0: 99, 1: 1})
    far.publish(0, "a")
    far.publish(1, "b")
    for place in range(2, HELD_MAX):
        far.publish(place, "a")
    assert far.retries.full
    far.work()
    assert (far.given_up, far.retries.count, far.now_s) == ({0: 2}, 0, 0.0)
    assert len(far.taken) == HELD_MAX - 1


def test_after_a_link_that_broke_the_tries_are_counted_on():
    far = FarEnd(RetryLimits(3, 1.0), {0: 99, 1: 99})
    far.publish(0, "a")
    far.publish(1, "b")
    assert far.retries.next(10, 99, 1.0) == [0, 1]
    far.answer(0)
    far.retries.clear()
    assert not far.retries
    far.answer(0)
    far.answer(1)
    assert far.given_up == {0: 3}
    far.settle()
    assert far.given_up == {0: 3, 1: 3}


def test_a_final_refusal_is_not_tried_again():
    retries = Retries(RetryLimits(5))
    assert not retries.gives_up(0, final=False)
    assert retries.gives_up(0, final=True)
