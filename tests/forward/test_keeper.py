"""One sink, kept open: back-off, turns, and one line in the log for each end of an outage."""

import asyncio
import contextlib
import logging

import pytest

from bridge.errors import ConfigError, SinkUnavailable
from bridge.forward.keeper import Keeper
from bridge.sinks.memory import MemorySink
from tests.gateway import until


@pytest.fixture
async def kept(monkeypatch):
    """A keeper that runs, and the attempts it has drawn a wait for."""
    attempts = []
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: attempts.append(attempt) or 0.0)
    keeper = Keeper(MemorySink("cloud"))
    keeper.attempts = attempts
    running = asyncio.create_task(keeper.run())
    yield keeper
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert not keeper.up


async def test_waits_grow_while_the_far_end_is_away_and_start_anew_once_it_carried_something(kept):
    await kept.wait_up()
    kept.sink.go_away()
    await until(lambda: len(kept.attempts) >= 5)
    assert kept.attempts[:5] == [0, 1, 2, 3, 4]
    kept.sink.come_back()
    await kept.wait_up()
    kept.broken(kept.turn, "broke before it carried anything")
    await until(lambda: kept.turn == 3)
    assert kept.attempts[-1] >= 5, "a link that only opens has proved nothing"
    kept.confirmed()
    kept.broken(kept.turn, "broke")
    await until(lambda: kept.turn == 4)
    assert kept.attempts[-1] == 0


async def test_a_link_is_blocked_when_its_far_end_asks_us_to_wait_and_not_when_somebody_else_has_to(kept):
    await kept.wait_up()
    kept.sink.waiting = "a receiver speaks another version"
    assert (kept.state, kept.reason) == ("up", "")
    kept.sink.blocked, kept.sink.waiting = True, "low on memory"
    assert (kept.state, kept.reason) == ("blocked", "low on memory")
    kept.sink.blocked, kept.sink.waiting = False, ""
    assert (kept.state, kept.reason) == ("up", "")


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(kept, caplog):
    caplog.set_level(logging.INFO)
    await kept.wait_up()
    caplog.clear()
    kept.sink.go_away("pulled")
    await until(lambda: len(kept.attempts) >= 10)
    kept.sink.come_back()
    await kept.wait_up()
    lines = [record.getMessage() for record in caplog.records if "sink" in record.message]
    assert len(lines) == 2
    assert lines[0] == "sink away sink=cloud reason=pulled"
    assert lines[1].startswith("sink up sink=cloud away_s=")


class _Unreadable(MemorySink):
    """A sink whose files are fine at first, and not while they are being renewed."""

    tries = 0

    async def open(self):
        self.tries += 1
        if self.tries == 1:
            raise SinkUnavailable("no line yet")
        if self.tries == 2:
            raise ConfigError("the key is not that of the certificate")
        await super().open()


async def test_given_a_line_that_was_never_up_when_a_file_is_wrong_for_a_moment_then_it_is_an_outage(
    monkeypatch,
):
    # Nobody looks any more: a gateway that ended here would stay down.
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: 0.0)
    keeper = Keeper(_Unreadable("cloud"))
    running = asyncio.create_task(keeper.run())
    await asyncio.wait_for(keeper.wait_up(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert keeper.sink.tries == 3


async def test_a_far_end_that_was_never_there_is_logged_once_too(caplog, monkeypatch):
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: 0.0)
    sink = MemorySink("cloud")
    sink.go_away("nobody at home")
    tries = 0
    real = sink.open

    async def counted():
        nonlocal tries
        tries += 1
        await real()

    sink.open = counted
    keeper = Keeper(sink)
    running = asyncio.create_task(keeper.run())
    await until(lambda: tries >= 10)
    assert keeper.reason == "nobody at home"
    assert len([record for record in caplog.records if "sink away" in record.message]) == 1
    running.cancel()


async def test_a_batch_of_an_old_turn_does_not_tear_down_the_new_link(kept):
    turn = await kept.wait_up()
    kept.broken(turn, "first")
    kept.broken(turn, "again, of the same turn")
    await until(lambda: kept.turn == turn + 1)
    kept.broken(turn, "late")
    assert kept.up
    assert kept.reason == ""


async def test_an_idle_link_that_breaks_is_noticed(kept):
    await kept.wait_up()
    kept.sink.go_away("idle, and gone")
    await until(lambda: not kept.up)
    assert kept.reason == "idle, and gone"


async def test_a_far_end_that_lets_us_in_and_confirms_nothing_is_stalled_until_it_does(kept, caplog):
    caplog.set_level(logging.INFO)
    await kept.wait_up()
    since_ns = kept.since_ns
    caplog.clear()
    for stalls in (1, 2, 3):
        kept.sink.stall()
        await until(lambda stalls=stalls: kept.turn == stalls + 1)
        assert (kept.state, kept.stalls, kept.up) == ("stalled", stalls, True)
        assert kept.reason == "no confirmation within 15 s"
    assert kept.since_ns > since_ns
    kept.confirmed()
    assert (kept.state, kept.reason, kept.stalls) == ("up", "", 3)
    first, last = [record.getMessage() for record in caplog.records if record.message.startswith("sink")]
    assert first == "sink stalled sink=cloud reason=no confirmation within 15 s"
    assert last.startswith("sink up sink=cloud away_s=")


async def test_a_stalled_far_end_that_is_then_not_there_at_all_is_down(kept):
    await kept.wait_up()
    kept.sink.stall()
    kept.sink.go_away("nobody at home")
    await until(lambda: len(kept.attempts) >= 3)
    assert (kept.state, kept.reason) == ("down", "nobody at home")
    kept.sink.come_back()
    await kept.wait_up()
    assert kept.state == "up"


async def test_a_sink_that_is_wrong_in_an_unforeseen_way_is_not_called_up():
    sink = MemorySink("cloud")

    async def lost():
        raise RuntimeError("a mistake of ours")

    sink.lost = lost
    keeper = Keeper(sink)
    with pytest.raises(RuntimeError):
        await keeper.run()
    assert not keeper.up


async def test_the_sink_is_closed_after_every_failed_try():
    calls = []

    class Sink(MemorySink):
        async def open(self):
            calls.append("open")
            raise SinkUnavailable("no")

        async def close(self):
            calls.append("close")

    keeper = Keeper(Sink("cloud"))
    running = asyncio.create_task(keeper.run())
    await until(lambda: len(calls) >= 2)
    assert calls[:2] == ["open", "close"]
    running.cancel()
