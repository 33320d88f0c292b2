"""paho-mqtt: callbacks in a thread of its own, which become a queue on our loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.house.clients.base import ALIAS, EXPIRY_S, WAIT_S, Client, Heard, Will


def connect_properties(clean: bool) -> Properties:
    """Of MQTT 5."""
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0 if clean else EXPIRY_S
    return properties


def publish_properties(
    expiry_s: int | None, response_topic: str | None, correlation_data: bytes | None
) -> Properties | None:
    """None where there are none: 3.1.1 has none."""
    properties = Properties(PacketTypes.PUBLISH)
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation_data is not None:
        properties.CorrelationData = correlation_data
    return None if properties.isEmpty() else properties


def alias_properties() -> Properties:
    """A topic alias and nothing else."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.TopicAlias = ALIAS
    return properties


def heard(topic: str, message: Any) -> Heard:
    """A message of paho's, or of aiomqtt's, which has the same fields but for the topic."""
    properties = message.properties
    return Heard(
        topic,
        bytes(message.payload),
        message.qos,
        bool(message.retain),
        getattr(properties, "MessageExpiryInterval", None),
        getattr(properties, "ResponseTopic", None),
        getattr(properties, "CorrelationData", None),
    )


class Paho:
    """See Adapter."""

    def __init__(self, port: int, version: int) -> None:
        self._port = port
        self._version = MQTTProtocolVersion(version)

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        client = _Client(name, self._version, clean, will)
        await client.connect(self._port, self._version, clean)
        return client


class _Client:
    def __init__(self, name: str, version: MQTTProtocolVersion, clean: bool, will: Will | None) -> None:
        self.session_present: bool | None = None
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Heard] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._subscribed = asyncio.Event()
        more = {} if version == MQTTProtocolVersion.MQTTv5 else {"clean_session": clean}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=version, **more)
        # Whoever is thrown out stays out: two of one name would throw each other out for ever.
        self._client.reconnect_delay_set(1000, 1000)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._loop.call_soon_threadsafe(self._subscribed.set)
        if will is not None:
            self._client.will_set(*will)

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        assert not reason.is_failure, reason
        self.session_present = flags.session_present
        self._loop.call_soon_threadsafe(self._connected.set)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._messages.put_nowait, heard(message.topic, message))

    async def connect(self, port: int, version: MQTTProtocolVersion, clean: bool) -> None:
        if version == MQTTProtocolVersion.MQTTv5:
            self._client.connect("127.0.0.1", port, clean_start=clean, properties=connect_properties(clean))
        else:
            self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        await asyncio.wait_for(self._connected.wait(), WAIT_S)

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        self._subscribed.clear()
        self._client.subscribe(topic_filter, qos)
        await asyncio.wait_for(self._subscribed.wait(), WAIT_S)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
    ) -> None:
        properties = publish_properties(expiry_s, response_topic, correlation_data)
        await self._through(self._client.publish(topic, payload, qos, retain, properties))

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        for number, payload in enumerate(payloads):
            named = "" if number else topic
            await self._through(self._client.publish(named, payload, qos, properties=alias_properties()))

    async def _through(self, sent: paho.MQTTMessageInfo) -> None:
        await asyncio.to_thread(sent.wait_for_publish, WAIT_S)
        assert sent.is_published()

    async def next(self) -> Heard:
        return await asyncio.wait_for(self._messages.get(), WAIT_S)

    async def drop(self) -> None:
        await asyncio.to_thread(self._client.loop_stop)
        socket = self._client.socket()
        assert socket is not None
        socket.close()

    async def leave(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
