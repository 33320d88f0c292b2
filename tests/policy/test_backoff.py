import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.backoff import delay


@pytest.mark.parametrize(("attempt", "bound_s"), [(0, 0.5), (1, 1.0), (5, 16.0), (6, 30.0), (10**9, 30.0)])
def test_the_bound_doubles_up_to_the_cap(attempt, bound_s):
    assert delay(attempt, 0.5) == bound_s / 2


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_nothing_and_the_cap(attempt, luck):
    assert 0 <= delay(attempt, luck, base_s=0.1, cap_s=7) < 7
