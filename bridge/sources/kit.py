"""Ten promises, and how each one is put to the test.

As `bridge.sinks.kit`, from the other side: a source passes when `CHECKS[n](rig)` returns
for every n; a promise that does not hold raises PromiseBroken, which says what was seen.

    @pytest.mark.parametrize("number", CHECKS)
    async def test_promise(number, rig):
        await CHECKS[number](rig)

The checks wait for what must happen and give up after `PATIENCE_S`; only where
something must *not* happen do they let a moment pass.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec

from bridge.errors import SinkUnavailable
from bridge.policy.incoming import Incoming
from bridge.sources.base import Settlement, Source

__all__ = ["CHECKS", "LOSSY_CHECKS", "NOT_OF_LOSSY", "PREFETCH", "PromiseBroken", "Rig", "Sent"]

T = TypeVar("T")

PATIENCE_S: Final = 20.0
MOMENT_S: Final = 0.3  # how long nothing may happen before we believe that it does not
PREFETCH: Final = 20


class PromiseBroken(AssertionError):
    """A source did not do what it says it does."""


class Sent(msgspec.Struct, frozen=True):
    """One message as somebody in the cloud sends it."""

    body: bytes
    routing_key: str = ""
    headers: dict[str, Any] = {}
    message_id: str = ""
    content_type: str | None = None
    correlation_id: bytes | None = None
    reply_to: str = ""


class Rig(Protocol):
    """The world around one source, which it makes with `PREFETCH`."""

    can_bury: bool  # whether the far end keeps what was rejected
    can_reply: bool  # whether there is a way back to who sent a message
    routing_key: str  # under which everything has to be sent, empty where that is free

    def source(self) -> Source:
        """Make a source, closed."""

    async def send(self, *messages: Sent) -> None:
        """The far end has these from now on, in this order, behind what it has."""

    async def cut(self) -> None:
        """Break the present link, as a reset or a crash of the far end does."""

    async def mend(self) -> None:
        """Make the far end reachable again."""

    async def left(self) -> int:
        """Return how many messages the far end still has to hand out, with nobody connected."""

    async def buried(self) -> list[bytes]:
        """Return the bodies of what was rejected."""


# ---- the ten ---------------------------------------------------------------------


async def comes_in_order(rig: Rig) -> None:
    """1: in the order in which the far end has them, each one once."""
    count = PREFETCH * 5
    async with _open(rig) as source:
        await rig.send(*_numbered(count))
        got = await _take(source, count, settle=True)
        await _nothing_more(source)
    numbers = [int(one.body) for one in got]
    _expect(numbers == list(range(count)), f"came in this order: {numbers}")
    tags = {one.tag for one in got}
    _expect(len(tags) == count, "two messages have one tag")


async def any_bytes_survive(rig: Rig) -> None:
    """2: body, headers and properties arrive as they were."""
    every_byte = bytes(range(256))
    sent = [
        Sent(b"", message_id="m-1"),
        Sent(every_byte * 1024, headers={"a": "ü☃", "b": ""}),
        Sent(b"\0\xff\r\n", content_type="application/json", correlation_id=b"order-7", reply_to="back"),
        Sent(b"x", message_id="déjà-vu", headers={"user_properties": [["b", "1"], ["a", "2"], ["b", "1"]]}),
    ]
    keys = [rig.routing_key or f"k.{number}" for number in range(len(sent))]
    sent = [msgspec.structs.replace(one, routing_key=key) for one, key in zip(sent, keys, strict=True)]
    async with _open(rig) as source:
        await rig.send(*sent)
        got = await _take(source, len(sent), settle=True)
    for was, now in zip(sent, got, strict=True):
        seen = Sent(
            now.body,
            now.routing_key,
            {name: now.headers.get(name) for name in was.headers},  # a broker may add some of its own
            now.message_id if was.message_id else "",
            now.content_type,
            now.correlation_id,
            now.reply_to if rig.can_reply else was.reply_to,
        )
        _expect(seen == was, f"{str(was)[:200]} became {str(seen)[:200]}")


async def unsettled_comes_again(rig: Rig) -> None:
    """3: what is not settled is still the far end's, and comes again after a break."""
    async with _open(rig) as source:
        await rig.send(*_numbered(6))
        got = await _take(source, 6)
        source.settle([Settlement(got[1].tag)])
        await _moment()
        await _break(rig, source)
        again = await _take(source, 5, settle=True)
        await _nothing_more(source)
    _expect([one.body for one in again] == [b"0", b"2", b"3", b"4", b"5"], f"came again: {again}")
    _expect(all(one.again for one in again), "a repetition does not say that it is one")


async def accepted_is_gone(rig: Rig) -> None:
    """4: what was accepted does not come again, also when it was accepted out of order."""
    async with _open(rig) as source:
        await rig.send(*_numbered(10))
        got = await _take(source, 10)
        source.settle([Settlement(one.tag) for one in reversed(got)])
        await _moment()
        await _break(rig, source)
        await _nothing_more(source)
    _expect(await rig.left() == 0, f"{await rig.left()} messages are left")


async def rejected_is_buried(rig: Rig) -> None:
    """5: a rejection concerns one message; it is gone and among the dead letters."""
    async with _open(rig) as source:
        await rig.send(*_numbered(10))
        got = await _take(source, 10)
        source.settle(
            [Settlement(one.tag, "unfit" if number in (0, 4, 9) else "") for number, one in enumerate(got)]
        )
        await _moment()
        await _break(rig, source)
        await _nothing_more(source)
    _expect(await rig.left() == 0, f"{await rig.left()} messages are left")
    if rig.can_bury:
        buried = sorted(await rig.buried())
        _expect(buried == [b"0", b"4", b"9"], f"buried are {buried}")


async def broken_link_is_told(rig: Rig) -> None:
    """6: a broken link raises SinkUnavailable and wakes `lost`; settling on it harms nobody."""
    async with _open(rig) as source:
        await rig.send(*_numbered(1))
        got = await _take(source, 1)
        lost = asyncio.ensure_future(source.lost())
        receiving = asyncio.ensure_future(source.receive())
        await _moment()
        _expect(not lost.done() and not receiving.done(), "it ended although nothing was lost")
        await rig.cut()
        await _unavailable(receiving, "receive when the link broke")
        reason = await _soon(lost, "lost() did not return after the link broke")
        _expect(bool(reason), "lost() gave no reason")
        source.settle([Settlement(got[0].tag), Settlement(got[0].tag, "twice")])
        await _unavailable(asyncio.ensure_future(source.receive()), "receive on a broken link")
        await source.close()
        await rig.mend()
        await _soon(source.open(), "open did not return")
        # A tag of the last link means nothing on this one, whatever number it would be there.
        source.settle([Settlement(got[0].tag)])
        again = await _take(source, 1, settle=True)
        _expect([one.body for one in again] == [b"0"], f"came again: {again}")


async def comes_back(rig: Rig) -> None:
    """7: after close() and open() all is well again, and again."""
    source = rig.source()
    try:
        for turn in range(3):
            await _soon(source.open(), f"open number {turn + 1} did not return")
            await rig.send(*_numbered(3))
            got = await _take(source, 3, settle=True)
            _expect(len(got) == 3, f"{len(got)} of 3 came in turn {turn}")
            await _moment()
            lost = asyncio.ensure_future(source.lost())
            await rig.cut()
            await _soon(lost, "lost() did not return after the link broke")
            await source.close()
            await rig.mend()
    finally:
        await source.close()
    _expect(await rig.left() == 0, f"{await rig.left()} messages are left")


async def prefetch_is_a_bound(rig: Rig) -> None:
    """8: never more than `prefetch` are out and not settled, and settling one brings the next."""
    async with _open(rig) as source:
        await rig.send(*_numbered(PREFETCH + 5))
        got = await _take(source, PREFETCH)
        await _nothing_more(source)
        source.settle([Settlement(got[3].tag), Settlement(got[7].tag)])
        more = await _take(source, 2)
        await _nothing_more(source)
    _expect([int(one.body) for one in more] == [PREFETCH, PREFETCH + 1], f"then came {more}")


async def cancelled_it_can_be_used_on(rig: Rig) -> None:
    """9: cancelled in open or in receive, it can be used on, and nothing is lost."""
    source = rig.source()
    opening = asyncio.ensure_future(source.open())
    await asyncio.sleep(0)
    await _cancel(opening)
    await source.close()
    await _soon(source.open(), "after a cancelled open, open did not return")
    try:
        for _ in range(3):
            receiving = asyncio.ensure_future(source.receive())
            await asyncio.sleep(0)
            await _cancel(receiving)
        await rig.send(*_numbered(5))
        got = await _take(source, 5, settle=True)
    finally:
        await source.close()
    _expect([one.body for one in got] == [b"0", b"1", b"2", b"3", b"4"], f"came {got}")


async def close_is_always_safe(rig: Rig) -> None:
    """10: close before open, twice, and while others wait; nobody waits for ever."""
    source = rig.source()
    await source.close()
    await source.close()
    source.settle([Settlement(1)])
    await _unavailable(asyncio.ensure_future(source.receive()), "receive before open")
    await _soon(source.open(), "open after close did not return")
    receiving = asyncio.ensure_future(source.receive())
    lost = asyncio.ensure_future(source.lost())
    await _moment()
    await source.close()
    await _unavailable(receiving, "receive in close")
    await _soon(lost, "lost() did not return after close")
    await source.close()
    await _unavailable(asyncio.ensure_future(source.receive()), "receive after close")


CHECKS: Final[dict[int, Callable[[Rig], Awaitable[None]]]] = dict(
    enumerate(
        (
            comes_in_order,
            any_bytes_survive,
            unsettled_comes_again,
            accepted_is_gone,
            rejected_is_buried,
            broken_link_is_told,
            comes_back,
            prefetch_is_a_bound,
            cancelled_it_can_be_used_on,
            close_is_always_safe,
        ),
        1,
    )
)
"""The promises by the numbers of `bridge.sources.base`."""

NOT_OF_LOSSY: Final = {
    3: "what was handed out is nobody else's any more, so nothing comes again",
    4: "nobody is told that something was accepted, so there is nothing to see of it",
    5: "the far end is told no rejection and has no dead letters; the gateway counts it",
    6: "ZeroMQ mends a broken connection by itself; to give it up would lose what waits in it",
    7: "for the same reason there is nothing to close and to open",
}
"""What a lossy source does not promise, and why."""

LOSSY_CHECKS: Final = {number: check for number, check in CHECKS.items() if number not in NOT_OF_LOSSY}
"""The promises that hold for a lossy source too."""


# ---- tools -----------------------------------------------------------------------


def _numbered(count: int) -> list[Sent]:
    return [Sent(b"%d" % number, message_id=f"kit-{number}") for number in range(count)]


@contextlib.asynccontextmanager
async def _open(rig: Rig) -> AsyncIterator[Source]:
    source = rig.source()
    try:
        await _soon(source.open(), "open did not return")
        yield source
    finally:
        await source.close()


async def _break(rig: Rig, source: Source) -> None:
    """Cut the link, and open the next one."""
    lost = asyncio.ensure_future(source.lost())
    await rig.cut()
    await _soon(lost, "lost() did not return after the link broke")
    await source.close()
    await rig.mend()
    await _soon(source.open(), "open did not return")


async def _take(source: Source, count: int, *, settle: bool = False) -> list[Incoming]:
    got: list[Incoming] = []
    while len(got) < count:
        batch = await _soon(source.receive(), f"{len(got)} of {count} messages came")
        _expect(bool(batch), "receive returned without a message")
        got += batch
        if settle:
            source.settle([Settlement(one.tag) for one in batch])
    _expect(len(got) == count, f"{len(got)} messages came, and {count} were expected")
    return got


async def _nothing_more(source: Source) -> None:
    receiving = asyncio.ensure_future(source.receive())
    await _moment()
    if receiving.done():
        raise PromiseBroken(f"unexpected: {str(receiving.result())[:300]}")
    await _cancel(receiving)


async def _soon(what: Awaitable[T], otherwise: str) -> T:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await what
    except TimeoutError:
        raise PromiseBroken(f"{otherwise} within {PATIENCE_S:g} s") from None


async def _unavailable(receiving: asyncio.Future[list[Incoming]], what: str) -> None:
    try:
        batch = await _soon(receiving, f"{what} did not end")
    except SinkUnavailable as error:
        _expect(bool(str(error)), f"{what} raised SinkUnavailable without a reason")
    else:
        raise PromiseBroken(f"{what} returned {batch} instead of raising SinkUnavailable")


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await _soon(task, "a cancelled call did not end")


async def _moment() -> None:
    await asyncio.sleep(MOMENT_S)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise PromiseBroken(otherwise)
