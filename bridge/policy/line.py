"""Who may have how much under way to one far end: the higher priority first, and nobody never.

Every route may have so many batches under way. One that has them all, has more than the
link takes: as long as it does, each route of lower priority on the same link may have one.
So what is important waits behind one batch of each that is not, and these still move: of
two routes that could both fill the link, the higher one gets four fifths of it.
"""

from __future__ import annotations

__all__ = ["Line"]


class Line:
    """The routes that share one link."""

    __slots__ = ("_full",)

    def __init__(self) -> None:
        self._full: dict[str, int] = {}  # route → its priority

    def tell(self, route: str, priority: int, *, full: bool) -> None:
        """Whether a route has as much under way as it may."""
        if full:
            self._full[route] = priority
        else:
            self._full.pop(route, None)

    def places(self, priority: int, most: int) -> int:
        """How many batches a route of this priority may have under way, `most` when nobody goes before it."""
        if any(other > priority for other in self._full.values()):
            return 1
        return most
