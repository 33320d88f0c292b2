"""One route to several sinks is as many lanes: each has its own cursor, counters and backlog.

The first sink's lane is named like the route and every other one `ROUTE.SINK`, so a route
that gets a second sink goes on with the first where it was, and the new lane begins
with what is published from then on. A lane keeps its cursor when the list changes its
order: a sink that has one of its own has it still, whoever stands first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["lane_names"]


def lane_names(route: str, sinks: Sequence[str], cursors: Collection[str] = ()) -> list[str]:
    """Return the name of the lane to each of `sinks`; `cursors` are those there are already.

    The route's own name goes to the first sink that has no cursor of its own.
    """
    names = [f"{route}.{sink}" for sink in sinks]
    for at, name in enumerate(names):
        if name not in cursors:
            names[at] = route
            break
    return names
