"""Every configuration that we ship is run, and a message goes all the way through it.

`tests/config/test_samples.py` checks what they say; here they have to do it. Only
addresses are moved, by the same flags and variables that an operator would use.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.publish import multiple
from paho.mqtt.reasoncodes import ReasonCode

from tests.broker.device import Device
from tests.broker.wires import WireDevice
from tests.gateway import until
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.pki import client_context, write_sample
from tests.servers import RabbitMQ, free_port
from tests.sinks.queues import channel_to, opened, take_all
from tests.sinks.secure import Secure

ROOT = Path(__file__).parents[2]
TO_ZEROMQ = ["config/quickstart.yaml", "deploy/edgespool.yaml", "deploy/image.yaml"]
TO_RABBITMQ = ["config/rabbitmq.yaml", "deploy/compose-config.yaml"]
PACKED = "config/packed.yaml"
FAN_IN = "config/zeromq-fan-in.yaml"
ACCESS = "config/users-and-rules.yaml"
TLS = "config/tls.yaml"
CLUSTER = "config/rabbitmq-cluster.yaml"
COMMANDS = "config/commands.yaml"
CONDITIONS = "config/conditions.yaml"
NOT_OURS = ["deploy/compose.yaml"]  # a file of docker's
COUNT = 50


def _publish(gateway: Shipped, topic: str) -> list[str]:
    payloads = [f"{topic}:{number}" for number in range(COUNT)]
    multiple([(topic, payload, 1, False) for payload in payloads], "127.0.0.1", gateway.port)
    return payloads


def _listening(gateway: Shipped) -> set[int]:
    """The TCP ports on which the gateway can be reached."""
    found = psutil.Process(gateway.pid).net_connections("tcp")
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


def test_no_sample_is_left_out() -> None:
    shipped = {
        str(path.relative_to(ROOT)) for name in ("config", "deploy") for path in (ROOT / name).glob("*.yaml")
    }
    assert shipped == {
        *TO_ZEROMQ,
        *TO_RABBITMQ,
        PACKED,
        FAN_IN,
        ACCESS,
        TLS,
        CLUSTER,
        COMMANDS,
        CONDITIONS,
        *NOT_OURS,
    }


@pytest.mark.parametrize("file", TO_ZEROMQ)
def test_a_zeromq_sample_carries_messages_to_a_receiver_that_calls_it(tmp_path: Path, file: str) -> None:
    gateway = Shipped(tmp_path / "gateway", ROOT / file)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.validate()
    gateway.start()
    far_end.start()
    try:
        payloads = _publish(gateway, "plant/a/7/telemetry")
        assert not far_end.wait_for(set(payloads))
        zeromq_port = int(gateway.endpoint.rpartition(":")[2])
        assert _listening(gateway) == {gateway.port, gateway.web, zeromq_port}
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        far_end.kill()
    received = far_end.received()
    assert [one["payload"] for one in received] == payloads
    assert (
        {one["topic"] for one in received} == {one["address"] for one in received} == {"plant/a/7/telemetry"}
    )


@pytest.mark.parametrize("file", TO_RABBITMQ)
async def test_a_rabbitmq_sample_fills_the_queue_that_it_declares(
    tmp_path: Path, rabbitmq: RabbitMQ, file: str
) -> None:
    gateway = Shipped(tmp_path, ROOT / file, zeromq=None, environ={"AMQP_URL": rabbitmq.url})
    gateway.validate()
    gateway.start()
    try:
        payloads = await asyncio.to_thread(_publish, gateway, "plant/a/7/telemetry")
        await until(lambda: gateway.status()["routes"]["telemetry"]["delivered"] == COUNT, 30)
        assert _listening(gateway) == {gateway.port, gateway.web}
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    taken = await asyncio.to_thread(take_all, rabbitmq.url, "telemetry")
    assert [body.decode() for _, body in taken] == payloads
    assert {properties.delivery_mode for properties, _ in taken} == {2}
    assert {properties.headers["topic"] for properties, _ in taken} == {"plant/a/7/telemetry"}


async def test_the_packed_sample_fills_its_queue_with_packs(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    gateway = Shipped(tmp_path, ROOT / PACKED, zeromq=None, environ={"AMQP_URL": rabbitmq.url})
    gateway.validate()
    gateway.start()
    try:
        payloads = await asyncio.to_thread(_publish, gateway, "plant/a/7/telemetry")
        await until(lambda: gateway.status()["routes"]["telemetry"]["delivered"] == COUNT, 30)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    taken = await asyncio.to_thread(take_all, rabbitmq.url, "packs")
    assert len(taken) < COUNT
    told = [one for properties, body in taken for one in opened(properties, body)]
    assert [one.payload.decode() for one in told] == payloads


def test_the_sample_with_conditions_sends_what_it_says_and_a_kill_does_not_lose_what_it_holds(
    tmp_path: Path,
) -> None:
    gateway = Shipped(tmp_path / "gateway", ROOT / CONDITIONS)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.validate()
    gateway.start()
    far_end.start()
    telemetry = "plant/a/7/telemetry"
    values = [20.0, 20.1, 91.5, 91.7]
    try:
        payloads = [(telemetry, json.dumps({"t": value}), 1, False) for value in values]
        others = [(f"plant/a/7/state/{number}", f"s{number}", 1, False) for number in range(200)]
        multiple([*payloads, *others], "127.0.0.1", gateway.port)
        deadline = time.monotonic() + 10
        while len(far_end.received()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        gateway.kill()  # with the value of the period still held
        gateway.start()
        deadline = time.monotonic() + 20
        while gateway.status()["routes"]["trend"]["stored"] and time.monotonic() < deadline:
            time.sleep(0.05)
        routes = gateway.status()["routes"]
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        far_end.kill()
    received = {(one["id"], one["address"]): one for one in far_end.received()}.values()
    hot = [one for one in received if one["address"] == "hot.a.7"]
    assert [json.loads(one["payload"])["t"] for one in hot] == [91.5, 91.7]
    assert {one["headers"]["unit"] for one in hot} == {"C"}
    trend = [json.loads(one["payload"])["t"] for one in received if one["address"] == "trend.a.7"]
    # Nearly always the four are in one period; after the kill the deadband knows no value before the first.
    assert trend[-1] in (91.5, 91.7)
    assert len(trend) <= 2
    archive = [json.loads(one["payload"]) for one in received if one["address"] == "archive"]
    assert 5 <= len(archive) <= 45
    assert all(one["payload"] == f"s{one['topic'].rpartition('/')[2]}" for one in archive)
    for name, count in [("hot", 4), ("trend", 4), ("archive", 204)]:
        told = routes[name]
        assert told["accepted"] == count
        assert told["delivered"] + told["filtered"] == count


def test_two_gateways_of_the_fan_in_sample_reach_one_receiver_each_in_order(tmp_path: Path) -> None:
    # The file says the port, the variable the address: one of loopback's that nobody else uses.
    collector = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}.1"
    gateways = [
        Shipped(
            tmp_path / name, ROOT / FAN_IN, zeromq=None, environ={"COLLECTOR": collector, "GATEWAY": name}
        )
        for name in ("hall-1", "hall-2")
    ]
    far_end = FarEnd(tmp_path / "far", f"tcp://{collector}:5556", "--bind")
    far_end.start()
    sent: dict[str, dict[str, list[str]]] = {}
    try:
        for gateway in gateways:
            gateway.validate()
            gateway.start()
        for gateway in gateways:
            name = gateway.folder.name
            sent[name] = {kind: _publish(gateway, f"{name}/{kind}/t") for kind in ("telemetry", "alarm")}
        wanted = {payload for routes in sent.values() for payloads in routes.values() for payload in payloads}
        assert not far_end.wait_for(wanted)
    finally:
        for gateway in gateways:
            gateway.kill()
        far_end.kill()
    received = far_end.received()
    for name, routes in sent.items():
        for kind, payloads in routes.items():
            topic = f"{name}/{kind}/t"
            address = f"{name}/alarm" if kind == "alarm" else f"{name}/{topic}"
            mine = [one for one in received if one["topic"] == topic]
            assert [one["payload"] for one in mine] == payloads
            assert {one["address"] for one in mine} == {address}
            assert {one["id"].split("/")[0] for one in mine} == {name}


def test_the_sample_with_users_lets_in_whom_passwd_has_added_and_as_far_as_its_rules_say(
    tmp_path: Path,
) -> None:
    file = tmp_path / "edgespool.yaml"
    shutil.copy(ROOT / ACCESS, file)
    for user in ("press-1", "press-2", "dashboard"):
        command = [sys.executable, "-m", "bridge.cli", "passwd", str(tmp_path / "passwords"), user, "--stdin"]
        subprocess.run(command, input=f"{user}'s", text=True, check=True)
    gateway = Shipped(tmp_path / "gateway", file)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.validate()
    gateway.start()
    far_end.start()
    heard: list[tuple[str, str]] = []

    def connected(user: str | None, password: str | None = None) -> tuple[Client, ReasonCode]:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        if user is not None:
            client.username_pw_set(user, password)
        answers: queue.Queue[ReasonCode] = queue.Queue()
        client.on_connect = lambda client, data, flags, reason, properties: answers.put(reason)
        client.on_message = lambda client, data, message: heard.append((user or "", message.topic))
        client.connect("127.0.0.1", gateway.port)
        client.loop_start()
        reason = answers.get(timeout=10)
        if reason.is_failure:
            client.loop_stop()
        return client, reason

    try:
        for user, password in [(None, None), ("press-1", "press-2's"), ("press-3", "press-3's")]:
            assert connected(user, password)[1].is_failure
        dashboard, press = connected("dashboard", "dashboard's")[0], connected("press-1", "press-1's")[0]
        granted: queue.Queue[list[ReasonCode]] = queue.Queue()
        for client, topic_filters, wanted in [
            (dashboard, ["plant/#", "#"], [1, 0x87]),
            (press, ["plant/press-1/set/#", "plant/press-2/set/#", "plant/announcements/x"], [1, 0x87, 1]),
        ]:
            client.on_subscribe = lambda client, data, mid, reasons, properties: granted.put(reasons)
            client.subscribe([(each, 1) for each in topic_filters])
            assert [reason.value for reason in granted.get(timeout=10)] == wanted
        for topic in ("plant/press-2/t", "plant/press-1/recipe/1", "plant/press-1/t"):
            press.publish(topic, topic, qos=1).wait_for_publish(10)
        assert not far_end.wait_for({"plant/press-1/recipe/1", "plant/press-1/t"})
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert heard == [("dashboard", "plant/press-1/t")]
        for client in (dashboard, press):
            client.disconnect()
            client.loop_stop()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        far_end.kill()
    assert "plant/press-2/t" not in {one["topic"] for one in far_end.received()}


async def test_the_tls_sample_lets_in_devices_with_certificates_by_both_its_doors(tmp_path: Path) -> None:
    # The files it names lie beside it; its addresses are moved, since no flag moves these.
    certs, good, lost = write_sample(tmp_path / "certs")
    ports = {8883: free_port(), 9443: free_port()}
    text = (ROOT / TLS).read_text()
    for known, moved in ports.items():
        assert f"0.0.0.0:{known}" in text
        text = text.replace(f"0.0.0.0:{known}", f"127.0.0.1:{moved}")
    file = tmp_path / "tls.yaml"
    file.write_text(text)
    gateway = Shipped(tmp_path / "gateway", file)
    gateway.validate()
    gateway.start()
    try:
        for kind, port in (("mqtts", ports[8883]), ("wss", ports[9443])):
            device = WireDevice(kind, port, 5, client_context(certs, good))
            await device.open()
            connack = await device.hello(kind)
            assert connack is not None
            assert connack.reason == 0
            await device.leave()
            revoked = WireDevice(kind, port, 5, client_context(certs, lost))
            let_in = None
            with contextlib.suppress(OSError, EOFError):
                await revoked.open()
                let_in = await revoked.hello()
            assert let_in is None
        assert gateway.stop() == 0
    finally:
        gateway.kill()


async def test_the_sample_with_commands_brings_one_to_its_device_and_buries_what_nobody_can_have(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    gateway = Shipped(tmp_path, ROOT / COMMANDS, zeromq=None, environ={"AMQP_URL": rabbitmq.url})
    gateway.validate()
    gateway.start()
    try:
        device = await Device.connect(gateway.port, "press-1", expiry_s=3600)
        await device.subscribe("plant/press-1/set")
        await until(lambda: gateway.status()["commands"]["setpoints"]["state"] == "up", 30)
        with channel_to(rabbitmq.url) as channel:
            for key, body in (("plant-7.press-1", b"on"), ("plant-7.press-9", b"lost")):
                channel.basic_publish("commands", key, body)
        assert await device.receive(1) == [b"on"]
        await until(lambda: gateway.status()["commands"]["setpoints"]["delivered"] == 1, 30)
        assert await until(lambda: take_all(rabbitmq.url, "dead-commands"), 30)
        device.drop()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert take_all(rabbitmq.url, "plant-7.commands") == []


async def test_the_cluster_sample_reaches_the_node_that_is_there_and_is_known_by_its_certificate(
    tmp_path: Path, secure: Secure
) -> None:
    file = tmp_path / "rabbitmq-cluster.yaml"
    shutil.copy(ROOT / CLUSTER, file)
    ours = secure.authority.issue(cn="guest")
    for name, path in {"cloud.pem": secure.authority.certificate, "gateway.pem": ours.certificate}.items():
        (tmp_path / "certs").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "certs" / name)
    shutil.copy(ours.key, tmp_path / "certs" / "gateway.key")
    ports = [free_port(), secure.port, free_port()]  # two of the three nodes are away
    environ = {f"AMQP_URL_{n}": f"amqps://localhost:{port}" for n, port in enumerate(ports, 1)}
    gateway = Shipped(tmp_path / "gateway", file, zeromq=None, environ=environ)
    gateway.validate()
    gateway.start()
    try:
        payloads = await asyncio.to_thread(_publish, gateway, "plant/a/7/telemetry")
        await until(lambda: gateway.status()["routes"]["telemetry"]["delivered"] == COUNT, 30)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    taken = await asyncio.to_thread(take_all, secure.server.url, "telemetry-of-all")
    assert [body.decode() for _, body in taken] == payloads
