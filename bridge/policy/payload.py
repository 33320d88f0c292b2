"""A payload as JSON: read once, and walked into step by step.

What is not there is MISSING, and so is everything in a payload that is not JSON: nothing
here raises, whatever a device sent. Numbers too large for a double, half characters and
bytes that are not UTF-8 make a payload "not JSON", as the standard has it.

Reading a small payload costs less than looking it up, so only the larger ones are kept
for the next route or template that asks; how much is kept is bounded by their bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import msgspec

from bridge.policy.syntax import Path

__all__ = ["MISSING", "Kept", "Missing", "as_json", "json_text", "walker"]

SMALL_BYTES_MAX: Final = 512
# A parsed payload takes up to 25 times the room of its bytes; [[],[],… is the worst.
KEPT_BYTES_MAX: Final = 256 << 10

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class Missing(Enum):
    """The one value that stands for what is not there, or cannot be told."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


def _read(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's own are ValueErrors
        return MISSING


class Kept:
    """The values of the payloads that were asked for lately."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._values: dict[bytes, Any] = {}

    def read(self, payload: bytes) -> Any:
        """The value, or MISSING when this is not JSON. Whoever gets it must not change it."""
        size = len(payload)
        if size <= SMALL_BYTES_MAX:
            return _read(payload)
        try:
            return self._values[payload]
        except KeyError:
            value = _read(payload)
        if size <= self._bytes_max // 2:
            if self._bytes + size > self._bytes_max:
                self._values.clear()
                self._bytes = 0
            self._values[payload] = value
            self._bytes += size
        return value


as_json: Final = Kept().read
"""The value of a payload, shared by all routes of the house."""


def json_text(value: Any) -> str | Missing:
    """A value of JSON as text without spaces; MISSING when it is nested too deep to be written."""
    try:
        return _encode(value).decode()
    except (ValueError, OverflowError, RecursionError):
        return MISSING


def walker(path: Path) -> Callable[[Any], Any]:
    """Return what walks `path` into a value of JSON; it gives MISSING where there is no such place."""
    if len(path) == 1 and isinstance(path[0], str):
        [key] = path

        def one(value: Any) -> Any:
            return value.get(key, MISSING) if type(value) is dict else MISSING

        return one

    def walk(value: Any) -> Any:
        for step in path:
            if isinstance(step, str):
                if type(value) is not dict:
                    return MISSING
                value = value.get(step, MISSING)
            else:
                if type(value) is not list or step >= len(value):
                    return MISSING
                value = value[step]
        return value

    return walk
