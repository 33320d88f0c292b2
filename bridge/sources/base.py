"""What every source promises: five methods, and *when* they are called.

A source is one far end that hands out messages: a queue in the cloud, a program on the
next machine. It is a sink looked at from the other side, and one keeper opens and closes
it in the same way. One intake receives and settles; all live on one event loop.

What was received and is not settled is still the far end's: when the link goes, it will
hand it out again. So nothing is lost by a source that breaks, and a settlement that the
far end did not hear costs a repetition.

A `lossy` source has no such far end: what ZeroMQ has handed out, nobody else has. It keeps
the promises but 3 to 7 (`bridge.sources.kit` says of each why), and counts in `dropped`
what it had and could not hand on; what was lost on the way nobody knows.

The ten promises that `bridge.sources.kit` checks of every source:

    1  messages come in the order in which the far end has them, each one once
    2  any bytes survive: body, headers, properties
    3  what is not settled is still the far end's, and comes again (as `again`) after a break
    4  what was accepted is gone there, and does not come again
    5  what was rejected is gone there too, is among its dead letters, and harms no other
    6  a broken link raises SinkUnavailable (and wakes `lost`); settling on it does no harm
    7  after that, close() and open() bring it back
    8  more than `prefetch` unsettled messages are never out; settling one brings the next
    9  cancelled in the middle, it can be used on, and nothing is lost
   10  close is safe twice, and before open
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from bridge.policy.incoming import Incoming

__all__ = ["Incoming", "Reply", "Settlement", "Source"]


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What whoever sent a message gets back, where it named an address for that."""

    reply_to: str
    correlation_id: bytes | None
    body: bytes
    headers: dict[str, str]
    content_type: str | None = None


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """A message is done with: accepted, or rejected where there is a reason."""

    tag: int
    reason: str = ""
    reply: Reply | None = None


@runtime_checkable
class Source(Protocol):
    """One far end. Made without touching the world; nothing happens before `open`.

    `waiting` says why nothing comes although nothing is broken, for the status. `dropped`
    counts since the start, and only where the source is `lossy`.
    """

    name: str
    waiting: str

    @property
    def lossy(self) -> bool:
        """Whether it is the last one that has what it hands out."""

    @property
    def dropped(self) -> int:
        """Messages that it had and let go: no room for them, or no time before it was closed."""

    @property
    def stalled(self) -> Any:
        """As a keeper asks of sinks; a source that hands out nothing is no trouble."""

    async def open(self) -> None:
        """Afterwards messages come. Called as `Sink.open` is, and raises the same."""

    async def receive(self) -> list[Incoming]:
        """Wait for the next messages: at least one, in order, up to `prefetch` unsettled in all.

        Called again when the caller is ready for more, never twice at a time. Raises
        SinkUnavailable when the link is gone. Safe to cancel: nothing is taken then.
        """

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Tell the far end that these are done with, each with its reply first.

        Called at any time, and never waits or raises: what belongs to an earlier link
        is passed over, since the far end hands it out again. A reply that the far end is not known to
        have keeps its message unsettled.
        """

    async def lost(self) -> str:
        """Return, with the reason, when the link that `open` made is gone."""

    async def close(self) -> None:
        """Afterwards nothing of the link is left. Safe at any time, any number of times."""
