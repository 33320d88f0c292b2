"""The values of expressions: which may be compared, and what calculating with them gives.

    text      by code point         numbers   whole or not, exactly
    booleans  == and != only        null      equals null and nothing else
    lists, objects                  nothing

What cannot be told is MISSING: two things of different kinds, a division by zero, a
result that is no finite number. A whole number beyond 64 bits goes on as a double, and
text does not grow beyond a bound, so that no expression can be made to take long.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final

from bridge.policy.payload import MISSING, json_text

__all__ = [
    "CALCULATIONS",
    "ORDERS",
    "TEXT_CHARS_MAX",
    "calculate",
    "equal",
    "in_list",
    "in_order",
    "is_number",
    "to_text",
]

Operation = Callable[[Any, Any], Any]

TEXT_CHARS_MAX: Final = 1 << 20
_WHOLE_BITS_MAX: Final = 64

ORDERS: Final[dict[str, Operation]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CALCULATIONS: Final[dict[str, Operation]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def is_number(value: Any) -> bool:
    """Whether it is a number; true and false are none."""
    kind = type(value)
    return kind is float or kind is int


def equal(left: Any, right: Any) -> Any:
    """Whether two values are equal, or MISSING when their kinds differ or have no such order."""
    if left is MISSING or right is MISSING:
        return MISSING
    if left is None or right is None:
        return left is right
    if is_number(left):
        return left == right if is_number(right) else MISSING
    kind = type(left)
    return left == right if (kind is str or kind is bool) and kind is type(right) else MISSING


def in_order(order: Operation, left: Any, right: Any) -> Any:
    """Compare two numbers or two texts; anything else is MISSING."""
    if is_number(left):
        return order(left, right) if is_number(right) else MISSING
    return order(left, right) if type(left) is str and type(right) is str else MISSING


def in_list(value: Any, items: Any) -> Any:
    """Whether one of a list's items equals it; MISSING for what is not a list or can equal nothing."""
    if value is MISSING or type(value) in (list, dict) or type(items) not in (list, tuple):
        return MISSING
    return any(equal(value, item) is True for item in items)


def calculate(calculation: Operation, left: Any, right: Any) -> Any:
    """Two numbers, or two texts put together; anything else is MISSING."""
    if is_number(left) and is_number(right):
        try:
            return bounded(calculation(left, right))
        except (ZeroDivisionError, OverflowError):
            return MISSING
    if calculation is operator.add and type(left) is str and type(right) is str:
        return left + right if len(left) + len(right) <= TEXT_CHARS_MAX else MISSING
    return MISSING


def bounded(number: Any) -> Any:
    """The number as it may go on; MISSING for what is no finite number. Raises OverflowError."""
    if type(number) is int:
        return number if number.bit_length() <= _WHOLE_BITS_MAX else float(number)
    return number if type(number) is float and math.isfinite(number) else MISSING


def to_text(value: Any) -> Any:
    """A value as it stands in text: text itself, anything else as in JSON. MISSING stays MISSING."""
    if type(value) is str or value is MISSING:
        return value
    return json_text(value)
