"""Group commit: one sync for everyone who waits.

There is no timer. The batch is whatever arrived while the disk was busy, or
during one turn of the event loop when it was idle: on a fast disk a handful of
messages, on an SD card with a 20 ms fsync hundreds, by the same code.

All logs and tables of the store share one commit, so "committed" is one moment:
a message that was appended to both logs and retained is safe when the callback
comes, not before.

While the disk is fast (a commit under about a millisecond) it is written in
the loop's own turn: handing it to a thread and back costs more than the sync. A
slow disk gets the thread, so that it never stalls the loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from bridge.errors import StoreError, StoreFailed, StoreFull
from bridge.store.reserve import Reserve

__all__ = ["Committer", "Part"]

log = logging.getLogger(__name__)

INLINE_BELOW_S: Final = 0.0015
THREAD_ABOVE_S: Final = 0.003
PROBE_AFTER_S: Final = 0.5  # how long a failed commit keeps new messages out before one may try again

Waiter = Callable[[StoreError | None], None]
Work = list[tuple["Part", Any]]


class Part(Protocol):
    """What joins a commit: a Log or a Table."""

    @property
    def dirty(self) -> bool: ...
    def take(self) -> Any: ...
    def write(self, batch: Any) -> None: ...
    def settle(self, batch: Any) -> None: ...
    def fail(self, batch: Any, error: Exception) -> None: ...


class Committer:
    """Writes what the parts have queued, once for all; belongs to one event loop.

    `fault` is why the last commit failed, None when it did not. `commit_s` is the
    moving average of what the disk takes.
    """

    def __init__(self, parts: Sequence[Part], reserve: Reserve | None = None) -> None:
        self._parts = parts
        self._reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._waiters: list[Waiter] = []
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._scheduled = False
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: asyncio.Future[tuple[Exception | None, float]] | None = None
        self._slow = False
        self._closed = False
        self._failed_at = 0.0
        self.fault: StoreError | None = None
        self.turn = 0  # rises with every commit that begins
        self.commits = 0
        self.commit_s = 0.0
        if reserve is not None and (error := reserve.take()) is not None:
            self._fail(error)

    @property
    def accepting(self) -> bool:
        """Whether it makes sense to queue a message: no commit has just failed, and the reserve is there."""
        if self.fault is None:
            return True
        return self._loop.time() - self._failed_at > PROBE_AFTER_S and self._has_reserve()

    def _has_reserve(self) -> bool:
        """Whether what is kept back for the house itself is kept back, or can be again."""
        if self._reserve is None or self._reserve.take() is None:
            return True
        self._failed_at = self._loop.time()
        return False

    def before_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a commit begins: what it adds to the parts belongs to that commit.

        For state that changes many times between two commits, and is written once.
        """
        self._before.append(callback)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each commit that succeeded: readers look for news then."""
        self._after.append(callback)

    def when_durable(self, waiter: Waiter) -> None:
        """Call `waiter(None)` when all that is queued by now is on the disk.

        `waiter(error)` when it could not be written: then nothing of it counts. One
        call a connection and commit, not one a message. Waiters are called in the
        order in which they came.
        """
        self._waiters.append(waiter)
        if not self._scheduled:
            self._scheduled = True
            if self._under_way is None:
                self._loop.call_soon(self._commit)

    def schedule(self) -> None:
        """Commit what is queued at the end of this turn, though nobody waits for it."""
        if not self._scheduled:
            self.when_durable(_nobody)

    async def flush(self) -> StoreError | None:
        """Commit what is queued; return why it failed, or None."""
        done: asyncio.Future[StoreError | None] = self._loop.create_future()
        self.when_durable(lambda error: None if done.done() else done.set_result(error))
        return await done

    async def close(self) -> None:
        """Commit what is left and let go of the thread."""
        while self._scheduled or self._under_way is not None or any(part.dirty for part in self._parts):
            if await self.flush() is not None:
                break
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None

    def _commit(self) -> None:
        if self._closed:  # the lock is gone: the files may be another process's by now
            self._drop_waiting(OSError(errno.EBADF, "the store is closed"))
            return
        self._scheduled = False
        self.turn += 1
        waiters, self._waiters = self._waiters, []
        for callback in self._before:
            self._tell(callback)
        work = [(part, part.take()) for part in self._parts if part.dirty]
        if not work:
            self._finish(waiters, work, None, 0.0)
        elif self._slow:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "commit")
            self._under_way = self._loop.run_in_executor(self._thread, _write, work)
            self._under_way.add_done_callback(lambda done: self._thread_done(done, waiters, work))
        else:
            error, took_s = _write(work)
            self._finish(waiters, work, error, took_s)

    def _thread_done(
        self,
        done: asyncio.Future[tuple[Exception | None, float]],
        waiters: list[Waiter],
        work: Work,
    ) -> None:
        self._under_way = None
        error, took_s = done.result()
        self._finish(waiters, work, error, took_s)
        if self._scheduled:
            self._loop.call_soon(self._commit)

    def _finish(self, waiters: list[Waiter], work: Work, error: Exception | None, took_s: float) -> None:
        if work:
            self.commits += 1
            self.commit_s += (took_s - self.commit_s) * 0.1
            self._slow = self.commit_s > (INLINE_BELOW_S if self._slow else THREAD_ABOVE_S)
        if error is not None:
            for part, batch in work:
                part.fail(batch, error)
            # What was queued meanwhile goes the same way. Else the second message of
            # a device would be stored before its first comes again, and whoever
            # waits for a message that was under way already would be told it is safe.
            self._waiters = waiters + self._waiters
            self._drop_waiting(error)
            return
        if work:
            for part, batch in work:
                part.settle(batch)
            # With the reserve given up, what has been written may be the house's own last words.
            if self.fault is not None and self._has_reserve():
                self.fault = None
                log.warning("store back")
        for waiter in waiters:
            self._tell(waiter, None)
        if work:
            for callback in self._after:
                self._tell(callback)

    def _drop_waiting(self, error: Exception) -> None:
        """Nothing that is queued will be written: say so to everyone who waits."""
        for part in self._parts:
            if part.dirty:
                part.fail(part.take(), error)
        fault = self._fail(error)
        self._scheduled = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._tell(waiter, fault)

    def _fail(self, error: Exception) -> StoreError:
        fault = fault_from(error)
        if self.fault is None:
            log.error("store failed reason=%s", fault)
        self.fault = fault
        self._failed_at = self._loop.time()
        if isinstance(fault, StoreFull) and self._reserve is not None and self._reserve.give_up():
            log.warning("reserve given up; messages are refused until there is room for it")
        return fault

    def _tell(self, callback: Callable[..., None], *facts: StoreError | None) -> None:
        # A mistake in one of them must not keep the news from the others.
        try:
            callback(*facts)
        except Exception as error:
            self._loop.call_exception_handler({"message": "told of a commit, and failed", "exception": error})


def fault_from(error: Exception) -> StoreError:
    """What an error of the disk means to those who wait for it."""
    text = f"{error.strerror or error}" if isinstance(error, OSError) else repr(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreFull(text) if full else StoreFailed(text)


def _nobody(error: StoreError | None) -> None:
    """Nobody waits for this commit."""


def _write(work: Work) -> tuple[Exception | None, float]:
    """Write every batch; return the first error and the time that the disk took, in seconds.

    Encoding does not count: a large batch must not pass for a slow disk, be given to
    the thread and so make the next one larger still.
    """
    began = time.perf_counter()
    error: Exception | None = None
    try:
        for part, batch in work:
            part.write(batch)
    except Exception as caught:  # of whatever kind: those who wait must hear of it
        error = caught
    took_s = time.perf_counter() - began
    return error, took_s - sum(getattr(batch, "encode_s", 0.0) for _, batch in work)
