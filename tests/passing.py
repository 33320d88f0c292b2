"""Time passes: the wall clock moves, and the clock that only ever counts moves with it."""

from __future__ import annotations

import time

import pytest

__all__ = ["pass_time"]


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on it is `seconds` later. The loop's own clock, and so its timers, stay as they are."""
    wall_ns, steady_ns, passed_ns = time.time_ns, time.clock_gettime_ns, int(seconds * 10**9)
    monkeypatch.setattr("time.time_ns", lambda: wall_ns() + passed_ns)
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: steady_ns(clock) + passed_ns)
