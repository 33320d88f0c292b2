"""Batches as packs: many messages travel as one, and still each of them is settled by itself.

    batch ──by address──▶ packs ──send──▶ refused ──one by one──▶ the guilty ones are refused

It has the signature of a sink's `send_batch`, so whoever sends does not notice. A pack has
one address, so a batch becomes as many packs as it has addresses, or more where one would be
larger than PACK_BYTES_MAX (`bridge.policy.pack`); a message that is larger by itself travels
as it is, outside of any pack. Order is kept for each address.

A far end can refuse only a pack as a whole. Its messages then go one by one, each as a
pack of one, and the ones that are refused again are the guilty ones. Nothing new is sent
meanwhile; only what was under way already may come before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from bridge.errors import SinkUnavailable
from bridge.message import Message
from bridge.policy.envelope import envelope
from bridge.policy.pack import PACK_BYTES_MAX, Pack, pack_id
from bridge.sinks.base import Outgoing, Refusal
from bridge.sinks.metadata import PACK, PACK_COUNT, PACK_FIRST, PACK_LAST

__all__ = ["Packer", "Send", "sender"]

Send = Callable[[Sequence[Outgoing]], Coroutine[Any, Any, list[Refusal]]]
_QOS: Final = 1  # of a pack: it is confirmed


def sender(packer: Packer | None, send: Send) -> Send:
    """Return what sends the batches of a route: `send` itself where it does not pack."""
    return send if packer is None else packer.over(send)


class _Part(msgspec.Struct, gc=False):
    """What travels as one: `batch[index]` for each of `indexes`."""

    indexes: list[int]
    items: list[bytes]
    size: int


class Packer:
    """Packs the batches of one sender; a sink is given to it with each batch, since it may be another one."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._mending = 0  # calls that are finding out which message of a refused pack is guilty
        self._mended = asyncio.Event()

    def over(self, send: Send) -> Send:
        """Return a `send_batch` that packs and gives the packs to `send`."""

        def packed(batch: Sequence[Outgoing]) -> Coroutine[Any, Any, list[Refusal]]:
            return self._send(send, batch)

        return packed

    async def _send(self, send: Send, batch: Sequence[Outgoing]) -> list[Refusal]:
        while self._mending:
            await self._mended.wait()
        parts = self._parts(batch)
        try:
            refused = await send([self._outgoing(part, batch) for part in parts])
        except SinkUnavailable as error:
            owned = {index for part in parts[: error.confirmed] for index in part.indexes}
            raise SinkUnavailable(str(error), _prefix(owned)) from error
        if not refused:
            return []
        suspects = sorted(index for each in refused for index in parts[each.index].indexes)
        if len(suspects) == len(refused):  # each of them was alone already
            alone = [Refusal(parts[each.index].indexes[0], each.reason, each.final) for each in refused]
            return sorted(alone, key=lambda refusal: refusal.index)
        self._mending += 1
        self._mended.clear()
        try:
            return await self._one_by_one(send, batch, suspects)
        finally:
            self._mending -= 1
            if not self._mending:
                self._mended.set()

    async def _one_by_one(
        self, send: Send, batch: Sequence[Outgoing], suspects: Sequence[int]
    ) -> list[Refusal]:
        """Find the guilty ones among these; the rest of the batch is with the far end already."""
        alone = [self._outgoing(self._alone(batch[index], index), batch) for index in suspects]
        try:
            refused = await send(alone)
        except SinkUnavailable as error:
            owned = set(range(len(batch))) - set(suspects[error.confirmed :])
            raise SinkUnavailable(str(error), _prefix(owned)) from error
        return [Refusal(suspects[each.index], each.reason, each.final) for each in refused]

    def _parts(self, batch: Sequence[Outgoing]) -> list[_Part]:
        """Cut a batch into what travels as one, in the order of the first message of each."""
        parts: list[_Part] = []
        open_parts: dict[str, _Part] = {}
        for index, outgoing in enumerate(batch):
            item = self._item(outgoing)
            size = self._pack.size(item)
            part = open_parts.get(outgoing.address)
            if part is None or part.size + size > PACK_BYTES_MAX:
                part = open_parts[outgoing.address] = _Part([index], [item], size)
                parts.append(part)
            else:
                part.indexes.append(index)
                part.items.append(item)
                part.size += size
        return parts

    def _alone(self, outgoing: Outgoing, index: int) -> _Part:
        item = self._item(outgoing)
        return _Part([index], [item], self._pack.size(item))

    def _item(self, outgoing: Outgoing) -> bytes:
        pack = self._pack
        told = envelope(
            outgoing.id,
            outgoing.address,
            outgoing.message,
            replayed=outgoing.replayed,
            headers=outgoing.headers,
            body=outgoing.body,
            content_type=outgoing.content_type,
            with_payload=not pack.carries_payloads,
        )
        return pack.item(told, outgoing.payload)

    def _outgoing(self, part: _Part, batch: Sequence[Outgoing]) -> Outgoing:
        """The pack as it travels, under an id that is that of these messages and of no others."""
        first, last = batch[part.indexes[0]], batch[part.indexes[-1]]
        if part.size > PACK_BYTES_MAX:
            return first
        pack = self._pack
        return Outgoing(
            pack_id([batch[index].id for index in part.indexes]),
            first.address,
            # It has no topic, but the time of its first message, by which a consumer sees its age.
            Message("", b"", _QOS, received_ns=first.message.received_ns),
            all(batch[index].replayed for index in part.indexes),  # each of them says it for itself too
            (
                (PACK, pack.format),
                (PACK_COUNT, str(len(part.indexes))),
                (PACK_FIRST, first.id),
                (PACK_LAST, last.id),
            ),
            pack.seal(part.items),
            pack.content_type,
            pack.content_encoding,
        )


def _prefix(owned: set[int]) -> int:
    """How many messages at the beginning of the batch the far end owns."""
    count = 0
    while count in owned:
        count += 1
    return count
