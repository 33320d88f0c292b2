"""The cloud is unplugged: killed, held, gone deaf, or without a queue for us (F1 to F4, F7)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.sinks.amqp_options import AMQP_WINDOW
from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.house.receiver import FarEnd
from tests.house.verdict import judge
from tests.servers import RabbitMQ, TcpProxy, free_port
from tests.sinks.queues import channel_to, take_all

HEARTBEAT_S = 2


def _to_rabbitmq(
    url: str, queue: str, arguments: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A route for everything into one durable queue, with little patience."""
    declare = [{"queue": {"name": queue, "arguments": arguments or {}}}]
    amqp = {
        "url": url,
        "declare": declare,
        "heartbeat": f"{HEARTBEAT_S}s",
        "open_timeout": "3s",
        "confirm_timeout": "60s",  # longer than any test
    } | more
    return {
        "sinks": {"cloud": {"amqp": amqp}},
        "routes": {"all": {"from": "#", "to": "cloud", "address": queue}},
    }


async def _backlog(gateway: Gateway, count: int) -> Device:
    """A device that has published `count` messages, all of them acknowledged."""
    device = Device("d", gateway.port, count, 20_000)
    await asyncio.wait_for(device.run(), 60 + count / 2_000)
    return device


def _route(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.status()["routes"]["all"]
    return found


async def _drained(gateway: Gateway, wait_s: float = 40) -> None:
    await until(lambda: _route(gateway)["backlog_messages"] == 0, wait_s)


def _arrivals(url: str, queue: str) -> list[tuple[str, str]]:
    return [(properties.message_id, body.decode()) for properties, body in take_all(url, queue)]


@pytest.mark.parametrize(
    ("kills", "count"),
    [
        pytest.param(10, 30_000, id="10-kills"),
        pytest.param(200, 400_000, id="200-kills", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_given_a_receiver_killed_with_a_full_pipe_then_nothing_is_lost_and_order_is_kept(
    tmp_path: Path, kills: int, count: int
) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = Gateway(
        tmp_path / "gateway",
        sinks={"cloud": {"zeromq": {"bind": endpoint}}},
        store={"path": str(tmp_path / "spool"), "max_bytes": "1GiB"},
    )
    far_end = FarEnd(tmp_path / "far", endpoint)
    gateway.start()
    try:
        device = await _backlog(gateway, count)
        for kill in range(kills):
            far_end.start()
            share = count * (kill + 1) // (kills + 2)
            await until(lambda share=share: _route(gateway)["delivered"] >= share, 30)
            far_end.kill()
        assert _route(gateway)["backlog_messages"] > 0, "it was over before the last kill"
        far_end.start()
        await _drained(gateway)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], [device])
    print(f"{kills} kills of the receiver: {verdict}")
    assert verdict.arrived == count
    assert verdict.again == 0
    assert verdict.repeated <= kills * 2_000


@pytest.mark.parametrize(
    ("cuts", "kills", "count"),
    [
        pytest.param(9, 1, 30_000, id="10-cuts"),
        pytest.param(193, 7, 300_000, id="200-cuts", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_given_cuts_and_kills_of_rabbitmq_mid_batch_then_all_arrive_and_nobody_has_to_publish(
    tmp_path: Path, cuts: int, kills: int, count: int
) -> None:
    rabbitmq = RabbitMQ(tmp_path / "rabbitmq")
    proxy = TcpProxy(rabbitmq.port)
    url = rabbitmq.url.replace(f":{rabbitmq.port}", f":{proxy.port}")
    gateway = Gateway(
        tmp_path / "gateway",
        **_to_rabbitmq(url, "cut"),
        store={"path": str(tmp_path / "spool"), "max_bytes": "1GiB"},
    )
    turns = cuts + kills

    async def delivered() -> int:
        return int((await asyncio.to_thread(_route, gateway))["delivered"])  # the proxy lives on this loop

    async def wait_for(share: int) -> None:
        async with asyncio.timeout(90):
            while await delivered() < share:
                await asyncio.sleep(0.002)

    try:
        await asyncio.to_thread(gateway.start)
        device = await _backlog(gateway, count)
        # Only now: one that is there from the beginning keeps up, and there would be nothing to drain.
        await asyncio.to_thread(rabbitmq.start)
        await proxy.start()
        for turn in range(turns):
            await wait_for(count * (turn + 1) // (turns + 2))
            if turn * kills // turns != (turn - 1) * kills // turns:
                rabbitmq.kill()
                await asyncio.to_thread(rabbitmq.start)
            else:
                await proxy.cut()
        assert await delivered() < count, "it was over before the last cut"
        await wait_for(count)
        assert await asyncio.to_thread(gateway.stop) == 0
        arrivals = await asyncio.to_thread(_arrivals, rabbitmq.url, "cut")
    finally:
        await asyncio.to_thread(gateway.kill)
        await proxy.stop()
        rabbitmq.stop()
    verdict = judge(arrivals, [device])
    print(f"{proxy.cuts - 1} resets and {kills} kills of RabbitMQ: {verdict}")
    assert (verdict.arrived, verdict.again) == (count, 0)
    assert verdict.repeated <= turns * AMQP_WINDOW


async def test_given_an_idle_line_that_swallows_everything_then_two_heartbeats_notice_it(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    proxy = TcpProxy(rabbitmq.port)
    await proxy.start()
    url = rabbitmq.url.replace(f":{rabbitmq.port}", f":{proxy.port}")
    gateway = Gateway(tmp_path / "gateway", **_to_rabbitmq(url, "idle"))

    async def state() -> str:
        told = await asyncio.to_thread(gateway.status)
        return str(told["sinks"]["cloud"]["state"])

    try:
        await asyncio.to_thread(gateway.start)
        while await state() != "up":
            await asyncio.sleep(0.01)
        proxy.hold(up=True, down=True)
        began = time.monotonic()
        while await state() == "up":
            assert time.monotonic() - began <= 2 * HEARTBEAT_S + 1
            await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(gateway.kill)
        await proxy.stop()


@pytest.mark.parametrize(
    "deaf",
    [
        pytest.param({"up": False, "down": True}, id="down"),
        pytest.param({"up": True, "down": True}, id="both", marks=pytest.mark.long),
    ],
)
async def test_given_a_line_that_swallows_everything_then_it_is_noticed_and_later_drains_by_itself(
    tmp_path: Path, rabbitmq: RabbitMQ, deaf: dict[str, bool]
) -> None:
    count = 20_000
    queue = f"swallowed-{deaf['up']}"
    proxy = TcpProxy(rabbitmq.port)
    await proxy.start()
    url = rabbitmq.url.replace(f":{rabbitmq.port}", f":{proxy.port}")
    gateway = Gateway(tmp_path / "gateway", **_to_rabbitmq(url, queue, confirm_timeout="3s"))
    await asyncio.to_thread(gateway.start)

    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(gateway.status)  # the proxy lives on this loop

    try:
        while (await status())["sinks"]["cloud"]["state"] != "up":
            await asyncio.sleep(0.01)
        proxy.hold(**deaf)
        began = time.monotonic()
        device = await _backlog(gateway, count)
        while (told := (await status()))["sinks"]["cloud"]["state"] == "up":
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.02)
        noticed_s = time.monotonic() - began
        assert told["routes"]["all"]["backlog_messages"] == count
        proxy.hold(up=False, down=False)
        began = time.monotonic()
        while (await status())["routes"]["all"]["backlog_messages"]:
            assert time.monotonic() - began < 40
            await asyncio.sleep(0.05)
        drained_s = time.monotonic() - began
        assert await asyncio.to_thread(gateway.stop) == 0
    finally:
        await asyncio.to_thread(gateway.kill)
        await proxy.stop()
    verdict = judge(await asyncio.to_thread(_arrivals, rabbitmq.url, queue), [device])
    print(f"noticed after {noticed_s:.1f} s, drained {drained_s:.1f} s after it was back; {verdict}")
    assert noticed_s <= 2 * HEARTBEAT_S + 1  # the second is for publishing and for a busy machine
    assert verdict.arrived == count
    assert verdict.again == 0


async def test_given_no_queue_for_them_then_messages_become_dead_letters_and_the_others_pass(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    parts = _to_rabbitmq(rabbitmq.url, "there")
    parts["routes"]["all"]["address"] = "{place}"
    parts["routes"]["all"]["from"] = "plant/{place}/count"
    gateway = Gateway(tmp_path / "gateway", **parts)
    gateway.start()
    try:
        there = Device("there", gateway.port, 500, 5_000)
        nowhere = Device("nowhere", gateway.port, 300, 3_000)
        await asyncio.wait_for(asyncio.gather(there.run(), nowhere.run()), 20)
        await _drained(gateway)
        told = gateway.status()
        gateway.kill()
        gateway.start()
        again = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert told["routes"]["all"]["delivered"] == 500
    assert told["routes"]["all"]["refused"] == told["dead_letters"] == again["dead_letters"] == 300
    assert told["sinks"]["cloud"]["state"] == "up"
    verdict = judge(await asyncio.to_thread(_arrivals, rabbitmq.url, "there"), [there])
    assert verdict.arrived == 500


@pytest.mark.parametrize("declared", [True, False], ids=["declared-by-us", "declared-by-others"])
async def test_given_a_queue_deleted_under_way_then_nothing_is_lost_and_nothing_counts_that_it_does_not_hold(
    tmp_path: Path, rabbitmq: RabbitMQ, declared: bool
) -> None:
    # Ours is declared again, and everything comes again; the other one is nobody's any more.
    queue = f"deleted-{declared}"
    parts = _to_rabbitmq(rabbitmq.url, queue)
    if not declared:
        del parts["sinks"]["cloud"]["amqp"]["declare"]
        with channel_to(rabbitmq.url) as channel:
            channel.queue_declare(queue, durable=True)
    store = {"path": str(tmp_path / "spool"), "max_bytes": "1GiB"}
    gateway = Gateway(tmp_path / "gateway", **parts, store=store)
    gateway.start()
    try:
        first = Device("first", gateway.port, 1_000, 20_000)
        await asyncio.wait_for(first.run(), 20)
        await _drained(gateway)
        before = await asyncio.to_thread(_arrivals, rabbitmq.url, queue)
        second = Device("second", gateway.port, 20_000, 20_000)
        running = asyncio.ensure_future(second.run())
        await until(lambda: _route(gateway)["delivered"] >= 3_000)
        await asyncio.to_thread(_delete, rabbitmq.url, queue)  # with what lies in it
        deleted_at = _route(gateway)["delivered"] - 1_000
        await asyncio.wait_for(running, 30)
        await _drained(gateway)
        told = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    judge(before, [first])
    route = told["routes"]["all"]
    assert route["lost"] == 0
    assert route["delivered"] + route["refused"] == 21_000
    if declared:
        assert told["dead_letters"] == 0
        arrived = {payload for _, payload in await asyncio.to_thread(_arrivals, rabbitmq.url, queue)}
        assert {f"second:{number}" for number in range(deleted_at, 20_000)} <= arrived
    else:
        assert told["dead_letters"] == route["refused"] >= 20_000 - deleted_at > 0


def _delete(url: str, queue: str) -> None:
    with channel_to(url) as channel:
        channel.queue_delete(queue)


def _take_some(url: str, queue: str) -> list[tuple[str, str]]:
    """One by one what is there: a consumer would be sent more than it stays for."""
    found: list[tuple[str, str]] = []
    with channel_to(url) as channel:
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append((got[1].message_id, got[2].decode()))
    return found


async def test_given_a_queue_that_rejects_when_full_then_the_rest_is_kept_until_there_is_room(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    count = 1_000
    arguments = {"x-max-length": 100, "x-overflow": "reject-publish"}
    gateway = Gateway(tmp_path / "gateway", **_to_rabbitmq(rabbitmq.url, "narrow", arguments))
    gateway.start()
    arrivals: list[tuple[str, str]] = []
    try:
        device = await _backlog(gateway, count)
        # A nack of the broker is a link that breaks: seen in the log, because it comes back at once.
        await until(lambda: "basic.nack" in gateway.output(), 20)
        assert gateway.status()["dead_letters"] == 0
        deadline = time.monotonic() + 60
        while len({message_id for message_id, _ in arrivals}) < count:
            assert time.monotonic() < deadline, f"{len(arrivals)} have arrived"
            arrivals += await asyncio.to_thread(_take_some, rabbitmq.url, "narrow")
        await _drained(gateway)
        told = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    # Not in order: the queue rejects one message and has room for the next a moment later.
    verdict = judge(arrivals, [device], in_order=False)
    print(f"a queue of 100 for {count} messages: {verdict}")
    assert told["dead_letters"] == told["routes"]["all"]["lost"] == 0
    assert verdict.arrived == count
    assert verdict.again == 0


async def test_given_a_memory_alarm_then_the_block_is_said_and_is_neither_a_stall_nor_a_success(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    parts = _to_rabbitmq(rabbitmq.url, "alarmed", confirm_timeout="1s")
    gateway, mark = Gateway(tmp_path / "gateway", **parts), ""
    gateway.start()
    try:
        before = await _backlog(gateway, 500)
        await _drained(gateway)
        mark = "0"
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", mark)
        during = Device("during", gateway.port, 3_000, 20_000)
        await asyncio.wait_for(during.run(), 20)
        await until(lambda: gateway.status()["sinks"]["cloud"]["state"] == "blocked")
        began = time.monotonic()
        while time.monotonic() - began < 2.5:  # twice as long as a stall would take to be seen
            told = gateway.status()
            assert told["sinks"]["cloud"]["state"] == "blocked"
            assert "blocked publishers: low on memory" in told["sinks"]["cloud"]["reason"]
            await asyncio.sleep(0.2)
        route = told["routes"]["all"]
        assert route["delivered"] + route["backlog_messages"] == 3_500
        # What was sent before the broker said so is confirmed only if the queue has it.
        arrivals = await asyncio.to_thread(_arrivals, rabbitmq.url, "alarmed")
        assert route["delivered"] <= len(arrivals)
        mark = "0.4"
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", mark)
        await _drained(gateway)
        told = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        if mark == "0":
            await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "0.4")
    assert (told["sinks"]["cloud"]["state"], told["sinks"]["cloud"]["stalls"]) == ("up", 0)
    assert (told["routes"]["all"]["delivered"], told["dead_letters"]) == (3_500, 0)
    arrivals += await asyncio.to_thread(_arrivals, rabbitmq.url, "alarmed")
    assert judge(arrivals, [before, during]).arrived == len(arrivals) == 3_500
    assert gateway.output().count("sink blocked") == 1
