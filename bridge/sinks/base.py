"""What every sink promises: four methods, and *when* they are called.

A sink is one far end that takes messages: a queue in the cloud, a receiver on
the next machine. One keeper opens and closes it; a forwarder for each route that
points at it sends. All of them live on one event loop.

`send_batch` may be called again before an earlier call has returned: that is
how a link with a long round trip is kept full. Order is kept all the same,
because a batch takes its place in the line before the first `await` of the call.

A sink that gives up its link because nothing was confirmed for `confirm_timeout` says so
in `stalled`, until it is opened again. A large message on a slow line is no reason for that.

The ten promises that `bridge.sinks.kit` checks of every sink:

    1  returning means that the far end owns every message but the listed refusals,
       and it sees messages in the order of the calls
    2  any bytes survive: payload, topic, properties, and what the route made: body and headers
    3  a broken link raises SinkUnavailable (and wakes `lost`) and promises nothing
    4  after that, close() and open() bring it back
    5  one refusal names one message, and the others of its batch are not harmed
    6  a far end that accepts and never confirms is not success
    7  a slow far end slows the caller, and memory does not grow
    8  cancelled in the middle, it can be closed and opened
    9  the same batch sent twice carries the same ids
   10  close is safe twice, and before open
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from bridge.message import Message

__all__ = ["CONFIRM_TIMEOUT_S", "PATIENCE_LOOKS", "Outgoing", "Refusal", "Sink"]

# A far end that is well answers in a second or two. A link that only looks well is given up after this
# time and up to an eighth more: that is how often it is looked at.
CONFIRM_TIMEOUT_S: Final = 15.0
PATIENCE_LOOKS: Final = 8


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message on its way out.

    `id` is `<gateway>/<epoch>/<sequence>`, the same however often it is sent;
    `address` is what the route's template made of it: a queue or routing key for
    AMQP, free text for ZeroMQ. `replayed`: it was delivered before, and somebody asked for
    it once more, or it has waited and newer ones went before it; the far end is told.

    `headers` are the route's own, name and value; a name comes from the configuration and
    never from a device. `body`, where there is one, travels instead of the message's payload
    and is a `content_type` (empty: nobody said); the device's own content type and payload
    format do not go with it, since they spoke of the payload. `content_encoding` is how the
    body is compressed. A pack (`bridge.forward.packing`) is a body too, and its message has no
    topic.
    """

    id: str
    address: str
    message: Message
    replayed: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = ""
    content_encoding: str = ""

    @property
    def payload(self) -> bytes:
        """What travels."""
        return self.message.payload if self.body is None else self.body


class Refusal(msgspec.Struct, frozen=True):
    """The far end does not take `batch[index]`, and says why.

    `final`: and it never will, as of a message that its protocol cannot carry. Otherwise it may take it
    later, as when a queue is made that was missing.
    """

    index: int
    reason: str
    final: bool = False


@runtime_checkable
class Sink(Protocol):
    """One far end. Made without touching the world; nothing happens before `open`."""

    name: str

    @property
    def stalled(self) -> bool:
        """Whether the present or last link was given up because nothing was confirmed."""

    async def open(self) -> None:
        """Afterwards the far end answers and `send_batch` may be called.

        Called once before the first batch and again after each `close`. A sink
        that calls out gives up after its `open_timeout_s` and raises
        SinkUnavailable; a sink that is waiting to be called by a receiver waits
        here for as long as it takes. Safe to cancel.
        """

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """Afterwards the far end owns the whole batch but the refusals returned.

        Raises SinkUnavailable when that cannot be known: then nothing was promised but
        the first `confirmed` messages, and the caller closes, opens and sends the rest
        again with the same ids.
        Safe to cancel; the batch is then as unknown as after SinkUnavailable.
        """

    async def lost(self) -> str:
        """Return, with the reason, when the link that `open` made is gone.

        This is how an idle link that breaks is noticed before the next message.
        """

    async def close(self) -> None:
        """Afterwards nothing of the link is left. Safe at any time, any number of times."""
