"""The house as its operator sees it: facts that others keep, gathered when somebody asks.

Nothing is counted here and nothing waits: `status` is one stretch of plain code over
the counters of the broker, the store, the keepers and the forwarders.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from bridge import __version__
from bridge.broker.broker import Broker
from bridge.forward.forwarder import Forwarder
from bridge.forward.intake import Intake
from bridge.forward.keeper import Keeper
from bridge.forward.letters import Letters
from bridge.observe.status import CommandStatus, MqttStatus, RouteStatus, SinkStatus, Status, StoreStatus
from bridge.store import Spool

__all__ = ["View"]


class View:
    """Looks at one running house. `ends` has (kind, address without secrets) of each sink."""

    def __init__(
        self,
        gateway: str,
        durability: Literal["fsync", "write"],
        spool: Spool,
        broker: Broker,
        keepers: Mapping[str, Keeper],
        ends: Mapping[str, tuple[str, str]],
        forwarders: Sequence[Forwarder],
        letters: Letters,
    ) -> None:
        self._gateway = gateway
        self._durability: Literal["fsync", "write"] = durability
        self._spool = spool
        self._broker = broker
        self._keepers = keepers
        self._ends = ends
        self._forwarders = forwarders
        self._letters = letters
        self._clock = broker.clock
        self._started_ns = time.time_ns()
        self._started = time.monotonic()
        self.listeners: list[str] = []  # their URLs, as they open
        self.intakes: list[tuple[Intake, str, str]] = []  # with kind and address, as they begin

    def status(self) -> Status:
        """One snapshot of everything; waits for nothing."""
        reasons = self._reasons()
        inlet, delivery, spool = self._broker.inlet, self._broker.delivery, self._spool
        fault = spool.committer.fault
        full = not spool.uplink.has_room(64 * 1024)
        return Status(
            gateway=self._gateway,
            version=__version__,
            started_at=_rfc3339(self._started_ns),
            uptime_s=round(time.monotonic() - self._started, 3),
            ready=not reasons,
            reasons=reasons,
            mqtt=MqttStatus(
                listeners=list(self.listeners),
                connections=len(self._broker.links),
                sessions=len(self._broker.subscribers),
                subscriptions=len(self._broker.subscriptions),
                received=inlet.received,
                acknowledged=inlet.acknowledged,
                unrouted=inlet.unrouted,
                refused=inlet.refused,
                delivered=delivery.delivered,
                dropped=inlet.dropped + delivery.dropped,
                denied=inlet.denied + self._broker.retained.refused,
                retained=len(self._broker.retained),
                logins_failed=self._broker.logins.failed + self._broker.logins.limited,
                turned_away=self._broker.crowd.turned_away,
            ),
            store=StoreStatus(
                path=spool.path,
                state="failed" if fault is not None else "full" if full else "ok",
                reason=str(fault or ("no room in the uplink" if full else "")),
                bytes=spool.size,
                max_bytes=spool.max_bytes,
                history_bytes=spool.uplink.history.bytes,
                appended=spool.uplink.appended + spool.downlink.appended,
                commits=spool.committer.commits,
                commit_ms=round(spool.committer.commit_s * 1000, 3),
                damaged=spool.damaged,
                durability=self._durability,
                accepted_bytes=spool.accepted_bytes,
                written_bytes=spool.written_bytes,
            ),
            sinks={name: self._sink_status(name) for name in self._keepers},
            routes={forwarder.route.name: self._route_status(forwarder) for forwarder in self._forwarders},
            dead_letters=self._letters.waiting,
            dead_letters_by_route={route: dict(kinds) for route, kinds in self._letters.counts.items()},
            dead_letters_dropped=dict(self._letters.lost),
            commands={one.route.name: _command_status(one, kind, at) for one, kind, at in self.intakes},
        )

    def _reasons(self) -> list[str]:
        """Why messages cannot be taken safely now; a far end that is away is no such reason."""
        if self._spool.committer.fault is not None:
            return [f"store: {self._spool.committer.fault}"]
        return []

    def facts(self) -> dict[str, object]:
        """What of the cloud side devices may see under `$SYS`."""
        facts: dict[str, object] = {
            f"sinks/{name}/state": keeper.state for name, keeper in self._keepers.items()
        }
        for forwarder in self._forwarders:
            status = self._route_status(forwarder)
            about = f"routes/{forwarder.route.name}/backlog"
            facts[f"{about}/messages"] = status.backlog_messages
            facts[f"{about}/bytes"] = status.backlog_bytes
            facts[f"{about}/age"] = f"{status.oldest_age_s:.0f} seconds"
        for intake, _, _ in self.intakes:
            about = f"commands/{intake.route.name}"
            facts[f"{about}/state"] = intake.keeper.state
            facts[f"{about}/waiting"] = intake.waiting
            for word in ("received", "stored", "delivered", "expired", "rejected", "undeliverable", "lost"):
                facts[f"{about}/{word}"] = getattr(intake, word)
        return facts

    def dropped(self) -> dict[str, dict[str, int]]:
        """What each route has let go since the start, by reason."""
        return {one.route.name: one.account.dropped_since() for one in self._forwarders}

    def _sink_status(self, name: str) -> SinkStatus:
        keeper, (kind, address) = self._keepers[name], self._ends[name]
        return SinkStatus(
            kind=kind,
            address=address,
            state=keeper.state,
            since=_rfc3339(keeper.since_ns),
            reason=keeper.reason,
            stalls=keeper.stalls,
        )

    def _route_status(self, forwarder: Forwarder) -> RouteStatus:
        account, oldest_ns = forwarder.account, forwarder.oldest_ns()
        tally = account.tally
        return RouteStatus(
            sink=forwarder.keeper.sink.name,
            backlog_messages=account.stored,
            backlog_bytes=max(0, forwarder.reader.durable - forwarder.cursor.position),
            oldest_age_s=round(self._clock.age_s(oldest_ns), 3) if oldest_ns else 0.0,
            durability=forwarder.route.durability,
            counting=account.counting,
            accepted=account.accepted,
            stored=account.stored,
            delivered=tally.delivered,
            refused=tally.refused,
            expired=tally.expired,
            filtered=tally.filtered,
            undecided=forwarder.sifter.undecided,
            damaged=tally.damaged,
            lost=account.lost,
            dropped=account.dropped(),
        )


def _command_status(intake: Intake, kind: str, address: str) -> CommandStatus:
    keeper = intake.keeper
    return CommandStatus(
        kind=kind,
        address=address,
        state=keeper.state,
        since=_rfc3339(keeper.since_ns),
        reason=keeper.reason or intake.held_back,
        receipt=intake.route.receipt,
        received=intake.received,
        waiting=intake.waiting,
        stored=intake.stored,
        delivered=intake.delivered,
        expired=intake.expired,
        rejected=intake.rejected,
        undeliverable=intake.undeliverable,
        repeated=intake.repeated,
        lossy=intake.source.lossy,
        lost=intake.lost,
    )


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
