"""Which cursor a sink of a route has: none is lost by another order of the list."""

import pytest

from bridge.policy.lanes import lane_names


@pytest.mark.parametrize(
    ("sinks", "cursors", "names"),
    [
        (["a"], [], ["r"]),
        (["a", "b"], [], ["r", "r.b"]),
        (["a", "b"], ["r"], ["r", "r.b"]),
        (["b", "a"], ["r", "r.b"], ["r.b", "r"]),
        (["b", "c", "a"], ["r", "r.b", "r.c"], ["r.b", "r.c", "r"]),
        (["b"], ["r", "r.b"], ["r.b"]),
        (["b"], ["r"], ["r"]),
        (["a", "c"], ["r", "r.b"], ["r", "r.c"]),
        (["a"], ["r", "r.a.b", "s.a"], ["r"]),
    ],
)
def test_a_sink_that_has_a_cursor_keeps_it_and_the_routes_own_goes_to_the_first_that_has_none(
    sinks, cursors, names
):
    assert lane_names("r", sinks, cursors) == names
