"""The accounts of a whole gateway against what its publishers know (D11).

    accepted = delivered + refused + expired + filtered + lost + damaged + stored

Eight routes with every rule there is, bounds and expiries, far ends that are fast, slow, choosy,
late and dead, a store that is too small, and SIGKILL: while messages are drained, when the
publishers know of every message what became of it, and while they are under way. After each
start every route must have accepted exactly what was acknowledged and what was in doubt and
found; and at last what arrived must agree with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bridge.message import Properties
from bridge.mqtt import codec
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import Connack, Connect, Puback, Publish
from bridge.sinks.receiver import Receiver
from tests.gateway import Gateway
from tests.house.device import read_packets
from tests.servers import free_port

WINDOW = 400
# topic → (of a hundred messages, routes that want it)
TOPICS = {
    "strict": (25, ("strict", "all")),
    "newest": (15, ("newest", "all")),
    "oldest": (20, ("oldest", "all")),
    "picky": (20, ("picky", "all")),
    "aging": (13, ("aging", "all")),
    "alarm": (1, ("alarm", "all")),
    "only": (6, ("only",)),
}
ROUTES: dict[str, dict[str, Any]] = {
    "strict": {"to": "fast", "max_messages": 300},
    "newest": {"to": "slow", "when_full": "drop_newest", "max_bytes": "100KiB"},
    "oldest": {"to": "slow", "when_full": "drop_oldest", "max_messages": 300},
    "picky": {"to": "choosy"},
    "aging": {"to": "late", "max_age": "2s"},
    "alarm": {"to": "dead", "priority": 9},
    "only": {"to": "dead", "when_full": "drop_newest", "max_messages": 50},
    "all": {"to": "dead", "when_full": "drop_oldest", "priority": 0},
}
SINKS = ("fast", "slow", "choosy", "late", "dead")
LIVE = ("strict", "newest", "oldest", "picky", "aging")  # routes that can drain at last


def is_refused(number: int) -> bool:
    return number % 7 == 0


class FarEnd(threading.Thread):
    """Takes batches until told to stop; `numbers` is what it owns, by topic."""

    def __init__(self, endpoint: str, *, pause_s: float = 0.0, choosy: bool = False) -> None:
        super().__init__(daemon=True)
        self.numbers: dict[str, set[int]] = {topic: set() for topic in TOPICS}
        self._endpoint, self._pause_s, self._choosy = endpoint, pause_s, choosy
        self._ending = threading.Event()

    def run(self) -> None:
        with Receiver(self._endpoint, window=2000) as receiver:
            while not self._ending.is_set():
                batch = receiver.receive(0.2)
                if batch is None:
                    continue
                self._ending.wait(self._pause_s)
                for index, message in enumerate(batch.messages):
                    number = int(message.payload.split(b":")[0])
                    if self._choosy and is_refused(number):
                        batch.refuse(index, "not this one")
                    else:
                        self.numbers[message.topic].add(number)
                batch.acknowledge()

    def stop(self) -> None:
        self._ending.set()
        self.join(10)


class Feed:
    """One device: `take` publishes messages until each is acknowledged, however often it is sent away.

    `acknowledged` and `unknown` (sent, and the connection ended without a PUBACK) are by topic.
    """

    def __init__(self, port: int, name: str, seed: int, payload_bytes: int) -> None:
        self.acknowledged: Counter[str] = Counter()
        self.numbers: dict[str, set[int]] = {topic: set() for topic in TOPICS}
        self.unknown: list[tuple[str, int]] = []
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.connected = False
        self.sent_away = 0
        self._port, self._name, self._padding = port, name, bytes(payload_bytes)
        self._luck = random.Random(seed)
        self._next = seed * 100_000_000

    async def take(self, count: int) -> None:
        topics = self._luck.choices(list(TOPICS), [often for often, _ in TOPICS.values()], k=count)
        waiting = [(topic, self._next + nth) for nth, topic in enumerate(topics)]
        self._next += count
        while waiting or self.unknown:
            await self.may_connect.wait()
            waiting, self.unknown = self.unknown + waiting, []
            with contextlib.suppress(OSError, EOFError):
                await self._connected(waiting)

    async def _connected(self, waiting: list[tuple[str, int]]) -> None:
        """Publish from the front of `waiting` until all is acknowledged, or the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connected = True
        framer = Framer(5)
        flying: dict[int, tuple[str, int]] = {}
        packet_id = 0
        try:
            writer.write(codec.encode(Connect(client_id=self._name, clean_start=True, version=5), 5))
            while waiting or flying:
                for packet in await read_packets(reader, framer):
                    if isinstance(packet, Puback):
                        topic, number = flying.pop(packet.packet_id)
                        self.acknowledged[topic] += 1
                        self.numbers[topic].add(number)
                    elif not isinstance(packet, Connack):
                        self.sent_away += 1
                        return
                room = WINDOW - len(flying)
                batch, waiting[:room] = waiting[:room], []
                data = []
                for topic, number in batch:
                    packet_id = packet_id % 60_000 + 1
                    flying[packet_id] = topic, number
                    data.append(_publish(topic, b"%d:" % number + self._padding, number, packet_id))
                writer.write(b"".join(data))
        finally:
            self.connected = False
            self.unknown = list(flying.values())
            writer.transport.abort()
            if self.unknown:
                await asyncio.sleep(0.02)  # a device that was sent away does not come back at once


def _publish(topic: str, payload: bytes, number: int, packet_id: int) -> bytes:
    about = Properties(message_expiry_interval_s=1) if topic == "aging" and number % 2 else None
    return codec.encode(Publish(topic, payload, 1, packet_id=packet_id, properties=about), 5)


class Books:
    """What every route must have accepted, by what is known of all feeds."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = feeds
        self._found: Counter[str] = Counter()  # stored, and never acknowledged

    def known(self, route: str) -> int:
        wanted = [topic for topic, (_, routes) in TOPICS.items() if route in routes]
        return self._found[route] + sum(feed.acknowledged[topic] for feed in self._feeds for topic in wanted)

    def check(self, status: dict[str, Any], *, doubt: bool) -> None:
        for name, route in status["routes"].items():
            settled = sum(
                route[fate] for fate in ("delivered", "refused", "expired", "filtered", "lost", "damaged")
            )
            assert route["accepted"] == settled + route["stored"], name
            assert route["lost"] == sum(route["dropped"].values()), name
            assert route["damaged"] == route["filtered"] == 0, name
            more = route["accepted"] - self.known(name)
            unknown = sum(name in TOPICS[topic][1] for feed in self._feeds for topic, _ in feed.unknown)
            assert 0 <= more <= (unknown if doubt else 0), (
                f"{name}: {self.known(name)} acknowledged, {unknown} in doubt, but {route}"
            )
            self._found[name] += more


def counted(gateway: Gateway) -> dict[str, Any]:
    """The status, when the backlog of the start has been counted."""
    deadline = time.monotonic() + 60
    while True:
        status = gateway.status()
        if not any(route["counting"] for route in status["routes"].values()):
            return status
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("messages", "rounds", "payload_bytes"),
    [
        pytest.param(50_000, 4, 400, id="50-thousand"),
        pytest.param(1_000_000, 8, 100, id="1-million", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_every_acknowledged_message_is_in_one_account_of_each_route_that_wants_it(
    tmp_path: Path, messages: int, rounds: int, payload_bytes: int
) -> None:
    endpoints = {name: f"tcp://127.0.0.1:{free_port()}" for name in SINKS}
    routes = {
        name: {"from": sorted(topic for topic, (_, wanted) in TOPICS.items() if name in wanted)} | rules
        for name, rules in ROUTES.items()
    }
    gateway = Gateway(
        tmp_path,
        sinks={name: {"zeromq": {"bind": endpoint}} for name, endpoint in endpoints.items()},
        routes=routes,
    )
    feeds = [Feed(gateway.port, f"feed-{nth}", nth + 1, payload_bytes) for nth in range(4)]
    books = Books(feeds)
    ends = {
        "fast": FarEnd(endpoints["fast"], pause_s=0.01),
        "slow": FarEnd(endpoints["slow"], pause_s=0.05),
        "choosy": FarEnd(endpoints["choosy"], choosy=True),
    }
    for end in ends.values():
        end.start()
    late: list[FarEnd] = []  # comes for a while when a round is over
    kills = 0
    gateway.start()
    try:
        for nth in range(rounds):
            publishing = [asyncio.create_task(feed.take(messages // rounds // len(feeds))) for feed in feeds]
            if nth % 2:
                before = sum(feed.acknowledged.total() for feed in feeds)
                while sum(feed.acknowledged.total() for feed in feeds) < before + messages // rounds // 2:
                    await asyncio.sleep(0.01)
                for feed in feeds:
                    feed.may_connect.clear()
                gateway.kill()
                kills += 1
                while any(feed.connected for feed in feeds):  # what was still in the sockets has been read
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(gateway.start)
                books.check(await asyncio.to_thread(counted, gateway), doubt=True)
                for feed in feeds:
                    feed.may_connect.set()
            await asyncio.gather(*publishing)
            books.check(gateway.status(), doubt=False)
            gateway.kill()
            kills += 1
            await asyncio.to_thread(gateway.start)
            books.check(await asyncio.to_thread(counted, gateway), doubt=False)
            # What nobody looks at does not expire, and would fill the store for everyone.
            late.append(FarEnd(endpoints["late"]))
            late[-1].start()
            deadline = time.monotonic() + 60
            while gateway.status()["routes"]["aging"]["stored"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            late[-1].stop()
        deadline = time.monotonic() + 60
        while any((status := gateway.status())["routes"][name]["stored"] for name in LIVE):
            assert time.monotonic() < deadline, status["routes"]
            await asyncio.sleep(0.1)
        books.check(status, doubt=False)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        for end in (*ends.values(), *late):
            end.stop()
    told = status["routes"]
    for name, fate in (
        ("oldest", "bound_oldest"),
        ("newest", "bound_newest"),
        ("only", "bound_newest"),
        ("all", "full_oldest"),
    ):
        assert told[name]["dropped"][fate] > 0, f"the test is also about {fate}"
    assert told["picky"]["refused"] > 0
    assert told["aging"]["expired"] > 0
    assert sum(feed.sent_away for feed in feeds) > 0, "the test is also about a bound that refuses"
    assert told["strict"]["lost"] == told["picky"]["lost"] == told["alarm"]["lost"] == 0
    for name in LIVE:
        published = set[int]().union(*(feed.numbers[name] for feed in feeds))
        takers = late if name == "aging" else [ends[ROUTES[name]["to"]]]
        arrived = set[int]().union(*(end.numbers[name] for end in takers))
        missing = published - arrived
        gone = told[name]["refused"] + told[name]["expired"] + told[name]["lost"]
        assert len(missing) <= gone, f"{len(missing)} of {name} are missing, and {gone} are accounted for"
        assert not arrived - published or kills, "what arrives was published"
    assert "Traceback" not in gateway.log.read_text()
    acknowledged = sum(feed.acknowledged.total() for feed in feeds)
    print(f"{acknowledged:,} acknowledged, {kills} kills, {sum(feed.sent_away for feed in feeds)} sent away")
    for name, one in told.items():
        print(f"  {name:7}" + " ".join(
            f"{what}={one[what]}"
            for what in ("accepted", "delivered", "stored", "refused", "expired", "dropped")
        ))  # fmt: skip
