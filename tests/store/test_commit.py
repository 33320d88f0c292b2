import asyncio
import errno
import threading

import pytest

from bridge.errors import StoreFailed, StoreFull
from bridge.store import commit as commit_module
from bridge.store.commit import Committer


class Shelf:
    """A part of the store whose disk the test holds in its hands."""

    def __init__(self) -> None:
        self.queued: list[str] = []
        self.written: list[str] = []
        self.settled: list[str] = []
        self.failed: list[str] = []
        self.threads: list[str] = []
        self.errors: list[Exception] = []  # of the writes to come
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def dirty(self) -> bool:
        return bool(self.queued)

    def take(self) -> list[str]:
        batch, self.queued = self.queued, []
        return batch

    def write(self, batch: list[str]) -> None:
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.go_on.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.written += batch

    def settle(self, batch: list[str]) -> None:
        self.settled += batch

    def fail(self, batch: list[str], error: Exception) -> None:
        self.failed += batch


class Clock:
    """Stands in for the stopwatch: between two looks at it `took_s` pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.took_s = 0.0

    def perf_counter(self) -> float:
        self.now_s += self.took_s
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(commit_module, "time", clock)
    return clock


@pytest.fixture
async def shelf():
    return Shelf()


@pytest.fixture
async def committer(shelf, clock):
    committer = Committer([shelf])
    yield committer
    shelf.go_on.set()
    await committer.close()


async def make_slow(committer, shelf, clock):
    clock.took_s = 0.040
    shelf.queued.append("warm up")
    await committer.flush()
    assert committer.commit_s == pytest.approx(0.004)


async def entered(shelf):
    assert await asyncio.to_thread(shelf.entered.wait, 10)


async def test_everyone_who_waits_in_one_turn_is_told_by_one_commit_in_order(committer, shelf):
    told = []
    for name in "abc":
        shelf.queued.append(name)
        committer.when_durable(lambda error, name=name: told.append((name, error, list(shelf.settled))))
    await committer.flush()
    assert told == [(name, None, ["a", "b", "c"]) for name in "abc"]
    assert committer.commits == 1


async def test_readers_are_called_after_the_waiters(committer, shelf):
    told = []
    committer.after_commit(lambda: told.append("reader"))
    shelf.queued.append("a")
    committer.when_durable(lambda error: told.append("waiter"))
    await committer.flush()
    assert told == ["waiter", "reader"]


async def test_with_nothing_to_write_a_waiter_is_told_all_the_same(committer, shelf):
    assert await committer.flush() is None
    assert committer.commits == 0
    assert shelf.threads == []


async def test_what_is_queued_without_a_waiter_is_written_at_the_end_of_the_turn(committer, shelf):
    shelf.queued.append("a")
    committer.schedule()
    committer.schedule()
    await committer.flush()
    assert shelf.settled == ["a"]
    assert committer.commits == 1


async def test_a_fast_disk_is_written_in_the_loops_own_turn(committer, shelf, clock):
    clock.took_s = 0.0005
    for name in "abc":
        shelf.queued.append(name)
        await committer.flush()
    assert set(shelf.threads) == {"MainThread"}


async def test_a_slow_disk_gets_a_thread_and_a_disk_that_recovers_loses_it(committer, shelf, clock):
    await make_slow(committer, shelf, clock)
    shelf.queued.append("a")
    await committer.flush()
    assert shelf.threads[-1].startswith("commit")
    clock.took_s = 0.0
    for _ in range(30):
        shelf.queued.append("b")
        await committer.flush()
    assert shelf.threads[-1] == "MainThread"


async def test_what_arrives_during_a_threaded_commit_shares_the_next(committer, shelf, clock):
    await make_slow(committer, shelf, clock)
    shelf.go_on.clear()
    shelf.entered.clear()
    told = []
    shelf.queued.append("a")
    committer.when_durable(lambda error: told.append(("a", "a" in shelf.settled)))
    await entered(shelf)
    for name in "bcd":
        shelf.queued.append(name)
        committer.when_durable(lambda error, name=name: told.append((name, name in shelf.settled)))
    assert told == []
    shelf.go_on.set()
    await committer.flush()
    assert told == [(name, True) for name in "abcd"]
    assert committer.commits == 3


async def test_a_commit_that_fails_tells_everyone_and_the_next_one_works(committer, shelf):
    told = []
    shelf.errors.append(OSError(errno.EIO, "bad sector"))
    for name in "ab":
        shelf.queued.append(name)
        committer.when_durable(told.append)
    error = await committer.flush()
    assert isinstance(error, StoreFailed)
    assert "bad sector" in str(error)
    assert told == [error, error]
    assert shelf.settled == []
    assert committer.fault is error
    shelf.queued.append("c")
    assert await committer.flush() is None
    assert shelf.settled == ["c"]
    assert committer.fault is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_told_from_a_broken_one(committer, shelf, number):
    shelf.errors.append(OSError(number, "full"))
    shelf.queued.append("a")
    assert isinstance(await committer.flush(), StoreFull)


async def test_given_an_error_of_our_own_in_a_write_nobody_waits_for_ever(committer, shelf):
    shelf.errors.append(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"))
    shelf.queued.append("a")
    assert isinstance(await committer.flush(), StoreFailed)
    assert shelf.failed == ["a"]
    shelf.queued.append("b")
    assert await committer.flush() is None


async def test_given_a_threaded_commit_fails_what_was_queued_meanwhile_fails_with_it(committer, shelf, clock):
    """Else the second message of a device is stored, and its first comes again behind it."""
    await make_slow(committer, shelf, clock)
    shelf.go_on.clear()
    shelf.entered.clear()
    shelf.errors.append(OSError(errno.EIO, "bad sector"))
    told = []
    shelf.queued.append("a")
    committer.when_durable(lambda error: told.append(("a", error)))
    await entered(shelf)
    shelf.queued.append("b")
    committer.when_durable(lambda error: told.append(("b", error)))
    late = asyncio.ensure_future(committer.flush())
    await asyncio.sleep(0)
    shelf.go_on.set()
    fault = await late
    assert fault is not None
    assert told == [("a", fault), ("b", fault)]
    assert shelf.failed == ["a", "b"]
    shelf.queued.append("c")
    assert await committer.flush() is None
    assert shelf.settled == ["warm up", "c"]


async def test_a_waiter_that_raises_keeps_the_news_from_nobody(committer, shelf):
    told, mistakes = [], []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: mistakes.append(context))
    shelf.queued.append("a")

    def mistaken(error):
        raise ZeroDivisionError

    committer.when_durable(mistaken)
    committer.when_durable(told.append)
    await committer.flush()
    assert told == [None]
    assert len(mistakes) == 1


async def test_after_a_failure_messages_are_kept_out_for_a_while(committer, shelf, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(committer, "_loop", _At(committer._loop, lambda: now_s))
    assert committer.accepting
    shelf.errors.append(OSError(errno.EIO, "bad sector"))
    shelf.queued.append("a")
    await committer.flush()
    assert not committer.accepting
    now_s += commit_module.PROBE_AFTER_S + 0.001
    assert committer.accepting
    shelf.queued.append("b")
    await committer.flush()
    now_s -= 50
    assert committer.accepting


class _At:
    """An event loop with another time."""

    def __init__(self, loop, time) -> None:
        self._loop, self.time = loop, time

    def __getattr__(self, name):
        return getattr(self._loop, name)


async def test_close_writes_what_is_left(committer, shelf, clock):
    await make_slow(committer, shelf, clock)
    told = []
    shelf.queued.append("a")
    committer.when_durable(told.append)
    shelf.queued.append("b")
    await committer.close()
    assert shelf.settled == ["warm up", "a", "b"]
    assert told == [None]


async def test_close_on_a_broken_disk_comes_to_an_end(committer, shelf):
    shelf.errors += [OSError(errno.EIO, "bad sector")] * 9
    shelf.queued.append("a")
    await committer.close()
    assert shelf.failed == ["a"]


async def test_after_close_nothing_is_written_and_whoever_waits_is_told(committer, shelf):
    await committer.close()
    shelf.queued.append("a")
    assert isinstance(await committer.flush(), StoreFailed)
    assert shelf.written == []


async def test_a_waiter_that_went_away_does_not_disturb(committer, shelf):
    shelf.queued.append("a")
    gone = asyncio.ensure_future(committer.flush())
    await asyncio.sleep(0)
    gone.cancel()
    assert await committer.flush() is None
    assert shelf.settled == ["a"]
