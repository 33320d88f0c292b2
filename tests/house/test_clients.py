"""The clients that people really use, against a gateway in a process of its own.

Every scenario of `scenarios` with every client: a table, and what is missing in it is
listed with its reason. At the end the gateway has written no traceback, dropped
nothing, and delivered everything to its cloud.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.device import Device
from tests.gateway import Gateway, until
from tests.house.clients.aiomqtt_adapter import Aiomqtt
from tests.house.clients.base import Adapter
from tests.house.clients.gmqtt_adapter import Gmqtt
from tests.house.clients.mosquitto_adapter import Mosquitto
from tests.house.clients.mqttjs_adapter import MqttJs, Node
from tests.house.clients.paho_adapter import Paho
from tests.house.scenarios import MQTT_5_ONLY, SCENARIOS, Stage
from tests.servers import free_port, missing

AMQTT = Path(__file__).parents[2] / ".cache" / "amqtt-venv" / "bin" / "python"


class House(Gateway):
    """With a listener for WebSocket beside the one for TCP."""

    def __init__(self, folder: Path) -> None:
        port, self.websocket = free_port(), free_port()
        listeners = [{"mqtt": f"127.0.0.1:{port}"}, {"ws": f"127.0.0.1:{self.websocket}"}]
        super().__init__(folder, listeners=listeners)
        self.port = port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    gateway = House(tmp_path_factory.mktemp("house"))
    gateway.start()
    yield gateway
    status = gateway.status()
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output()
    assert status["mqtt"]["dropped"] == status["mqtt"]["refused"] == 0
    assert status["routes"]["all"]["backlog_messages"] == 0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


Make = Callable[[House, pytest.FixtureRequest], Adapter]


def tcp(kind: Any, version: Any) -> Make:
    return lambda gateway, _request: kind(gateway.port, version)


def javascript(scheme: str, version: int) -> Make:
    def make(gateway: House, request: pytest.FixtureRequest) -> Adapter:
        port = gateway.websocket if scheme == "ws" else gateway.port
        return MqttJs(request.getfixturevalue("node"), f"{scheme}://127.0.0.1:{port}", version)

    return make


# name: (MQTT version, how it is made)
CLIENTS: dict[str, tuple[int, Make]] = {
    "paho 3.1.1": (4, tcp(Paho, 4)),
    "paho 5": (5, tcp(Paho, 5)),
    "aiomqtt 3.1.1": (4, tcp(Aiomqtt, 4)),
    "aiomqtt 5": (5, tcp(Aiomqtt, 5)),
    "gmqtt 3.1.1": (4, tcp(Gmqtt, 4)),
    "gmqtt 5": (5, tcp(Gmqtt, 5)),
    "mosquitto 3.1.1": (4, tcp(Mosquitto, 311)),
    "mosquitto 5": (5, tcp(Mosquitto, 5)),
    "MQTT.js 3.1.1": (4, javascript("mqtt", 4)),
    "MQTT.js 5": (5, javascript("mqtt", 5)),
    "MQTT.js 3.1.1 over WebSocket": (4, javascript("ws", 4)),
    "MQTT.js 5 over WebSocket": (5, javascript("ws", 5)),
}

# (client, scenario): why not
CANNOT = {
    (client, scenario): why
    for client, (version, _) in CLIENTS.items()
    if version < 5
    for scenario, why in MQTT_5_ONLY.items()
} | {
    (
        client,
        "a_second_connection_takes_over",
    ): "mosquitto_sub connects again at once, and so they go on for ever"
    for client in CLIENTS
    if client.startswith("mosquitto")
}

TABLE = [
    (client, scenario) for client in CLIENTS for scenario in SCENARIOS if (client, scenario) not in CANNOT
]


@pytest.fixture
async def stage(gateway: House, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    client, scenario = request.param
    version, make = CLIENTS[client]
    corner = f"{list(CLIENTS).index(client)}-{scenario}"
    stage = Stage(make(gateway, request), gateway, corner, version)
    yield stage
    await stage.close()


@pytest.mark.parametrize(
    ("stage", "scenario"),
    [((client, scenario), scenario) for client, scenario in TABLE],
    ids=[f"{client}-{scenario}" for client, scenario in TABLE],
    indirect=["stage"],
)
async def test_client(stage: Stage, scenario: str) -> None:
    async with asyncio.timeout(60):
        await SCENARIOS[scenario](stage)


def test_what_a_client_cannot_do_is_a_cell_of_the_table() -> None:
    assert set(CANNOT) <= {(client, scenario) for client in CLIENTS for scenario in SCENARIOS}
    assert set(MQTT_5_ONLY) <= set(SCENARIOS)


def test_amqtt_every_qos(gateway):
    if not AMQTT.exists():
        missing("amqtt (make environments)")
    script = Path(__file__).with_name("amqtt_client.py")
    ran = subprocess.run(
        [AMQTT, script, str(gateway.port)], capture_output=True, text=True, timeout=60, cwd=script.parent
    )
    assert ran.returncode == 0, ran.stderr
    assert "all of it arrived" in ran.stdout


async def test_everything_that_was_acknowledged_reaches_the_cloud_and_survives_a_stop(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.start()
    try:
        device = await Device.connect(gateway.port)
        for packet_id in range(1, 101):
            device.publish("a", b"x", 1, packet_id)
        for _ in range(100):
            await device.next()
        status = await asyncio.to_thread(gateway.status)
        await until(lambda: status["mqtt"]["acknowledged"] == 100)
        device.drop()
        await asyncio.to_thread(gateway.restart)
        status = await asyncio.to_thread(gateway.status)
        assert status["routes"]["all"]["backlog_messages"] == 0
        assert await asyncio.to_thread(gateway.stop) == 0
    finally:
        gateway.kill()
