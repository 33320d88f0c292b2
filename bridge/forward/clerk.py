"""The clerk of one desk: takes the orders that lie there, has them carried out, writes what became of them.

An order is begun once a gateway sees it, goes on after a restart, and stops when whoever
gave it takes it back. A few at a time, because each waits for its sink as long as that
takes, and the others are not to wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic

import msgspec

from bridge.forward.orders import Desk, LetterOutcome, OrderT, Outcome, OutcomeT

__all__ = ["Clerk"]

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
AT_ONCE_MAX: Final = 4


class Clerk(Generic[OrderT, OutcomeT]):
    """Serves one desk; `run` is its one task, and owns one more for each order that is being carried out.

    `what` is the word of the log for such an order. `work` gets its name and the order.
    """

    def __init__(
        self, what: str, desk: Desk[OrderT, OutcomeT], work: Callable[[str, OrderT], Awaitable[OutcomeT]]
    ) -> None:
        self._what = what
        self._desk = desk
        self._work = work
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve until cancelled; what is under way then goes on at the next start."""
        self._desk.open()
        async with asyncio.TaskGroup() as group:
            while True:
                taken = self._desk.taken()
                for name in taken:
                    if name not in self._running and len(self._running) < AT_ONCE_MAX:
                        task = group.create_task(self._serve(name), name=f"{self._what} {name}")
                        self._running[name] = task
                for name, task in self._running.items():
                    if name not in taken:
                        task.cancel()
                await asyncio.sleep(LOOK_EVERY_S)

    async def _serve(self, name: str) -> None:
        what = self._what
        try:
            outcome = await self._work(name, self._desk.order(name))
            counts = _counts(outcome)
            facts = " ".join(f"{fact}=%d" for fact in counts)
            log.info(f"{what} done {what}=%s {facts}", name, *counts.values())
        except asyncio.CancelledError:
            if name not in self._desk.taken():
                log.info(f"{what} stopped {what}=%s", name)
                self._desk.forget(name)
            raise
        except Exception as error:
            # Whoever asked waits for an answer, whatever it is that went wrong.
            log.warning(f"{what} failed {what}=%s reason=%s", name, error)
            outcome = self._desk.failure(str(error))
        finally:
            del self._running[name]
        self._desk.finish(name, outcome)


def _counts(outcome: Outcome | LetterOutcome) -> dict[str, int]:
    """What was counted; texts may be a far end's, and are for whoever asked."""
    told = msgspec.structs.asdict(outcome)
    return {name: value for name, value in told.items() if isinstance(value, int)}
