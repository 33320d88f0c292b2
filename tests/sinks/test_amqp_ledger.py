"""Confirms of any shape, against a dictionary of tags."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.sinks.amqp_ledger import Ledger


class Model:
    """The same in the simplest way: one entry a tag."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[str, int]] = {}
        self.owned: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []
        self.next = 1

    def publish(self, call: str, index: int, count: int) -> None:
        for each in range(index, index + count):
            self.open[self.next] = (call, each)
            self.next += 1

    def answer(self, tag: int, *, multiple: bool, owned: bool) -> bool:
        before = min(self.open, default=None)
        for each in [each for each in self.open if (each <= tag if multiple else each == tag)]:
            (self.owned if owned else self.refused).append(self.open.pop(each))
        return min(self.open, default=None) != before


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("abc"), st.integers(1, 5)),
        st.tuples(st.just("answer"), st.integers(0, 40), st.booleans(), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whatever_the_broker_answers_the_ledger_says_what_it_owns(steps: list[Any]) -> None:
    owned: list[tuple[str, int]] = []
    ledger: Ledger[str] = Ledger(
        lambda call, index, count: owned.extend((call, each) for each in range(index, index + count))
    )
    model, at = Model(), dict.fromkeys("abc", 0)
    for what, *rest in steps:
        if what == "publish":
            call, count = rest
            ledger.publish(call, at[call], count)
            model.publish(call, at[call], count)
            at[call] += count
        else:
            tag, multiple, says_yes = rest
            moved = ledger.answer(tag, multiple=multiple, owned=says_yes)
            assert moved == model.answer(tag, multiple=multiple, owned=says_yes)
        assert sorted(owned) == sorted(model.owned)
        assert sorted(ledger.refused) == sorted(model.refused)
        assert ledger.unanswered == len(model.open)
        assert set(ledger.calls()) >= {call for call, _ in [*model.open.values(), *model.refused]}
        for call in "abc":
            theirs = [index for other, index in [*model.open.values(), *model.refused] if other == call]
            assert ledger.first_open(call) == min(theirs, default=None)
        assert ledger.only_one() == (next(iter(model.open.values())) if len(model.open) == 1 else None)
    ledger.clear()
    assert (ledger.unanswered, ledger.calls(), ledger.first_open("a")) == (0, [], None)
