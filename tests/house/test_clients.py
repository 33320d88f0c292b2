"""The clients that people really use, against a gateway in a process of its own.

Both directions, every QoS, retained messages, wills, sessions and take-over; at the
end the gateway has written no traceback and delivered everything to its cloud.
"""

import asyncio
import contextlib
import queue
import subprocess
import threading
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.broker.device import Device
from tests.gateway import Gateway, until
from tests.servers import binary, missing

WAIT_S = 10
AMQTT = Path(__file__).parents[2] / ".cache" / "amqtt-venv" / "bin" / "python"
PAHO = [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]
MOSQUITTO = ["mqttv311", "mqttv5"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("house"))
    gateway.start()
    yield gateway
    status = gateway.status()
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output()
    assert status["mqtt"]["dropped"] == status["mqtt"]["refused"] == 0
    assert status["routes"]["all"]["backlog_messages"] == 0


class Paho:
    """A paho client whose callbacks become a queue."""

    def __init__(self, gateway, name, version, clean=True, will=None):
        self.messages = queue.Queue()
        self.session_present = None
        self.gone = threading.Event()
        self._ready = threading.Event()
        more = {"clean_session": clean} if version == MQTTProtocolVersion.MQTTv311 else {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=version, **more)
        self.client.on_message = lambda _, __, message: self.messages.put(message)
        self.client.on_connect = self._connected
        self.client.on_disconnect = lambda *_: self.gone.set()
        if will is not None:
            self.client.will_set(*will)
        if version == MQTTProtocolVersion.MQTTv5:
            about = Properties(PacketTypes.CONNECT)
            about.SessionExpiryInterval = 0 if clean else 1000
            self.client.connect("127.0.0.1", gateway.port, clean_start=clean, properties=about)
        else:
            self.client.connect("127.0.0.1", gateway.port)
        self.client.loop_start()
        assert self._ready.wait(WAIT_S)

    def _connected(self, _client, _data, flags, reason, _properties):
        assert not reason.is_failure, reason
        self.session_present = flags.session_present
        self._ready.set()

    def subscribe(self, topic, qos):
        heard = threading.Event()
        self.client.on_subscribe = lambda *_: heard.set()
        self.client.subscribe(topic, qos)
        assert heard.wait(WAIT_S)

    def publish(self, topic, payload, qos, retain=False):
        sent = self.client.publish(topic, payload, qos, retain)
        sent.wait_for_publish(WAIT_S)
        assert sent.is_published()

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def drop(self):
        """Gone without DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def connect(gateway):
    clients = []

    def make(*args, **more):
        clients.append(Paho(gateway, *args, **more))
        return clients[-1]

    yield make
    for client in clients:
        with contextlib.suppress(Exception):
            client.leave()


@pytest.mark.parametrize("version", PAHO)
def test_paho_both_directions_every_qos_in_order(connect, version):
    hears, says = connect("hears", version), connect("says", version)
    for qos in (0, 1, 2):
        hears.subscribe(f"paho/{qos}", qos)
        for nth in range(20):
            says.publish(f"paho/{qos}", f"{nth}", qos)
        got = [hears.next() for _ in range(20)]
        assert [each.payload for each in got] == [b"%d" % nth for nth in range(20)]
        assert {each.qos for each in got} == {qos}


@pytest.mark.parametrize("version", PAHO)
def test_paho_retained_and_will(connect, version):
    topic = f"paho/last/{version}"
    says = connect("says", version)
    says.publish(topic, "on line", 1, retain=True)
    hears = connect("hears", version)
    hears.subscribe(topic, 1)
    first = hears.next()
    assert (first.payload, bool(first.retain)) == (b"on line", True)
    mortal = connect("mortal", version, will=(topic, "gone", 2, True))
    mortal.drop()
    assert hears.next().payload == b"gone"
    says.publish(topic, b"", 1, retain=True)
    assert hears.next().payload == b""
    late = connect("late", version)
    late.subscribe(topic, 1)
    says.publish(topic, "now", 1)
    assert late.next().payload == b"now"


@pytest.mark.parametrize("version", PAHO)
def test_paho_a_session_keeps_what_comes_meanwhile(connect, version):
    sleeper = connect("sleeper", version, clean=False)
    sleeper.subscribe("paho/asleep", 2)
    sleeper.leave()
    says = connect("says", version)
    for nth in range(30):
        says.publish("paho/asleep", f"{nth}", 1 + nth % 2)
    sleeper = connect("sleeper", version, clean=False)
    assert sleeper.session_present
    got = [sleeper.next() for _ in range(30)]
    for qos in (1, 2):  # QoS 2 takes one round more, so the two need not keep in step
        own = [int(each.payload) for each in got if each.qos == qos]
        assert own == [nth for nth in range(30) if 1 + nth % 2 == qos]
    sleeper.leave()
    assert not connect("sleeper", version, clean=True).session_present


@pytest.mark.parametrize("version", PAHO)
def test_paho_a_second_connection_takes_the_session_over(connect, version):
    first = connect("twin", version, clean=False)
    first.client.reconnect_delay_set(60, 60)  # or the two would throw each other out for ever
    first.subscribe("paho/twin", 1)
    second = connect("twin", version, clean=False)
    assert second.session_present
    assert first.gone.wait(WAIT_S)
    connect("says", version).publish("paho/twin", "x", 1)
    assert second.next().payload == b"x"


def mosquitto(name, gateway, version, *args, **more):
    command = [binary(name), "-h", "127.0.0.1", "-p", str(gateway.port), "-V", version, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, **more)


@pytest.mark.parametrize("version", MOSQUITTO)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_publishes_and_subscribes(gateway, connect, version, qos):
    topic = f"mosquitto/{version}/{qos}"
    hears = connect("hears", MQTTProtocolVersion.MQTTv5)
    hears.subscribe(topic, 2)
    lines = "".join(f"{nth}\n" for nth in range(50))
    mosquitto("mosquitto_pub", gateway, version, "-t", topic, "-q", qos, "-l", input=lines)
    assert [hears.next().payload for _ in range(50)] == [b"%d" % nth for nth in range(50)]

    hears.publish(topic + "/last", "kept", 1, retain=True)
    heard = mosquitto("mosquitto_sub", gateway, version, "-t", topic + "/#", "-q", qos, "-C", "1", "-W", "10")
    assert heard.stdout == "kept\n"


@pytest.mark.parametrize("version", MOSQUITTO)
def test_mosquitto_keeps_a_session_and_speaks_its_will(gateway, connect, version):
    topic = f"mosquitto/{version}"
    session = ["-i", f"keeper-{version}", "-c", "-q", "2", "-t", f"{topic}/kept"]
    if version == "mqttv5":
        session += ["-x", "1000"]
    mosquitto("mosquitto_sub", gateway, version, *session, "-E")
    mosquitto("mosquitto_pub", gateway, version, "-t", f"{topic}/kept", "-q", "2", "-m", "waited")
    heard = mosquitto("mosquitto_sub", gateway, version, *session, "-C", "1", "-W", "10")
    assert heard.stdout == "waited\n"

    hears = connect("hears", MQTTProtocolVersion.MQTTv5)
    hears.subscribe(f"{topic}/will", 1)
    mortal = subprocess.Popen(
        [
            binary("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(gateway.port), "-V", version,
            "-t", f"{topic}/ready",
            "--will-topic", f"{topic}/will", "--will-payload", "gone", "--will-qos", "1",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        says = connect("says", MQTTProtocolVersion.MQTTv5)
        says.publish(f"{topic}/ready", "now", 1, retain=True)
        assert mortal.stdout is not None
        assert mortal.stdout.readline() == "now\n"
    finally:
        mortal.kill()
        mortal.communicate()
    assert hears.next().payload == b"gone"


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt_every_qos(gateway, version):
    async with (
        asyncio.timeout(30),
        aiomqtt.Client("127.0.0.1", gateway.port, identifier="hears", protocol=version) as hears,
        aiomqtt.Client("127.0.0.1", gateway.port, identifier="says", protocol=version) as says,
    ):
        for qos in (0, 1, 2):
            await hears.subscribe(f"aiomqtt/{qos}", qos)
            for nth in range(20):
                await says.publish(f"aiomqtt/{qos}", f"{nth}", qos)
        got = []
        async for message in hears.messages:
            got.append((message.topic.value, message.payload))
            if len(got) == 60:
                break
    for qos in (0, 1, 2):
        own = [payload for topic, payload in got if topic == f"aiomqtt/{qos}"]
        assert own == [b"%d" % nth for nth in range(20)]


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
