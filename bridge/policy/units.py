"""Times, sizes and rates as people write them: `200ms`, `7d`, `256KiB`, `2GB`, `500/s`, `64KiB/s`.

A number without a unit is refused, because whoever reads `wait: 200` later has to
guess. Inside the program a duration is a float of seconds, a size an int of bytes and a
rate a float of messages or an int of bytes in a second; `Duration`, `Size`, `Rate` and
`ByteRate` are the same as fields of a pydantic model.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

__all__ = [
    "ByteRate",
    "Duration",
    "Rate",
    "Size",
    "format_byte_rate",
    "format_duration",
    "format_rate",
    "format_size",
    "parse_byte_rate",
    "parse_duration",
    "parse_rate",
    "parse_size",
]

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
_NUMBER: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,9})?\Z")
_RATE_MIN: Final = 1 / 3600
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


def parse_rate(text: object) -> float:
    """Return the messages in a second that `500/s` or `0.5/s` stands for, at least one in an hour.

    Raises ValueError that says what to write instead.
    """
    number = _before_per_second(text, "500/s")
    if not _NUMBER.match(number):
        raise ValueError(f"{str(text)[:40]!r} is not a rate of messages; write '500/s' or '0.5/s'")
    if (rate := float(number)) < _RATE_MIN:
        raise ValueError(
            f"{str(text)[:40]!r} is slower than one message in an hour; write at least '0.001/s'"
        )
    return rate


def parse_byte_rate(text: object) -> int:
    """Return the bytes in a second that `64KiB/s` stands for.

    Raises ValueError that says what to write instead.
    """
    number = _before_per_second(text, "64KiB/s")
    try:
        rate = parse_size(number)
    except ValueError:
        raise ValueError(f"{str(text)[:40]!r} is not a rate of bytes; write '64KiB/s' or '8kB/s'") from None
    if not rate:
        raise ValueError(f"{str(text)[:40]!r} would never send anything; write '64KiB/s' or '8kB/s'")
    return rate


def _before_per_second(text: object, example: str) -> str:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"must be a rate such as '{example}'")
    number, slash, unit = str(text)[:80].partition("/")
    if not slash:
        raise ValueError(f"{number[:40]!r} has no '/s' for 'in a second'; write '{number[:40]}/s'")
    if unit != "s":
        raise ValueError(f"{str(text)[:40]!r}: rates are in a second; write '{number[:40]}/s'")
    return number


def format_rate(rate: float) -> str:
    """Spell messages in a second; `parse_rate` gives the same float back."""
    return f"{Decimal(repr(float(rate))).normalize():f}/s"


def format_byte_rate(rate: int) -> str:
    """Spell bytes in a second; `parse_byte_rate` gives the same int back."""
    return f"{format_size(rate)}/s"


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

Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    PlainSerializer(format_rate, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/s$", "examples": ["500/s", "0.5/s"]}),
]
"""Messages in a second: `500/s`."""

ByteRate = Annotated[
    int,
    BeforeValidator(parse_byte_rate),
    PlainSerializer(format_byte_rate, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)/s$",
            "examples": ["64KiB/s", "1MB/s"],
        }
    ),
]
"""Bytes in a second: `64KiB/s`."""
