"""aiomqtt: paho on our own loop, whose messages come as one endless iterator."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import aiomqtt
import paho.mqtt.client as paho

from tests.house.clients.base import WAIT_S, Client, Heard, Will
from tests.house.clients.paho_adapter import (
    alias_properties,
    connect_properties,
    heard,
    publish_properties,
)


class Aiomqtt:
    """See Adapter."""

    def __init__(self, port: int, version: int) -> None:
        self._port = port
        self._version = aiomqtt.ProtocolVersion(version)

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        five = self._version == aiomqtt.ProtocolVersion.V5
        client = aiomqtt.Client(
            "127.0.0.1",
            self._port,
            identifier=name,
            protocol=self._version,
            clean_session=None if five else clean,
            clean_start=clean if five else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=connect_properties(clean) if five else None,
            will=None if will is None else aiomqtt.Will(*will),
        )
        await client.__aenter__()
        return _Client(client)


class _Client:
    def __init__(self, client: aiomqtt.Client) -> None:
        self.session_present: bool | None = None
        self._client = client
        self._is_here = True

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        await self._client.subscribe(topic_filter, qos, timeout=WAIT_S)

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
        await self._client.publish(topic, payload, qos, retain, properties, timeout=WAIT_S)

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        for number, payload in enumerate(payloads):
            named = "" if number else topic
            await self._client.publish(named, payload, qos, properties=alias_properties(), timeout=WAIT_S)

    async def next(self) -> Heard:
        async with asyncio.timeout(WAIT_S):
            message = await anext(aiter(self._client.messages))
        return heard(message.topic.value, message)

    async def drop(self) -> None:
        line = self._client._client.socket()
        assert isinstance(line, socket.socket)
        line.shutdown(socket.SHUT_RDWR)
        await self._end()

    async def leave(self) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._is_here:
            self._is_here = False
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.__aexit__(None, None, None)
