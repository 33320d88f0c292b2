"""Times and sizes as people write them: `200ms`, `7d`, `256KiB`, `2GB`.

A number without a unit is refused, because whoever reads `wait: 200` later has to
guess. Inside the program a duration is a float of seconds and a size an int of
bytes; `Duration` and `Size` are the same two as fields of a pydantic model.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

__all__ = ["Duration", "Size", "format_duration", "format_size", "parse_duration", "parse_size"]

_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
_BYTES: Final = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "MB": Decimal(10**6),
    "GB": Decimal(10**9),
    "TB": Decimal(10**12),
    "KiB": Decimal(2**10),
    "MiB": Decimal(2**20),
    "GiB": Decimal(2**30),
    "TiB": Decimal(2**40),
}
# What people write instead, and what they most likely meant by it.
_DURATION_SLIPS: Final = {
    **dict.fromkeys(("msec", "millis"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
}
_SIZE_SLIPS: Final = {"k": "KiB", "ki": "KiB", "m": "MiB", "mi": "MiB", "g": "GiB", "gi": "GiB", "t": "TiB"}

# Sixteen digits are 300 million years in seconds and nine petabytes: more is a slip of the finger, and
# a bound keeps hostile text from costing time.
_SPELLED: Final = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,9})?)([A-Za-z]{0,12})\Z")


def parse_duration(text: object) -> float:
    """Return the seconds that `200ms`, `2s`, `1.5m`, `1h` or `7d` stands for.

    Raises ValueError that says what to write instead.
    """
    return float(_parse(text, "duration", _SECONDS, _DURATION_SLIPS, ("ms", "s")))


def parse_size(text: object) -> int:
    """Return the bytes that `512B`, `256KiB`, `1.5GiB` or `10MB` stands for.

    Raises ValueError that says what to write instead, also for a fraction of a byte.
    """
    size = _parse(text, "size", _BYTES, _SIZE_SLIPS, ("B", "KiB"))
    if size != size.to_integral_value():
        raise ValueError(f"'{text}' is not a whole number of bytes")
    return int(size)


def format_duration(seconds: float) -> str:
    """Spell seconds in the largest unit without a fraction; `parse_duration` gives the same float back."""
    return _format(Decimal(repr(float(seconds))), ("d", "h", "m", "s", "ms"), _SECONDS, "s")


def format_size(size: int) -> str:
    """Spell bytes in the largest binary unit that needs no fraction; `parse_size` gives the same int back."""
    return _format(Decimal(size), ("TiB", "GiB", "MiB", "KiB", "B"), _BYTES, "B")


def _parse(
    text: object, noun: str, units: dict[str, Decimal], slips: dict[str, str], bare: tuple[str, str]
) -> Decimal:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"must be a {noun} such as '200{bare[0]}' or '2{bare[1]}'")
    spelled = _SPELLED.match(str(text))
    if spelled is None:
        raise ValueError(f"{str(text)[:40]!r} is not a {noun}; write '200{bare[0]}' or '2{bare[1]}'")
    number, unit = spelled.groups()
    if not unit:
        raise ValueError(f"'{text}' has no unit; write '{number}{bare[0]}' or '{number}{bare[1]}'")
    if unit not in units:
        meant = slips.get(unit) or slips.get(unit.lower()) or _same_letters(unit, units)
        advice = f"write '{number}{meant}'" if meant else f"a {noun} ends in {', '.join(units)}"
        raise ValueError(f"'{text}' has the unknown unit '{unit}'; {advice}")
    return Decimal(number) * units[unit]


def _same_letters(unit: str, units: dict[str, Decimal]) -> str | None:
    return next((known for known in units if known.lower() == unit.lower()), None)


def _format(value: Decimal, order: tuple[str, ...], units: dict[str, Decimal], smallest: str) -> str:
    if not value:
        return f"0{smallest}"
    for unit in order:
        if value % units[unit] == 0:
            return f"{int(value / units[unit])}{unit}"
    return f"{value.normalize():f}{smallest}"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", "examples": ["200ms", "30s", "7d"]}
    ),
]
"""Seconds, written with their unit: `200ms`, `2s`, `5m`, `1h`, `7d`."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
            "examples": ["512B", "256KiB", "2GiB"],
        }
    ),
]
"""Bytes, written with their unit: `512B`, `256KiB`, `2GiB`, `10MB`."""
