"""A moment as people write it: how long ago (`2h`), or when (`2026-03-01T06:00:00Z`).

Inside the program it is nanoseconds since 1970, like the arrival of a message.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bridge.policy.units import parse_duration

__all__ = ["parse_moment"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(text: str, now_ns: int) -> int:
    """Return the moment that `text` names, in nanoseconds since 1970.

    Raises ValueError that says what to write instead.
    """
    if text[:1].isdigit() and ("-" in text or ":" in text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a time; write '2026-03-01T06:00:00Z'") from None
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} has no time zone; write '{moment.isoformat()}Z' if it is in UTC")
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    try:
        return now_ns - round(parse_duration(text) * 1_000_000_000)
    except ValueError as error:
        raise ValueError(f"{error} for how long ago, or a time such as '2026-03-01T06:00:00Z'") from None
