"""The topics under `$SYS`: what Mosquitto's users look at, and the backlog of each route.

Published on an interval, those that have changed, and kept in memory for who
subscribes later. They are not part of `#` [MQTT-4.7.2-1], no device may publish them,
and no route takes them.

    $SYS/broker/version, uptime
    $SYS/broker/clients/{connected,disconnected,total,maximum,expired}
    $SYS/broker/{messages,bytes}/{received,sent}
    $SYS/broker/publish/messages/{received,sent,dropped}, publish/bytes/{received,sent}
    $SYS/broker/load/{messages,bytes,publish}/{received,sent}/{1min,5min,15min}
    $SYS/broker/load/publish/dropped/…, load/{connections,sockets}/…
    $SYS/broker/{subscriptions,shared_subscriptions,retained messages}/count
    $SYS/broker/store/messages/{count,bytes}, heap/current
    $SYS/broker/routes/ROUTE/backlog/{messages,bytes,age}, sinks/SINK/state

Loads are moving averages of what happens in a minute, as Mosquitto has them.
"""

from __future__ import annotations

import asyncio
import math
import resource
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from bridge.message import Message

if TYPE_CHECKING:
    from bridge.broker.broker import Broker

__all__ = ["SysTopics"]

_LOADS: Final = {
    "publish/messages/received": "publish/received",
    "publish/messages/sent": "publish/sent",
    "publish/messages/dropped": "publish/dropped",
}
_WINDOWS: Final = {"1min": 60.0, "5min": 300.0, "15min": 900.0}


class SysTopics:
    """`facts` gives what only the house as a whole knows: topic behind `$SYS/broker/` → value."""

    def __init__(self, broker: Broker, version: str, facts: Callable[[], Mapping[str, object]]) -> None:
        self._broker = broker
        self._version = version
        self._facts = facts
        self._began = broker.now()
        self._last: dict[str, int] = {}
        self._last_at = self._began
        self._averages: dict[str, float] = {}
        self._connected_max = 0

    async def run(self, interval_s: float) -> None:
        """Publish on an interval, until cancelled."""
        while True:
            self.publish()
            await asyncio.sleep(interval_s)

    def publish(self) -> None:
        """Bring every topic up to date, and tell those who subscribed what has changed."""
        broker = self._broker
        now_ns = time.time_ns()
        for name, value in {**self._own(), **self._facts()}.items():
            topic = f"$SYS/broker/{name}"
            payload = f"{value:.2f}" if isinstance(value, float) else str(value)
            message = Message(topic, payload.encode(), 0, True, "", now_ns)
            if broker.retained.say(message):
                broker.delivery.distribute(message, broker.inlet.decide(topic))

    def _own(self) -> dict[str, object]:
        broker = self._broker
        inlet, delivery, traffic = broker.inlet, broker.delivery, broker.traffic
        connected = sum(one.link is not None for one in broker.subscribers.values())
        self._connected_max = max(self._connected_max, connected)
        counts = {
            "messages/received": traffic.packets_in,
            "messages/sent": traffic.packets_out,
            "bytes/received": traffic.bytes_in,
            "bytes/sent": traffic.bytes_out,
            "publish/messages/received": inlet.received,
            "publish/messages/sent": delivery.delivered,
            "publish/messages/dropped": inlet.dropped + inlet.denied + delivery.dropped,
            "publish/bytes/received": inlet.payload_bytes,
            "publish/bytes/sent": delivery.payload_bytes,
        }
        shared = sum(
            topic_filter.startswith("$share/")
            for one in broker.subscribers.values()
            for topic_filter in one.session.subscriptions
        )
        return {
            "version": f"edgespool version {self._version}",
            "uptime": f"{int(broker.now() - self._began)} seconds",
            "clients/connected": connected,
            "clients/active": connected,
            "clients/disconnected": len(broker.subscribers) - connected,
            "clients/inactive": len(broker.subscribers) - connected,
            "clients/total": len(broker.subscribers),
            "clients/maximum": self._connected_max,
            "clients/expired": broker.sessions.expired,
            "subscriptions/count": len(broker.subscriptions),
            "shared_subscriptions/count": shared,
            "retained messages/count": len(broker.retained),
            "store/messages/count": broker.spool.downlink.count,
            "store/messages/bytes": broker.spool.downlink.size,
            "heap/current": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **counts,
            **self._loads(counts | {"sockets": traffic.sockets, "connections": traffic.connects}),
        }

    def _loads(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Moving averages of each count, per minute."""
        now = self._broker.now()
        passed_s = max(now - self._last_at, 1e-3)
        for name, count in counts.items():
            per_minute = (count - self._last.get(name, 0)) / passed_s * 60
            for window, width_s in _WINDOWS.items():
                key = f"load/{_LOADS.get(name, name)}/{window}"
                keep = math.exp(-passed_s / width_s)
                self._averages[key] = per_minute + keep * (self._averages.get(key, 0.0) - per_minute)
        self._last, self._last_at = dict(counts), now
        return self._averages
