"""The status document as Prometheus metrics, made at the moment of a scrape.

Nothing is counted here: the objects that do the work keep plain integers, and a
scrape reads one `Status`. A thing that has gone, such as a route taken out of
the configuration, is therefore gone from the next scrape too.

Names follow Prometheus: base units, `_total` for what only rises until the
process restarts; those of a route go on after a restart, and while the backlog of the
start is being counted what rests on it is left out. What lies on the disk is a gauge.

    edgespool_route_backlog_messages{route="telemetry"}  ->  alert when it grows
    edgespool_route_oldest_age_seconds{route=...}        ->  alert when it is older than you can accept
    edgespool_route_lost_total{route=...}                ->  alert when it rises at all
    edgespool_sink_up{sink=...}, edgespool_ready         ->  alert when 0
    edgespool_sink_stalled{sink=...}                     ->  alert when 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bridge.observe.status import CommandStatus, RouteStatus, Status

__all__ = ["StatusCollector", "registry"]


def registry(snapshot: Callable[[], Status]) -> CollectorRegistry:
    """Return a registry of our own: the house, and the process (start time, memory, open files).

    The default registry is shared by every library of the process and would
    show numbers that nobody here answers for.
    """
    own = CollectorRegistry(auto_describe=False)
    own.register(StatusCollector(snapshot))
    ProcessCollector(registry=own)
    return own


class StatusCollector(Collector):
    """Asks for one snapshot per scrape and spells it."""

    def __init__(self, snapshot: Callable[[], Status]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing: to name the metrics would take a snapshot before the house is up."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of one snapshot."""
        status = self._snapshot()
        yield _info(status)
        yield _gauge("ready", "1 while messages can be taken safely.", status.ready)
        yield from _mqtt(status)
        yield from _store(status)
        yield from _sinks(status)
        yield from _routes(status.routes)
        yield from _commands(status.commands)
        yield _gauge("dead_letters_messages", "Dead letters that wait for a decision.", status.dead_letters)
        yield from _dead_letters(status)


def _info(status: Status) -> Metric:
    return InfoMetricFamily(
        "edgespool", "The gateway.", value={"version": status.version, "gateway": status.gateway}
    )


def _mqtt(status: Status) -> Iterator[Metric]:
    mqtt = status.mqtt
    yield _gauge("mqtt_connections", "Devices connected now.", mqtt.connections)
    yield _gauge("mqtt_sessions", "Sessions kept, with and without a connection.", mqtt.sessions)
    yield _gauge("mqtt_subscriptions", "Subscriptions of all sessions.", mqtt.subscriptions)
    yield _gauge("mqtt_retained_messages", "Retained messages kept.", mqtt.retained)
    yield _total("mqtt_received", "PUBLISH packets taken in.", mqtt.received)
    yield _total("mqtt_acknowledged", "PUBACK and PUBREC packets sent for them.", mqtt.acknowledged)
    yield _total("mqtt_unrouted", "PUBLISH packets that nobody wanted.", mqtt.unrouted)
    yield _total(
        "mqtt_refused",
        "PUBLISH packets left unacknowledged because the store could not take them.",
        mqtt.refused,
    )
    yield _total("mqtt_delivered", "PUBLISH packets sent to devices.", mqtt.delivered)
    yield _total("mqtt_dropped", "Messages let go: QoS 0 or a full queue of a device.", mqtt.dropped)
    yield _total(
        "mqtt_denied", "PUBLISH packets and wills that were not allowed, or not retained.", mqtt.denied
    )
    yield _total(
        "mqtt_logins_failed", "CONNECT packets with a wrong password, or too many.", mqtt.logins_failed
    )
    yield _total("mqtt_turned_away", "Sockets closed before CONNECT for want of room.", mqtt.turned_away)


def _store(status: Status) -> Iterator[Metric]:
    store = status.store
    yield _gauge(
        "store_ok", "1 while the store takes messages, 0 when it is full or failed.", store.state == "ok"
    )
    yield _gauge("store_bytes", "Bytes the store takes up on the disk.", store.bytes)
    yield _gauge(
        "store_history_bytes", "Of these, delivered and kept while there is room.", store.history_bytes
    )
    yield _gauge("store_max_bytes", "Bytes the store may take up.", store.max_bytes)
    yield _gauge("store_commit_seconds", "Moving average of one commit to the disk.", store.commit_ms / 1000)
    yield _total("store_appended", "Messages appended.", store.appended)
    yield _total("store_accepted_bytes", "Bytes of the records of these messages.", store.accepted_bytes)
    yield _total(
        "store_written_bytes",
        "Bytes written to the disk for them, in whole pages of 4 KiB: what flash wears out by.",
        store.written_bytes,
    )
    yield _total("store_commits", "Commits to the disk.", store.commits)
    yield _total("store_damaged", "Records found damaged and kept aside.", store.damaged)


def _sinks(status: Status) -> Iterator[Metric]:
    labels = ("sink", "kind")
    up = GaugeMetricFamily("edgespool_sink_up", "1 while the far end answers.", labels=labels)
    stalled = GaugeMetricFamily(
        "edgespool_sink_stalled", "1 while it lets us in, and confirms nothing.", labels=labels
    )
    stalls = CounterMetricFamily(
        "edgespool_sink_stalls", "Links given up because nothing was confirmed.", labels=labels
    )
    for name, sink in status.sinks.items():
        up.add_metric((name, sink.kind), float(sink.state == "up"))
        stalled.add_metric((name, sink.kind), float(sink.state == "stalled"))
        stalls.add_metric((name, sink.kind), sink.stalls)
    yield from (up, stalled, stalls)


# Of one route: (metric, help, field), first what is true now, then what only rises.
_ROUTE_NOW = (
    ("backlog_messages", "Messages on the disk that the sink has not confirmed.", "backlog_messages"),
    ("backlog_bytes", "Bytes of these messages.", "backlog_bytes"),
    ("oldest_age_seconds", "Age of the oldest of them; 0 when there is none.", "oldest_age_s"),
)
_ROUTE_TOTAL = (
    ("accepted", "Messages that the route took: the sum of all below and the backlog.", "accepted"),
    ("delivered", "Messages that the sink has confirmed.", "delivered"),
    ("refused", "Messages that the sink will never take, now in the dead letters.", "refused"),
    ("expired", "Messages let go because they were older than max_age or their own expiry.", "expired"),
    ("filtered", "Messages that the conditions of the route do not want.", "filtered"),
    ("damaged", "Messages that were stored and not found again.", "damaged"),
    ("lost", "Messages dropped by when_full.", "lost"),
)
_COUNTED = ("backlog_messages", "accepted")  # what is too low while the backlog of the start is counted


def _routes(routes: dict[str, RouteStatus]) -> Iterator[Metric]:
    for name, text, field in _ROUTE_NOW:
        gauge = GaugeMetricFamily(f"edgespool_route_{name}", text, labels=("route",))
        for route, state in routes.items():
            if not (state.counting and field in _COUNTED):
                gauge.add_metric((route,), getattr(state, field))
        yield gauge
    for name, text, field in _ROUTE_TOTAL:
        total = CounterMetricFamily(f"edgespool_route_{name}", text, labels=("route",))
        for route, state in routes.items():
            if not (state.counting and field in _COUNTED):
                total.add_metric((route,), getattr(state, field))
        yield total
    undecided = CounterMetricFamily(
        "edgespool_route_undecided",
        "What was filtered because the condition could not be told, and why; since the start.",
        labels=("route", "reason"),
    )
    for route, state in routes.items():
        for reason, count in state.undecided.items():
            undecided.add_metric((route, reason), count)
    yield undecided
    dropped = CounterMetricFamily(
        "edgespool_route_dropped",
        "What of these went, and why: the store was full or the route at its bound.",
        labels=("route", "reason"),
    )
    for route, state in routes.items():
        for reason, count in state.dropped.items():
            dropped.add_metric((route, reason), count)
    yield dropped


def _dead_letters(status: Status) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "edgespool_route_dead_letters",
        "Of these, by route and kind of reason.",
        labels=("route", "reason"),
    )
    for route, kinds in status.dead_letters_by_route.items():
        for reason, count in kinds.items():
            waiting.add_metric((route, reason), count)
    yield waiting
    dropped = CounterMetricFamily(
        "edgespool_route_dead_letters_dropped", "Dead letters that had to make way.", labels=("route",)
    )
    for route, count in status.dead_letters_dropped.items():
        dropped.add_metric((route,), count)
    yield dropped


# Of one route of commands, in the same way.
_COMMAND_NOW = (("waiting", "Commands with devices, and not answered for.", "waiting"),)
_COMMAND_TOTAL = (
    ("received", "Commands that the source has handed out.", "received"),
    ("stored", "Commands done by being stored, with receipt: stored.", "stored"),
    ("delivered", "Commands that their device has acknowledged.", "delivered"),
    ("expired", "Commands not delivered, because it was too late.", "expired"),
    ("rejected", "Commands that made no PUBLISH, had no room, or were refused.", "rejected"),
    ("undeliverable", "Commands for which nobody was subscribed.", "undeliverable"),
    ("repeated", "Commands handed out again, and known.", "repeated"),
    ("lost", "Commands that came here and no further, with confirm: none.", "lost"),
)


def _commands(commands: dict[str, CommandStatus]) -> Iterator[Metric]:
    up = GaugeMetricFamily("edgespool_command_source_up", "1 while the source answers.", labels=("command",))
    for name, state in commands.items():
        up.add_metric((name,), float(state.state == "up"))
    yield up
    for family, facts in ((GaugeMetricFamily, _COMMAND_NOW), (CounterMetricFamily, _COMMAND_TOTAL)):
        for metric, text, field in facts:
            found = family(f"edgespool_command_{metric}", text, labels=("command",))
            for name, state in commands.items():
                found.add_metric((name,), getattr(state, field))
            yield found


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"edgespool_{name}", text, value=float(value))


def _total(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"edgespool_{name}", text, value=value)
