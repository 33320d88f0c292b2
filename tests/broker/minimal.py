"""The shortest history that still goes wrong.

Hypothesis would look for it too, but it changes the numbers that a history was drawn
from, which moves everything behind them, and gives up after minutes. Here whole steps
are left out, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["minimal"]

S = TypeVar("S")


def minimal(steps: list[S], fails: Callable[[list[S]], bool]) -> list[S]:
    """Leave out halves, quarters, and in the end single steps, as long as it still `fails`."""
    size = max(len(steps) // 2, 1)
    while True:
        at, before = 0, len(steps)
        while at < len(steps):
            shorter = steps[:at] + steps[at + size :]
            if shorter and fails(shorter):
                steps = shorter
            else:
                at += size
        if size == 1 and len(steps) == before:
            return steps
        size = max(size // 2, 1)
