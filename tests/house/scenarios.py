"""What every MQTT client has to be able to do here: one function a scenario, none of which knows the library.

`tests/house/test_clients.py` runs each of them with each client, over each kind of
listener, and lists what a client cannot do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from bridge.broker.limits import Limits
from tests.gateway import Gateway
from tests.house.clients.base import Adapter, Client, Heard, Will

__all__ = ["MQTT_5_ONLY", "SCENARIOS", "Stage"]

COUNT = 6


class Stage:
    """One client library, one gateway, and a corner of the topic tree that nobody else uses."""

    def __init__(self, adapter: Adapter, gateway: Gateway, corner: str, version: int) -> None:
        self.gateway = gateway
        self.corner = corner
        self.version = version
        self._adapter = adapter
        self._stack = AsyncExitStack()

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        """One more client; it leaves when the scenario is over."""
        client = await self._adapter.connect(f"{self.corner}-{name}", clean=clean, will=will, aliases=aliases)
        self._stack.push_async_callback(client.leave)
        return client

    async def close(self) -> None:
        await self._stack.aclose()


async def _all(client: Client, count: int) -> list[Heard]:
    return [await client.next() for _ in range(count)]


async def each_qos_in_order(stage: Stage) -> None:
    hears, says = await stage.connect("hears"), await stage.connect("says")
    for qos in (0, 1, 2):
        topic = f"{stage.corner}/{qos}"
        await hears.subscribe(topic, qos)
        for number in range(COUNT):
            await says.publish(topic, b"%d" % number, qos)
        heard = await _all(hears, COUNT)
        assert heard == [Heard(topic, b"%d" % number, qos, False) for number in range(COUNT)]


async def the_lower_qos_counts(stage: Stage) -> None:
    hears, says = await stage.connect("hears"), await stage.connect("says")
    await hears.subscribe(f"{stage.corner}/#", 1)
    for qos in (0, 1, 2):
        await says.publish(f"{stage.corner}/x", b"", qos)
        assert (await hears.next()).qos == min(qos, 1)


async def retained(stage: Stage) -> None:
    topic = f"{stage.corner}/last"
    says = await stage.connect("says")
    await says.publish(topic, b"old", 1, retain=True)
    await says.publish(topic, b"new", 1, retain=True)
    early = await stage.connect("early")
    await early.subscribe(topic, 1)
    assert await early.next() == Heard(topic, b"new", 1, True)
    await says.publish(topic, b"newest", 1, retain=True)
    assert await early.next() == Heard(topic, b"newest", 1, False), "to one who is here it is a message"
    await says.publish(topic, b"", 1, retain=True)
    assert (await early.next()).payload == b""
    late = await stage.connect("late")
    await late.subscribe(topic, 1)
    await says.publish(topic, b"now", 0)
    assert (await late.next()).payload == b"now", "what was cleared does not come"


async def wills(stage: Stage) -> None:
    hears = await stage.connect("hears")
    await hears.subscribe(f"{stage.corner}/will", 2)
    polite = await stage.connect("polite", will=Will(f"{stage.corner}/will", b"not said"))
    await polite.leave()
    will = Will(f"{stage.corner}/will", b"gone", 2, True)
    mortal = await stage.connect("mortal", will=will)
    await mortal.drop()
    assert await hears.next() == Heard(will.topic, b"gone", 2, False)
    late = await stage.connect("late")
    await late.subscribe(will.topic, 1)
    assert await late.next() == Heard(will.topic, b"gone", 1, True)


async def a_session_survives_a_restart(stage: Stage) -> None:
    topic = f"{stage.corner}/asleep"
    sleeper = await stage.connect("sleeper", clean=False)
    assert not sleeper.session_present
    await sleeper.subscribe(topic, 2)
    await sleeper.leave()
    says = await stage.connect("says")
    for number in range(COUNT):
        await says.publish(topic, b"%d" % number, 1 + number % 2)
    await says.leave()
    await asyncio.to_thread(stage.gateway.restart)
    says = await stage.connect("says")
    await says.publish(topic, b"afterwards", 1)
    sleeper = await stage.connect("sleeper", clean=False)
    assert sleeper.session_present in (True, None)
    heard = await _all(sleeper, COUNT + 1)
    # QoS 2 takes one round more, so the two need not keep in step.
    assert [each.payload for each in heard if each.qos == 1] == [b"0", b"2", b"4", b"afterwards"]
    assert [each.payload for each in heard if each.qos == 2] == [b"1", b"3", b"5"]


async def a_clean_start_forgets(stage: Stage) -> None:
    topic = f"{stage.corner}/asleep"
    sleeper = await stage.connect("sleeper", clean=False)
    await sleeper.subscribe(topic, 1)
    await sleeper.leave()
    says = await stage.connect("says")
    await says.publish(topic, b"never heard", 1)
    sleeper = await stage.connect("sleeper", clean=True)
    assert sleeper.session_present in (False, None)
    await sleeper.subscribe(topic, 1)
    await says.publish(topic, b"heard", 1)
    assert (await sleeper.next()).payload == b"heard"


async def a_second_connection_takes_over(stage: Stage) -> None:
    topic = f"{stage.corner}/twin"
    first = await stage.connect("twin", clean=False)
    await first.subscribe(topic, 1)
    second = await stage.connect("twin", clean=False)
    assert second.session_present in (True, None)
    says = await stage.connect("says")
    for number in range(COUNT):
        await says.publish(topic, b"%d" % number, 1)
    assert [each.payload for each in await _all(second, COUNT)] == [b"%d" % n for n in range(COUNT)]


async def a_shared_subscription_divides(stage: Stage) -> None:
    members = [await stage.connect(name) for name in ("one", "two")]
    for member in members:
        await member.subscribe(f"$share/{stage.corner}/{stage.corner}/work/+", 1)
    says = await stage.connect("says")
    for number in range(4 * COUNT):
        await says.publish(f"{stage.corner}/work/{number}", b"%d" % number, 1)
    # The end goes to everyone, and behind it nothing more can come.
    for member in members:
        await member.subscribe(f"{stage.corner}/end", 1)
    await says.publish(f"{stage.corner}/end", b"end", 1)
    shares: list[list[bytes]] = [[], []]
    for member, share in zip(members, shares, strict=True):
        while (heard := await member.next()).payload != b"end":
            share.append(heard.payload)
    assert all(shares), "each of them had something to do"
    assert sorted(map(int, shares[0] + shares[1])) == list(range(4 * COUNT)), "and nothing was done twice"


async def a_request_is_answered(stage: Stage) -> None:
    asks, answers = await stage.connect("asks"), await stage.connect("answers")
    await answers.subscribe(f"{stage.corner}/ask", 1)
    await asks.subscribe(f"{stage.corner}/answer/asks", 1)
    for number in range(2):
        correlation_data = b"question %d" % number
        await asks.publish(
            f"{stage.corner}/ask",
            b"?",
            1,
            response_topic=f"{stage.corner}/answer/asks",
            correlation_data=correlation_data,
        )
        asked = await answers.next()
        assert (asked.response_topic, asked.correlation_data) == (
            f"{stage.corner}/answer/asks",
            correlation_data,
        )
        assert asked.response_topic is not None
        await answers.publish(asked.response_topic, b"!", 1, correlation_data=asked.correlation_data)
        answered = await asks.next()
        assert (answered.payload, answered.correlation_data) == (b"!", correlation_data)


async def a_topic_alias_stands_for_the_topic(stage: Stage) -> None:
    # QoS 1, because MQTT.js forgets at PUBREL what the alias of a QoS 2 message stood for.
    hears, says = await stage.connect("hears", aliases=8), await stage.connect("says")
    await hears.subscribe(f"{stage.corner}/#", 1)
    payloads = [b"%d" % number for number in range(COUNT)]
    await says.publish_by_alias(f"{stage.corner}/a/rather/long/topic", payloads, 1)
    heard = await _all(hears, COUNT)
    assert [(each.topic, each.payload) for each in heard] == [
        (f"{stage.corner}/a/rather/long/topic", payload) for payload in payloads
    ]


async def a_message_expires(stage: Stage) -> None:
    topic = f"{stage.corner}/fresh"
    sleeper = await stage.connect("sleeper", clean=False)
    await sleeper.subscribe(topic, 1)
    await sleeper.leave()
    says = await stage.connect("says")
    await says.publish(topic, b"stale", 1, expiry_s=1)
    await says.publish(topic, b"fresh", 1, expiry_s=100)
    await says.publish(topic, b"for ever", 1)
    await asyncio.sleep(1.1)  # the gateway's clock is its own
    sleeper = await stage.connect("sleeper", clean=False)
    fresh, for_ever = await _all(sleeper, 2)
    assert (fresh.payload, for_ever.payload, for_ever.expiry_s) == (b"fresh", b"for ever", None)
    assert fresh.expiry_s is not None
    assert 80 <= fresh.expiry_s <= 99, "what is left of it, less the time it lay here"


async def the_largest_packet(stage: Stage) -> None:
    topic = f"{stage.corner}/large"
    # Fixed header with three bytes of length, topic, packet identifier, and in MQTT 5 no properties.
    around = 1 + 3 + 2 + len(topic) + 2 + (stage.version == 5)
    payload = bytes(range(256)) * 4096
    hears, says = await stage.connect("hears"), await stage.connect("says")
    await hears.subscribe(topic, 1)
    for total in (Limits().packet_bytes_max - 1, Limits().packet_bytes_max):
        await says.publish(topic, payload[: total - around], 1)
        heard = await hears.next()
        assert len(heard.payload) == total - around
        assert heard.payload == payload[: total - around]


async def an_empty_payload(stage: Stage) -> None:
    hears, says = await stage.connect("hears"), await stage.connect("says")
    for qos in (0, 1, 2):
        await hears.subscribe(f"{stage.corner}/{qos}", qos)
        await says.publish(f"{stage.corner}/{qos}", b"", qos)
        assert await hears.next() == Heard(f"{stage.corner}/{qos}", b"", qos, False)


async def utf_8_topics(stage: Stage) -> None:
    topic = f"{stage.corner}/Größe/温度/🌡/\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}"
    hears, says = await stage.connect("hears"), await stage.connect("says")
    await hears.subscribe(f"{stage.corner}/Größe/+/🌡/#", 1)
    await says.publish(topic, "höhe".encode(), 1)
    assert await hears.next() == Heard(topic, "höhe".encode(), 1, False)


_ALL: list[Callable[[Stage], Awaitable[None]]] = [
    each_qos_in_order,
    the_lower_qos_counts,
    retained,
    wills,
    a_session_survives_a_restart,
    a_clean_start_forgets,
    a_second_connection_takes_over,
    a_shared_subscription_divides,
    a_request_is_answered,
    a_topic_alias_stands_for_the_topic,
    a_message_expires,
    the_largest_packet,
    an_empty_payload,
    utf_8_topics,
]
SCENARIOS = {scenario.__name__: scenario for scenario in _ALL}

MQTT_5_ONLY = {
    "a_request_is_answered": "3.1.1 has no response topic and no correlation data",
    "a_topic_alias_stands_for_the_topic": "3.1.1 has no topic aliases",
    "a_message_expires": "3.1.1 has no message expiry",
}
