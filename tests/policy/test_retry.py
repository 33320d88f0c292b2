"""What is refused is tried again, and holds up its own key only, and only for so long."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.retry import HELD_MAX, PATIENCE_S_MAX, Retries, RetryLimits


class FarEnd:
    """A route with one message under way at a time; `refuses[place]` counts how often one is refused."""

    def __init__(self, limits, refuses):
        self.retries = Retries(limits)
        self.refuses = dict(refuses)
        self.taken, self.given_up = [], {}
        self.tried = {}
        self.now_s = 0.0

    def publish(self, place, key):
        if not self.retries.hold_back(key, place, place, 1):
            self.first(place, key)

    def _answer(self, place):
        self.tried[place] = self.tried.get(place, 0) + 1
        self.refuses[place] = self.refuses.get(place, 0) - 1
        return self.refuses[place] < 0

    def first(self, place, key):
        if self._answer(place):
            self.taken.append((place, key))
        elif held := self.retries.refuse(key, place, place, 1, "no", self.now_s):
            self.given_up[place] = held.tries

    def work(self):
        """Everything that can be done now."""
        for held in self.retries.due(self.now_s):
            if self._answer(held.place):
                self.taken.append((held.place, held.key))
                self.retries.take(held)
            elif self.retries.refuse_again(held, "no", self.now_s):
                self.given_up[held.place] = held.tries
        for held in self.retries.ready():  # in one batch: all are sent before the first answer is here
            self.first(held.place, held.key)

    def settle(self):
        while self.retries:
            self.now_s += self.retries.wait_s(self.now_s)
            self.work()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=60),
    st.integers(1, 5),
    st.integers(1, 20),
)
def test_every_message_is_taken_or_given_up_after_its_tries_and_each_key_keeps_its_order(
    messages, tries, together
):
    far = FarEnd(RetryLimits(tries), {place: refused for place, (_, refused) in enumerate(messages)})
    for place, (key, _) in enumerate(messages):
        far.publish(place, key)
        if place % together == 0:
            far.now_s += 0.5
            far.work()
    far.settle()
    expected = {place for place, (_, refused) in enumerate(messages) if refused >= tries}
    assert set(far.given_up) == expected
    assert set(far.given_up.values()) <= {tries}
    assert len(far.taken) == len(messages) - len(expected)
    for key in range(4):
        places = [place for place, one in far.taken if one == key and far.tried[place] == 1]
        assert places == sorted(places)
    assert (far.retries.count, far.retries.bytes) == (0, 0)


def test_a_key_waits_and_the_others_do_not():
    far = FarEnd(RetryLimits(3, 1.0), {0: 99})
    for place, key in enumerate("aabba"):
        far.publish(place, key)
    assert far.taken == [(2, "b"), (3, "b")]
    far.settle()
    assert (far.given_up, far.taken[2:]) == ({0: 3}, [(1, "a"), (4, "a")])
    assert far.now_s == 2.0


def test_what_lies_behind_a_refused_one_is_done_with_within_twice_the_patience():
    limits = RetryLimits(16, 1.0)
    assert limits.patience_s == PATIENCE_S_MAX
    far = FarEnd(limits, dict.fromkeys(range(500), 99))
    far.publish(0, "a")
    for place in range(1, 500):
        far.publish(place, "a")
    far.settle()
    assert len(far.given_up) == 500
    assert far.now_s <= 2 * PATIENCE_S_MAX


def test_given_no_more_room_then_what_is_held_has_its_last_try_at_once():
    far = FarEnd(RetryLimits(5, 1.0), {0: 99, 1: 1})
    far.first(0, "a")
    far.first(1, "b")
    for place in range(2, HELD_MAX):
        far.publish(place, "a")
    assert far.retries.full
    assert far.retries.wait_s(0.0) == 0.0
    far.work()
    assert (far.given_up, far.retries.count) == ({0: 5}, 0)
    assert len(far.taken) == HELD_MAX - 1


def test_after_a_link_that_broke_the_tries_are_counted_on():
    far = FarEnd(RetryLimits(3, 1.0), {0: 99, 1: 99})
    far.first(0, "a")
    far.first(1, "b")
    far.now_s = 1.0
    [first, second] = far.retries.due(1.0)
    assert not far.retries.refuse_again(first, "no", 1.0)
    assert second.tries == 1
    far.retries.clear()
    assert not far.retries
    far.first(0, "a")
    far.first(1, "b")
    assert far.given_up == {0: 3}
    far.settle()
    assert far.given_up == {0: 3, 1: 3}


def test_a_final_refusal_is_not_tried_again():
    retries = Retries(RetryLimits(5))
    assert retries.refuse("a", 0, "m", 1, "queue gone", 0.0) is None
    [held] = retries.due(1.0)
    assert retries.refuse_again(held, "too large", 1.0, final=True) is held
    assert (held.tries, held.reason, bool(retries)) == (2, "too large", False)
