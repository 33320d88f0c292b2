"""One message as one line: for a person at a terminal, or as JSON for a program.

A payload is text where it is UTF-8 and bytes where it is not; both forms say
which. What a device wrote never reaches the terminal as control characters.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime

from bridge.message import Properties
from bridge.observe.escape import printable
from bridge.sinks.base import Outgoing

__all__ = ["for_people", "for_programs"]

# A terminal is for looking; whoever needs all of a large payload asks for JSON.
SHOWN_BYTES_MAX = 2048


def for_people(out: Outgoing, now_ns: int) -> str:
    """`topic  payload  (id, latency)`, printable, on one line."""
    message = out.message
    shown = message.payload[:SHOWN_BYTES_MAX]
    try:
        # A cut may go through a character: what is left of it is not the payload's fault.
        payload = printable(shown.decode(errors="strict" if shown is message.payload else "ignore"))
    except UnicodeDecodeError:
        payload = f"0x{shown.hex()}"
    if len(shown) < len(message.payload):
        payload += f"… ({len(message.payload):,} bytes)"
    latency_ms = max(0, now_ns - message.received_ns) / 1e6
    return f"{printable(message.topic)}  {payload}  ({printable(out.id)}, {_latency(latency_ms)})"


def _latency(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"


def for_programs(out: Outgoing) -> str:
    """One JSON object; `payload` is a string, or absent and `payload_b64` is there.

    Pure ASCII, so that it is safe to look at too.
    """
    message = out.message
    told: dict[str, object] = {
        "id": out.id,
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "received_at": _moment(message.received_ns),
        "address": out.address,
        "publisher": message.publisher,
    }
    try:
        told["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        told["payload_b64"] = b64encode(message.payload).decode()
    if message.properties is not None:
        told["properties"] = _properties(message.properties)
    return json.dumps(told)


def _moment(wall_ns: int) -> str:
    """RFC 3339 with all nine digits: two messages of one millisecond keep their order."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _properties(of: Properties) -> dict[str, object]:
    """Those that belong to the application, and of these the ones that are there."""
    told: dict[str, object] = {
        "payload_format_indicator": of.payload_format_indicator,
        "message_expiry_interval_s": of.message_expiry_interval_s,
        "content_type": of.content_type,
        "response_topic": of.response_topic,
        "correlation_data_b64": None
        if of.correlation_data is None
        else b64encode(of.correlation_data).decode(),
        # Pairs, not an object: a name may come twice, and their order counts.
        "user_properties": [list(pair) for pair in of.user_properties] or None,
    }
    return {name: value for name, value in told.items() if value is not None}
