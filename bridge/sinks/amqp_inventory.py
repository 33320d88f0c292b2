"""Is what was declared still there? Asked when a message came back because no queue wants it.

Whoever deletes a queue makes every message unroutable that was meant for it, and none of
them is to blame. Where something declared is gone, the link is given up: the next one
declares it again, and everything comes again, in order. Where all is there, no queue was
meant to have the message, and it is refused.

    returned ──▶ ask, on a channel of its own ──404──▶ gone(what)
                                └────────all there───▶ there()

A passive declaration of what is missing closes its channel; hence one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bridge.sinks.amqp_connection import explain
from bridge.sinks.amqp_options import Declaration

__all__ = ["Inventory"]


class Inventory:
    """One inquiry at a time; `asking` while it is under way."""

    def __init__(
        self, wanted: Iterable[Declaration], there: Callable[[], None], gone: Callable[[str], None]
    ) -> None:
        self.asking = False
        self._there = there
        self._gone = gone
        self._queues = [each.queue.name for each in wanted if each.queue is not None]
        self._exchanges = [each.exchange.name for each in wanted if each.exchange is not None]

    @property
    def empty(self) -> bool:
        """Whether nothing was declared that could be gone."""
        return not (self._queues or self._exchanges)

    def ask(self, connection: Any) -> None:
        """Begin; one of the two callbacks follows, unless the connection is lost before."""
        self.asking = True
        connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        wanted = [(channel.queue_declare, {"queue": name}) for name in self._queues]
        wanted += [(channel.exchange_declare, {"exchange": name}) for name in self._exchanges]

        def go_on(*_answer: Any) -> None:
            if not wanted:
                self.asking = False
                channel.close()
                self._there()
                return
            method, arguments = wanted.pop(0)
            method(passive=True, callback=go_on, **arguments)

        go_on()

    def _closed(self, _channel: Any, error: Exception) -> None:
        if self.asking:
            self.asking = False
            self._gone(explain(error))
