"""The words that sections of the configuration share: names, addresses, and what a section is.

A value is judged here by itself; each function raises ValueError that says what to
write instead.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema

from bridge.policy.loopback import is_loopback

__all__ = ["HostPort", "Name", "Section", "is_loopback", "split_host_port"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]]+):([0-9]{1,5})\Z")


def split_host_port(text: str) -> tuple[str, int]:
    """Split `127.0.0.1:1883` or `[::1]:1883`. Raises ValueError that says what to write instead."""
    found = _HOST_PORT.match(text)
    if found is None:
        raise ValueError("must be HOST:PORT such as 127.0.0.1:1883 or '[::1]:1883'")
    port = int(found[2])
    if port > 65_535:
        raise ValueError(f"{port} is not a port; the highest is 65535")
    return found[1].strip("[]"), port


def _check_name(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError("a name has 1 to 64 letters, digits, _ or -: it becomes part of a file name")
    return name


def _check_host_port(text: str) -> str:
    split_host_port(text)
    return text


Name = Annotated[str, AfterValidator(_check_name)]
HostPort = Annotated[
    str,
    AfterValidator(_check_host_port),
    WithJsonSchema({"type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["127.0.0.1:1883"]}),
]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, and nothing is converted in silence."""

    # An error repeats its input unless told not to, and an input may hold a password.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_by_name=True
    )
