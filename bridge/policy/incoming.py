"""A message from the cloud before it is a PUBLISH: what every source says of it, in one form.

The words are those of AMQP 0-9-1, whatever the source: there the properties of MQTT 5
have their counterparts, and a sink has used the same ones on the way up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["NO_HEADERS", "Incoming", "Unfit"]

NO_HEADERS: Final[Mapping[str, Any]] = {}


class Unfit(Exception):
    """This can never become a valid PUBLISH, and the text says why."""


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """One message as a source received it.

    `tag` names it until it is settled, and no other message of that source ever.
    `message_id` is its sender's, empty where there is none. `again`: it may have been
    handed out before. `expiration_s` is how long it is still worth something. `unfit` is why
    the source itself could not read all of it.
    """

    tag: int
    body: bytes
    routing_key: str = ""
    headers: Mapping[str, Any] = NO_HEADERS
    message_id: str = ""
    again: bool = False
    content_type: str | None = None
    correlation_id: bytes | None = None
    reply_to: str = ""
    expiration_s: float | None = None
    unfit: str = ""
