"""Entries of the log as their route sends them: the one place where a message is dressed.

A message that lacks what its address needs cannot be sent, and says so like one that the
far end refuses: with a refusal, which puts it whole into the dead letters. The others of
its batch travel on, and nobody else learns of it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bridge.errors import SinkUnavailable
from bridge.message import Message
from bridge.policy.dress import Dress
from bridge.policy.envelope import CONTENT_TYPE, document, envelope
from bridge.sinks.base import Outgoing, Refusal
from bridge.store import Entry

__all__ = ["dressed", "pack_up", "send_fit"]

Send = Callable[[Sequence[Outgoing]], Coroutine[Any, Any, list[Refusal]]]


def pack_up(
    dress: Dress, entries: Sequence[Entry], id_prefix: str, *, replayed: bool = False
) -> tuple[list[Outgoing], list[Refusal]]:
    """Return what can be sent, in order, and for each entry that cannot a refusal by its index."""
    if dress.plain:
        address = dress.address
        return [
            Outgoing(id_prefix + str(entry.sequence), address(entry.message), entry.message, replayed)
            for entry in entries
        ], []
    fit: list[Outgoing] = []
    unfit: list[Refusal] = []
    for index, entry in enumerate(entries):
        made = dressed(dress, entry.message, id_prefix + str(entry.sequence), replayed=replayed)
        if isinstance(made, Outgoing):
            fit.append(made)
        else:
            unfit.append(Refusal(index, made, final=True))
    return fit, unfit


def dressed(dress: Dress, message: Message, id: str, *, replayed: bool = False) -> Outgoing | str:
    """The message as it travels, or why it cannot."""
    if dress.plain:
        return Outgoing(id, dress.address(message), message, replayed)
    subject = dress.subject(message)
    if lacks := dress.lacks(subject):
        why = ", because the payload is not JSON" if subject.is_not_json else ""
        return f"the address needs {lacks}, which this message does not have{why}"
    address, headers = dress.address_of(subject), dress.headers(subject)
    if dress.envelope == "json":
        told = document(envelope(id, address, message, replayed=replayed, headers=headers))
        return Outgoing(id, address, message, replayed, headers, told, CONTENT_TYPE)
    return Outgoing(id, address, message, replayed, headers, dress.body(subject))


async def send_fit(send: Send, fit: Sequence[Outgoing], unfit: Sequence[Refusal]) -> list[Refusal]:
    """Send what can be sent; return all refusals by the indexes of the whole batch.

    Raises SinkUnavailable with `confirmed` counted in the whole batch: up to the first one
    that could not be sent, because that one is in no dead letters yet.
    """
    cannot = {refusal.index for refusal in unfit}
    places = [index for index in range(len(fit) + len(unfit)) if index not in cannot]
    try:
        refused = await send(fit) if fit else []
    except SinkUnavailable as error:
        raise SinkUnavailable(str(error), min(error.confirmed, min(cannot))) from error
    refusals = [*unfit, *(Refusal(places[each.index], each.reason, each.final) for each in refused)]
    return sorted(refusals, key=lambda refusal: refusal.index)
