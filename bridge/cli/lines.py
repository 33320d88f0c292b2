"""One message as one line: for a person at a terminal, or as JSON for a program.

A payload is text where it is UTF-8 and bytes where it is not; both forms say
which. What a device wrote never reaches the terminal as control characters.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime
from typing import Final

from bridge.observe.escape import printable
from bridge.sinks.receiver import Received

__all__ = ["for_people", "for_programs", "payload_for_people"]

# A terminal is for looking; whoever needs all of a large payload asks for JSON.
SHOWN_BYTES_MAX: Final = 2048

# Of the metadata, what any message has; the rest are MQTT 5 properties, there or not.
_ALWAYS: Final = (
    "id", "topic", "qos", "retain", "received_at", "address", "publisher", "headers", "clock", "replayed",
)  # fmt: skip


def for_people(received: Received, now_ns: int) -> str:
    """`topic  payload  (id, latency)`, printable, on one line."""
    payload = payload_for_people(received.payload)
    latency = _latency(str(received.meta.get("received_at", "")), now_ns)
    return f"{printable(received.topic)}  {payload}  ({printable(received.id)}{latency})"


def payload_for_people(payload: bytes) -> str:
    """A payload as text where it is that, else in hexadecimal; its beginning, if it is long."""
    shown = payload[:SHOWN_BYTES_MAX]
    try:
        # A cut may go through a character: what is left of it is not the payload's fault.
        told = printable(shown.decode(errors="strict" if shown is payload else "ignore"))
    except UnicodeDecodeError:
        told = f"0x{shown.hex()}"
    return told if len(shown) == len(payload) else f"{told}… ({len(payload):,} bytes)"


def _latency(received_at: str, now_ns: int) -> str:
    try:
        milliseconds = max(0.0, now_ns / 1e6 - datetime.fromisoformat(received_at).timestamp() * 1000)
    except ValueError:
        return ""
    return f", {milliseconds:.1f} ms" if milliseconds < 1000 else f", {milliseconds / 1000:,.1f} s"


def for_programs(received: Received) -> str:
    """One JSON object; `payload` is a string, or absent and `payload_b64` is there.

    Pure ASCII, so that it is safe to look at too.
    """
    told: dict[str, object] = {"publisher": ""}
    told |= {key: received.meta[key] for key in _ALWAYS if key in received.meta}
    try:
        told["payload"] = received.payload.decode()
    except UnicodeDecodeError:
        told["payload_b64"] = b64encode(received.payload).decode()
    told["properties"] = {key: value for key, value in received.meta.items() if key not in _ALWAYS}
    return json.dumps(told)
