"""`edgespool replay`: asks the running gateway to send kept history once more, and waits.

The gateway does it, because the ids and the sinks are its own (`bridge.forward.orders`
says how it is asked). Ctrl-C stops the replay; what was sent by then was sent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from bridge.cli.spool import guarded
from bridge.config.load import load
from bridge.errors import StoreFailed
from bridge.forward.orders import Desk, Order, OrderT, Outcome, OutcomeT, replay_desk
from bridge.observe.escape import printable

__all__ = ["attend", "replay"]

TAKE_WAIT_S: Final = 5.0  # a gateway looks once a second
POLL_S: Final = 0.1


def replay(config: Path | None, state: Path | None, order: Order, *, wait: bool) -> int:
    """Ask, and wait until it is done, or only until it is begun; return the exit code."""

    def work() -> int:
        found = load(config, {"store.path": str(state.absolute())} if state is not None else None)
        path = str(found.store.path)
        desk = replay_desk(path)
        try:
            name = desk.ask(order)
        except FileNotFoundError:
            raise StoreFailed(_nobody(path)) from None
        try:
            outcome = attend(desk, name, wait=wait)
        except TimeoutError:
            desk.take_back(name)
            raise StoreFailed(_nobody(path)) from None
        except KeyboardInterrupt:
            desk.take_back(name)
            print("edgespool: stopped; what was sent by now was sent", file=sys.stderr)
            return 1
        if outcome is None:
            print(f"the gateway has begun; to stop it, remove {printable(desk.folder)}/{name}.run")
            return 0
        if outcome.error:
            raise StoreFailed(outcome.error)
        print("\n".join(_told(outcome)))
        return 0

    return guarded(work)


def attend(desk: Desk[OrderT, OutcomeT], name: str, *, wait: bool) -> OutcomeT | None:
    """Wait until an order is carried out, or with None only until it is begun.

    Raises TimeoutError when no gateway takes it; it lies there still.
    """
    asked = time.monotonic()
    while desk.is_waiting(name):
        if time.monotonic() - asked > TAKE_WAIT_S:
            raise TimeoutError
        time.sleep(POLL_S)
    if not wait:
        return None
    while (outcome := desk.outcome(name)) is None:
        time.sleep(POLL_S)
    return outcome


def _nobody(path: str) -> str:
    return (
        f"no gateway is running on the store {path}, and only a running one can replay; "
        "start it, or name its configuration or --state"
    )


def _told(outcome: Outcome) -> list[str]:
    since = " since the gateway was started again" if outcome.resumed else ""
    lines = [f"{outcome.sent:,} messages sent{since}"]
    if outcome.refused:
        lines[0] += f", {outcome.refused:,} refused"
    if outcome.first:
        lines.append(f"  arrived   {outcome.first} to {outcome.last}")
    if outcome.kept_since:
        lines.append(f"  kept      since {outcome.kept_since}; `store.keep` says for how long")
    if outcome.missed_bytes:
        lines.append(f"  missed    {outcome.missed_bytes:,} bytes of history went before it came there")
    return lines
