"""What a scenario asks of a client, whatever library is behind it.

An adapter is as thin as its library lets it be: it makes the library's calls and
waits for the library's word that they are done. It knows no scenario.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

WAIT_S = 15.0  # after that nothing comes any more


class Heard(NamedTuple):
    """One message as the client handed it over."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None


class Will(NamedTuple):
    """What the gateway says when we are gone without a word."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Client(Protocol):
    """One that is connected."""

    session_present: bool | None  # None: the library does not say

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Returns after SUBACK."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
    ) -> None:
        """Returns when the QoS is through, and with QoS 0 when it has left."""

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        """The topic goes with the first of them; with the others only an alias."""

    async def next(self) -> Heard:
        """The next message. Raises TimeoutError when there is none in time."""

    async def drop(self) -> None:
        """Gone without DISCONNECT, as by a power cut."""

    async def leave(self) -> None:
        """DISCONNECT, then gone. Safe twice, and after `drop`."""


class Adapter(Protocol):
    """Makes clients of one library, which speak one version over one kind of listener."""

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        """Returns after CONNACK. Not clean, the session is to last for an hour.

        `aliases` is how many topic aliases of the gateway's own it takes, if the library resolves them.
        """


EXPIRY_S = 3600  # of a session that is to last
ALIAS = 3
