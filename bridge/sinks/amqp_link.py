"""One connection to a RabbitMQ, from its first byte to its last: what is published and what is confirmed.

    _line ──publish──▶ ledger ──basic.ack──▶ settled
                         │
                         ├─ basic.return, then ack ─▶ refused, if all that was declared is there
                         └─ basic.nack ─▶ the link is given up, and nothing is promised

A return precedes the ack of its tag. What is learnt from a link that failed is kept for
the next one: `amqp_memory`. Nothing is done for each message but to make its bytes: they
are written in pieces of 64 KiB, and confirmed by the stretch.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from pika.spec import Basic

from bridge.errors import SinkUnavailable
from bridge.sinks.amqp_channel import Channel
from bridge.sinks.amqp_connection import Connection, declarations, explain
from bridge.sinks.amqp_inventory import Inventory
from bridge.sinks.amqp_ledger import Ledger
from bridge.sinks.amqp_memory import Memory
from bridge.sinks.amqp_options import Address, AmqpOptions
from bridge.sinks.amqp_wire import Unsendable, publish_frames
from bridge.sinks.base import PATIENCE_LOOKS, Outgoing, Refusal
from bridge.sinks.line import Movement

__all__ = ["Link"]

log = logging.getLogger(__name__)

# What lies in our own buffer is neither with the broker nor needed: the kernel's buffer keeps the line full.
BUFFER_BYTES_MAX: Final = 1 << 20
# Messages are handed over in pieces of about this size: one system call each.
WRITE_BYTES: Final = 64 << 10
# A queue that is deleted is noticed by the first message after that; what is merely meant for no queue is
# refused at once for as long.
INVENTORY_EVERY_S: Final = 1.0
# Reply codes that may be about one message: precondition failed, and the errors of framing and syntax.
_PERHAPS_ONE_MESSAGE: Final = frozenset({406, 501, 502, 503, 505})


class _Call:
    """One `send_batch` that has not returned: messages before `next` are published or done with."""

    __slots__ = ("batch", "done", "next", "refusals", "unconfirmed", "unsendable")

    def __init__(self, batch: Sequence[Outgoing], done: asyncio.Future[list[Refusal]]) -> None:
        self.batch = batch
        self.done = done
        self.next = 0
        self.unconfirmed = 0
        self.refusals: dict[int, str] = {}
        self.unsendable: set[int] = set()  # of the refusals, those that no broker can take

    def finish(self) -> None:
        """Return to the caller if nothing is open any more."""
        if not self.unconfirmed and self.next == len(self.batch) and not self.done.done():
            refusals = sorted(self.refusals.items())
            self.done.set_result(
                [Refusal(index, reason, index in self.unsendable) for index, reason in refusals]
            )


class Link(Channel):
    """One connection from its first byte to its last; `lost` says why it ended."""

    def __init__(
        self, name: str, options: AmqpOptions, gateway: str, memory: Memory, address: Address
    ) -> None:
        super().__init__(name, options, gateway, address)
        self.blocked = ""
        self.stalled = False
        self._memory = memory
        self._is_open = False
        self._line: deque[_Call] = deque()
        self._ledger: Ledger[_Call] = Ledger(self._confirmed)
        # Two routes send one message under one id, each to its address: (id, address) → how often, and why.
        self._returned: dict[tuple[str, str], tuple[int, str]] = {}
        self._suspended: list[tuple[_Call, int, str]] = []  # confirmed and returned, while we ask
        self._inventory = Inventory(options.declare, self._all_there, self._is_gone)
        self._all_there_at = -math.inf
        self._progress_at = 0.0  # when the oldest unconfirmed message became the oldest
        self._movement = Movement()
        self._timer: asyncio.TimerHandle | None = None

    # ---- opening -------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, choose confirms, declare, and see that the exchange is there."""
        await super().open()
        self.channel.add_on_return_callback(self._on_return)
        await self.ask(self.channel.confirm_delivery, ack_nack_callback=self._on_confirm)
        for method, arguments in declarations(self.channel, self.options.declare):
            await self.ask(method, **arguments)
        if self.options.exchange:
            await self.ask(self.channel.exchange_declare, exchange=self.options.exchange, passive=True)
        self._is_open = True
        self.listen()

    def connected(self, connection: Connection) -> None:
        """See Channel."""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    # ---- sending -------------------------------------------------------------------

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """See Sink."""
        if not self._is_open or self.lost.done():
            raise SinkUnavailable(self.lost.result() if self.lost.done() else f"{self.name} is not open")
        if not batch:
            return []
        call = _Call(batch, self._loop.create_future())
        self._line.append(call)
        self._pump()
        try:
            return await call.done
        except asyncio.CancelledError:
            if call in self._line:
                self._line.remove(call)
            raise

    def _pump(self) -> None:
        """Publish while the window, the buffer and the broker allow.

        Nobody tells us when the buffer has drained, and nobody needs to: what lies
        in it is unconfirmed, so a confirm is bound to come, and each one pumps.
        """
        connection = self.connection
        if self.blocked or self._ledger.refused or connection is None or self.lost.done():
            return
        window = 1 if self._memory.careful else self.options.window
        frame_max = connection.params.frame_max or 131_072
        line, ledger = self._line, self._ledger
        while line and (room := window - ledger.unanswered) > 0:
            call = line[0]
            pieces, count = self._frames(call, min(room, len(call.batch) - call.next), frame_max)
            if count:
                if not ledger.unanswered:
                    self._progress_at = self._loop.time()
                    self._watch()
                ledger.publish(call, call.next, count)
                call.next += count
                call.unconfirmed += count
                # Only now: pika may find the line broken, and then asks what was under way.
                connection.write_all(pieces)
            if call.next == len(call.batch):
                line.popleft()
                call.finish()
            if connection.buffered_bytes > BUFFER_BYTES_MAX:
                break

    def _frames(self, call: _Call, most: int, frame_max: int) -> tuple[list[bytes], int]:
        """The bytes of a call's next messages, and how many those are: up to one that does not travel."""
        poison, exchange, batch = self._memory.poison, self.options.exchange, call.batch
        pieces: list[bytes] = []
        piece_bytes = 0
        for index in range(call.next, call.next + most):
            outgoing = batch[index]
            try:
                if poison and outgoing.id in poison:
                    raise Unsendable(poison[outgoing.id])
                frames = publish_frames(outgoing, exchange, frame_max)
            except Unsendable as error:
                count = index - call.next
                if not count:
                    call.refusals[index] = str(error)
                    call.unsendable.add(index)
                    call.next += 1
                return pieces, count
            pieces += frames
            piece_bytes += len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
            if piece_bytes >= WRITE_BYTES:
                return pieces, index + 1 - call.next
        return pieces, most

    # ---- what the broker says ------------------------------------------------------

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        owned = not isinstance(method, Basic.Nack)
        if self._ledger.answer(method.delivery_tag, multiple=method.multiple, owned=owned):
            self._progress_at = self._loop.time()
        # A nack comes at once, the confirms of what was taken before it only after the
        # broker's disk. Whoever gives up on the first nack never learns what was taken.
        if self._ledger.refused and not self._ledger.unanswered:
            self.fail("the broker does not take messages now (basic.nack): a queue is full or in trouble")
        self._pump()

    def _confirmed(self, call: _Call, index: int, count: int) -> None:
        """The broker has these; what it has returned before, it has thrown away."""
        memory, returned = self._memory, self._returned
        if memory.careful:
            memory.careful = max(0, memory.careful - count)
        if returned:
            for each in range(index, index + count):
                outgoing = call.batch[each]
                times, reason = returned.pop((outgoing.id, outgoing.address), (0, ""))
                if not times:
                    continue
                if times > 1:
                    returned[outgoing.id, outgoing.address] = times - 1, reason
                if self._inventory.asking:
                    self._suspended.append((call, each, reason))
                    count -= 1
                else:
                    call.refusals[each] = reason
        call.unconfirmed -= count
        call.finish()

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        exchange = f"exchange {method.exchange!r}" if method.exchange else "the default exchange"
        reason = (
            f"no queue takes it: {exchange}, routing key {method.routing_key!r}"
            f" ({method.reply_code} {method.reply_text})"
        )
        message = properties.message_id, method.routing_key
        self._returned[message] = self._returned.get(message, (0, ""))[0] + 1, reason
        if self._inventory.empty or self._inventory.asking or self.lost.done():
            return
        if self._loop.time() - self._all_there_at >= INVENTORY_EVERY_S:
            self._inventory.ask(self.connection)

    def _all_there(self) -> None:
        """Nothing is missing: what came back meanwhile is refused."""
        self._all_there_at = self._loop.time()
        suspended, self._suspended = self._suspended, []
        for call, index, reason in suspended:
            call.refusals[index] = reason
            call.unconfirmed -= 1
            call.finish()

    def _is_gone(self, reason: str) -> None:
        self.fail(f"what was declared is gone, and will be declared again: {reason}")

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = f"the broker has blocked publishers: {frame.method.reason}"
        log.warning("sink blocked sink=%s reason=%s", self.name, frame.method.reason)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = ""
        log.info("sink not blocked any more sink=%s", self.name)
        self._progress_at = self._loop.time()
        self._pump()

    def ended(self, error: Exception) -> None:
        """See Channel."""
        self._suspect(error)
        super().ended(error)

    def _suspect(self, error: Exception) -> None:
        """If one message may be to blame for the end, see to it that it is found."""
        code = getattr(error, "reply_code", 0)
        if self.lost.done() or code not in _PERHAPS_ONE_MESSAGE or not self._ledger.unanswered:
            return
        if (alone := self._ledger.only_one()) is not None:
            call, index = alone
            self._memory.blame(call.batch[index].id, explain(error))
            self._memory.careful = 0
        else:
            self._memory.careful = self._ledger.unanswered

    # ---- the end -------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """The link is lost: nothing that is under way is promised."""
        if self.lost.done():
            return
        super().fail(reason)
        self.blocked = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        open_calls = (*self._line, *self._ledger.calls(), *(call for call, _, _ in self._suspended))
        for call in {id(call): call for call in open_calls}.values():
            if not call.done.done():
                call.done.set_exception(SinkUnavailable(reason, self._owned(call)))
        self._line.clear()
        self._ledger.clear()
        self._suspended.clear()

    def _owned(self, call: _Call) -> int:
        """How many messages at the beginning of the batch the broker owns."""
        suspended = (index for other, index, _ in self._suspended if other is call)
        still_open = self._ledger.first_open(call)
        return min((*suspended, *call.refusals, call.next if still_open is None else still_open))

    def _watch(self) -> None:
        """Lose patience when the oldest message has waited too long.

        A block does not count, nor while a slow line still carries what was sent.
        """
        if self._timer is not None:
            return
        self._timer = self._loop.call_later(self.options.confirm_timeout / PATIENCE_LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not (self._ledger.unanswered or self._suspended) or self.lost.done():
            return
        assert self.connection is not None
        if self._movement.look(self.connection.descriptors) or self.blocked:
            self._progress_at = self._loop.time()
        if self._loop.time() - self._progress_at >= self.options.confirm_timeout:
            self.stalled = True
            self.fail(f"no confirmation within {self.options.confirm_timeout:g} s")
        else:
            self._watch()
