"""What systemd wants to hear of a service: READY, STOPPING, and a heartbeat.

One datagram to the socket that NOTIFY_SOCKET names; see sd_notify(3). Without
that variable nobody listens, and every function here does nothing.

A heartbeat from the event loop says more than that the process lives: it says
that the loop still turns, so a loop that hangs is restarted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["notify", "ready", "status", "stopping", "watchdog", "watchdog_interval_s"]


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager; return whether there was one. Never raises, never waits."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name of the abstract space, as Linux spells it
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            wire.setblocking(False)
            wire.sendto(state.encode(), address)
    except OSError:
        # Not being heard is no reason to stop serving devices.
        return False
    return True


def ready(text: str = "") -> bool:
    """The listeners are open: units that are ordered after us may start."""
    return notify(f"READY=1\nSTATUS={_line(text)}" if text else "READY=1")


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return notify(f"STATUS={_line(text)}")


def stopping() -> bool:
    """The house is being left on purpose."""
    return notify("STOPPING=1")


def watchdog() -> bool:
    """The loop has just turned."""
    return notify("WATCHDOG=1")


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often to call `watchdog`: half of what the unit allows; None when it does not ask."""
    asked = environ.get("WATCHDOG_USEC", "")
    if not asked.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(asked) / 2_000_000 or None


def _line(text: str) -> str:
    return text.replace("\n", " ")
