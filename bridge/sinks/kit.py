"""Ten promises, and how each one is put to the test.

A sink passes when `CHECKS[n](rig)` returns for every n; a promise that does not
hold raises PromiseBroken, which says what was seen. The rig is the world around
one sink: it makes the sink and moves its far end.

    @pytest.mark.parametrize("number", CHECKS)
    async def test_promise(number, rig):
        await CHECKS[number](rig)

The checks wait for what must happen and give up after `PATIENCE_S`; only where
something must *not* happen do they let a moment pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from bridge.errors import SinkUnavailable
from bridge.message import Message, Properties
from bridge.sinks.base import Outgoing, Refusal, Sink

__all__ = ["CHECKS", "Owned", "PromiseBroken", "Rig", "outgoing"]

T = TypeVar("T")

PATIENCE_S: Final = 20.0
# How long nothing may happen before we believe that it does not.
MOMENT_S: Final = 0.3
MEMORY_BYTES_MAX: Final = 48 << 20
_RECEIVED_NS: Final = 1_763_937_901_123_456_789


class PromiseBroken(AssertionError):
    """A sink did not do what it says it does."""


class Owned(msgspec.Struct, frozen=True):
    """One message as the far end has it."""

    id: str
    topic: str
    payload: bytes
    properties: Properties
    headers: tuple[tuple[str, str], ...] = ()  # the route's own, in any order


class Rig(Protocol):
    """The world around one sink. Made with the far end present.

    `address` leads to the far end, `refused_address` to where it takes nothing;
    `confirm_timeout_s` is what the sink was told, a few seconds at most.
    """

    address: str
    refused_address: str
    confirm_timeout_s: float

    def sink(self) -> Sink:
        """Make a sink, closed."""

    async def cut(self) -> None:
        """Break the present link, as a reset or a crash of the far end does."""

    async def mend(self) -> None:
        """Make the far end reachable again."""

    async def pause(self) -> None:
        """The far end accepts from now on and confirms nothing."""

    async def resume(self) -> None:
        """It confirms again, also what it accepted meanwhile."""

    async def owned(self) -> list[Owned]:
        """Return all that the far end owns so far, in the order in which it saw it."""


# ---- the ten ---------------------------------------------------------------------


async def owns_in_order(rig: Rig) -> None:
    """1: returning means that the far end owns every message, in the order of the calls."""
    batches = [_batch(rig, f"b{n}", 50) for n in range(12)]
    async with _open(rig) as sink:
        # Several calls at once: the order is that of the calls, not of luck.
        answers = await asyncio.gather(*(sink.send_batch(batch) for batch in batches))
    _expect(all(answer == [] for answer in answers), f"nothing was to be refused, and was: {answers}")
    sent = [message.id for batch in batches for message in batch]
    seen = [message.id for message in await rig.owned()]
    _expect(sorted(seen) == sorted(sent), f"{len(seen)} of {len(sent)} messages are owned")
    _expect(seen == sent, f"the order differs first at {_first_difference(sent, seen)}")


async def any_bytes_survive(rig: Rig) -> None:
    """2: payload, topic and properties arrive as they were, and so do the route's headers and body."""
    every_byte = bytes(range(256))
    messages = [
        Message("a", b""),
        Message("/", b"\0"),
        Message("plant/ü/☃/🜨/" + "x" * 300, every_byte * 1024),
        Message("a/b", b"\r\n\0\xff" * 3, retain=True, publisher="déjà vu"),
        Message(
            "p/1", b"{}", 1, properties=Properties(content_type="application/json", response_topic="r/1")
        ),
        Message("p/2", b"x", 1, properties=Properties(correlation_data=every_byte + every_byte)),
        Message("p/3", b"x", 1, properties=Properties(correlation_data=b"order-7")),
        Message("p/4", b"x", 1, properties=Properties(correlation_data=b"")),
        Message(
            "p/5",
            b"x",
            2,
            properties=Properties(
                payload_format_indicator=1,
                message_expiry_interval_s=4_000_000_000,
                user_properties=(
                    ("b", "1"),
                    ("a", "2"),
                    ("b", "1"),
                    ("", ""),
                    ("CC", "ü"),
                    ("k" * 300, "v" * 300),
                ),
            ),
        ),
        Message(
            "p/6", b"x", 1, properties=Properties(content_type="t" * 300, response_topic="r/" + "ü" * 200)
        ),
    ]
    batch = [
        Outgoing(f"kit/2/{n}", rig.address, msgspec.structs.replace(message, received_ns=_RECEIVED_NS + n))
        for n, message in enumerate(messages)
    ]
    spoken = Message("p/7", b"\xff", 1, False, "kit", _RECEIVED_NS, Properties(1, content_type="text/plain"))
    headers = (("site", "Köln"), ("x-empty", ""), ("long", "h" * 3000))
    batch += [
        Outgoing("kit/2/headers", rig.address, spoken, headers=headers),
        Outgoing("kit/2/body", rig.address, spoken, headers=headers[:1], body=every_byte),
        Outgoing("kit/2/typed", rig.address, spoken, body=b"{}", content_type="application/json"),
        Outgoing("kit/2/nothing", rig.address, spoken, body=b""),
        Outgoing("kit/2/bare", rig.address, messages[0], body=b"x" * 300_000, content_type="t" * 300),
    ]
    async with _open(rig) as sink:
        _expect(await sink.send_batch(batch) == [], "nothing was to be refused")
    owned = await rig.owned()
    _expect(len(owned) == len(batch), f"{len(owned)} of {len(batch)} are owned")
    for was, now in zip(batch, owned, strict=True):
        _expect(now.id == was.id, f"id {was.id} became {now.id}")
        _expect(now.topic == was.message.topic, f"topic {was.message.topic!r} became {now.topic!r}")
        _expect(now.payload == was.payload, f"the payload of {was.id} changed")
        properties = was.message.properties or Properties()
        if was.body is not None:
            properties = msgspec.structs.replace(
                properties, content_type=was.content_type or None, payload_format_indicator=None
            )
        _expect(now.properties == properties, f"{properties} became {now.properties}")
        _expect(dict(now.headers) == dict(was.headers), f"{was.headers} became {now.headers}")


async def broken_link_promises_nothing(rig: Rig) -> None:
    """3: a broken link raises SinkUnavailable and wakes `lost`."""
    async with _open(rig) as sink:
        await sink.send_batch(_batch(rig, "before", 3))
        lost = asyncio.ensure_future(sink.lost())
        await _moment()
        _expect(not lost.done(), "lost() returned although nothing was lost")
        await rig.pause()
        sending = asyncio.ensure_future(sink.send_batch(_batch(rig, "during", 3)))
        await _moment()
        await rig.cut()
        await rig.resume()
        await _unavailable(sending, "a batch under way when the link broke")
        reason = await _soon(lost, "lost() did not return after the link broke")
        _expect(bool(reason), "lost() gave no reason")
        late = asyncio.ensure_future(sink.send_batch(_batch(rig, "after", 3)))
        await _unavailable(late, "a batch on a broken link")


async def comes_back(rig: Rig) -> None:
    """4: after close() and open() all is well again, and again."""
    sink = rig.sink()
    try:
        for turn in range(3):
            await _soon(sink.open(), f"open number {turn + 1} did not return")
            await _soon(sink.send_batch(_batch(rig, f"t{turn}", 5)), "a batch did not return")
            lost = asyncio.ensure_future(sink.lost())
            await rig.cut()
            await _soon(lost, "lost() did not return after the link broke")
            await sink.close()
            await rig.mend()
    finally:
        await sink.close()
    ids = [message.id for message in await rig.owned()]
    expected = [message.id for turn in range(3) for message in _batch(rig, f"t{turn}", 5)]
    _expect(ids == expected, f"owned are {ids}")


async def one_refusal_harms_no_other(rig: Rig) -> None:
    """5: one refusal names one message, and its neighbours arrive."""
    batch = _batch(rig, "r", 40)
    for bad in (0, 17, 39):
        batch[bad] = msgspec.structs.replace(batch[bad], address=rig.refused_address)
    async with _open(rig) as sink:
        refusals = await _soon(sink.send_batch(batch), "a batch with refusals did not return")
        _expect([r.index for r in refusals] == [0, 17, 39], f"refused was {refusals}")
        _expect(all(r.reason for r in refusals), "a refusal gives no reason")
        only = await _soon(sink.send_batch([batch[0]]), "a batch of one refusal did not return")
        _expect([r.index for r in only] == [0], f"refused was {only}")
        _expect(await sink.send_batch([]) == [], "an empty batch is no trouble")
    good = [message.id for n, message in enumerate(batch) if n not in (0, 17, 39)]
    seen = [message.id for message in await rig.owned()]
    _expect(seen == good, f"the order or the number differs first at {_first_difference(good, seen)}")


async def silence_is_no_success(rig: Rig) -> None:
    """6: a far end that accepts and never confirms ends in SinkUnavailable, in time."""
    async with _open(rig) as sink:
        await sink.send_batch(_batch(rig, "before", 2))
        _expect(not sink.stalled, "a link that confirms is called stalled")
        await rig.pause()
        try:
            sending = asyncio.ensure_future(sink.send_batch(_batch(rig, "silent", 10)))
            await _moment()
            _expect(not sending.done(), "send_batch returned although nothing was confirmed")
            begin = asyncio.get_running_loop().time()
            await _unavailable(sending, "a batch that nobody confirms")
            took_s = asyncio.get_running_loop().time() - begin
            limit_s = 2 * rig.confirm_timeout_s + 1
            _expect(took_s < limit_s, f"it took {took_s:.1f} s to lose patience")
            _expect(sink.stalled, "a link that was given up for its silence is not called stalled")
        finally:
            await rig.resume()


async def slow_far_end_slows_the_caller(rig: Rig) -> None:
    """7: nothing returns early, memory stays bounded, and all arrive in the end."""
    payload = b"s" * (64 << 10)
    batches = [_batch(rig, f"s{n}", 40, payload) for n in range(40)]  # 100 MiB, if anybody copied it
    async with _open(rig) as sink:
        await sink.send_batch(_batch(rig, "warm", 5, payload))
        await rig.pause()
        _give_back()
        before = _resident_bytes()
        sending = [asyncio.ensure_future(sink.send_batch(batch)) for batch in batches]
        await _moment()
        grown = _resident_bytes() - before
        done = sum(task.done() for task in sending)
        await rig.resume()
        answers = await _soon(asyncio.gather(*sending), "a resumed far end did not get the rest")
    _expect(done == 0, f"{done} batches returned although nothing was confirmed")
    _expect(grown < MEMORY_BYTES_MAX, f"memory grew by {grown >> 20} MiB while the far end was slow")
    _expect(all(answer == [] for answer in answers), "nothing was to be refused")
    sent = [message.id for batch in batches for message in batch]
    seen = [message.id for message in await rig.owned()][5:]
    _expect(seen == sent, f"the order or the number differs first at {_first_difference(sent, seen)}")


async def cancelled_it_can_be_used_again(rig: Rig) -> None:
    """8: cancelled in open or in the middle of a batch, it can be closed and opened."""
    sink = rig.sink()
    opening = asyncio.ensure_future(sink.open())
    await asyncio.sleep(0)
    await _cancel(opening)
    await sink.close()
    await _soon(sink.open(), "after a cancelled open, open did not return")
    try:
        await rig.pause()
        sending = [asyncio.ensure_future(sink.send_batch(_batch(rig, f"c{n}", 100))) for n in range(5)]
        await _moment()
        for task in sending:
            await _cancel(task)
        await sink.close()
        await rig.resume()
        await _soon(sink.open(), "after a cancelled batch, open did not return")
        again = _batch(rig, "again", 5)
        await _soon(sink.send_batch(again), "after a cancelled batch, the next did not return")
    finally:
        await sink.close()
    tail = [message.id for message in await rig.owned()][-5:]
    _expect(tail == [message.id for message in again], f"the last five are {tail}")


async def same_batch_same_ids(rig: Rig) -> None:
    """9: the same batch sent twice carries the same ids, so that a consumer can tell."""
    batch = _batch(rig, "twice", 10)
    async with _open(rig) as sink:
        await sink.send_batch(batch)
        await sink.close()
        await _soon(sink.open(), "open did not return")
        await sink.send_batch(batch)
    seen = [message.id for message in await rig.owned()]
    sent = [message.id for message in batch]
    _expect(seen == sent + sent, f"sent twice, seen {seen}")


async def close_is_always_safe(rig: Rig) -> None:
    """10: close before open, twice, and while others wait; nobody waits for ever."""
    sink = rig.sink()
    await sink.close()
    await sink.close()
    await _unavailable(asyncio.ensure_future(sink.send_batch(_batch(rig, "early", 1))), "a batch before open")
    await _soon(sink.open(), "open after close did not return")
    await rig.pause()
    sending = asyncio.ensure_future(sink.send_batch(_batch(rig, "caught", 5)))
    lost = asyncio.ensure_future(sink.lost())
    await _moment()
    await sink.close()
    await _unavailable(sending, "a batch under way in close")
    await _soon(lost, "lost() did not return after close")
    await sink.close()
    await rig.resume()
    await _unavailable(asyncio.ensure_future(sink.send_batch(_batch(rig, "late", 1))), "a batch after close")


CHECKS: Final[dict[int, Callable[[Rig], Awaitable[None]]]] = dict(
    enumerate(
        (
            owns_in_order,
            any_bytes_survive,
            broken_link_promises_nothing,
            comes_back,
            one_refusal_harms_no_other,
            silence_is_no_success,
            slow_far_end_slows_the_caller,
            cancelled_it_can_be_used_again,
            same_batch_same_ids,
            close_is_always_safe,
        ),
        1,
    )
)
"""The promises by the numbers of `bridge.sinks.base`."""


# ---- tools -----------------------------------------------------------------------


def outgoing(address: str, name: str, number: int, payload: bytes = b"payload") -> Outgoing:
    """Make one message whose id is made of name and number."""
    message = Message(f"kit/{name}", payload, 1, False, "kit", _RECEIVED_NS + number)
    return Outgoing(f"kit/{name}/{number}", address, message)


def _batch(rig: Rig, name: str, count: int, payload: bytes = b"payload") -> list[Outgoing]:
    return [outgoing(rig.address, name, number, payload) for number in range(count)]


@contextlib.asynccontextmanager
async def _open(rig: Rig) -> AsyncIterator[Sink]:
    sink = rig.sink()
    try:
        await _soon(sink.open(), "open did not return")
        yield sink
    finally:
        await sink.close()


async def _soon(what: Awaitable[T], otherwise: str) -> T:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await what
    except TimeoutError:
        raise PromiseBroken(f"{otherwise} within {PATIENCE_S:g} s") from None


async def _unavailable(sending: asyncio.Future[list[Refusal]], what: str) -> None:
    try:
        answer = await _soon(sending, f"{what} did not end")
    except SinkUnavailable as error:
        _expect(bool(str(error)), f"{what} raised SinkUnavailable without a reason")
    else:
        raise PromiseBroken(f"{what} returned {answer} instead of raising SinkUnavailable")


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await _soon(task, "a cancelled call did not end")


async def _moment() -> None:
    await asyncio.sleep(MOMENT_S)


def _give_back() -> None:
    """Memory that was freed and not returned goes back to the system: growth could hide in it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    """Also what a C library holds; zero where there is no /proc, and then nothing grows."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _first_difference(expected: Sequence[str], seen: Sequence[str]) -> str:
    for n, (one, other) in enumerate(zip(expected, seen, strict=False)):
        if one != other:
            return f"{n}: {other} instead of {one}"
    return f"{min(len(expected), len(seen))}: {len(seen)} instead of {len(expected)}"


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise PromiseBroken(otherwise)
