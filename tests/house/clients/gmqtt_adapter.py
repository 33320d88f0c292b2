"""gmqtt: an asyncio client written for MQTT 5, properties and all."""

from __future__ import annotations

import asyncio
from typing import Any

import gmqtt
from gmqtt.storage import PersistentStorage

from tests.house.clients.base import ALIAS, EXPIRY_S, WAIT_S, Client, Heard, Will


class Gmqtt:
    """See Adapter."""

    def __init__(self, port: int, version: int) -> None:
        self._port = port
        self._version = version

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        client = _Client(name, clean, will, aliases)
        await client.connect(self._port, self._version)
        return client


class _Client:
    def __init__(self, name: str, clean: bool, will: Will | None, aliases: int) -> None:
        self.session_present: bool | None = None
        self._messages: asyncio.Queue[Heard] = asyncio.Queue()
        self._subscribed: set[int] = set()
        self._news = asyncio.Event()
        # It holds what is not acknowledged yet: empty means that every QoS is through.
        self._unacknowledged = PersistentStorage()
        self._client = gmqtt.Client(
            name,
            clean_session=clean,
            will_message=None
            if will is None
            else gmqtt.Message(will.topic, will.payload, will.qos, will.retain),
            persistent_storage=self._unacknowledged,
            session_expiry_interval=0 if clean else EXPIRY_S,
            topic_alias_maximum=aliases,
        )
        self._client.stop_reconnect()
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe

    def _on_connect(self, _client: Any, flags: int, _reason: int, _properties: Any) -> None:
        self.session_present = bool(flags & 1)

    def _on_subscribe(self, _client: Any, packet_id: int, _qos: Any, _properties: Any) -> None:
        self._subscribed.add(packet_id)
        self._news.set()

    def _on_message(self, _client: Any, topic: str, payload: bytes, qos: int, about: dict[str, Any]) -> int:
        [expiry_s] = about.get("message_expiry_interval", [None])
        [response_topic] = about.get("response_topic", [None])
        [correlation_data] = about.get("correlation_data", [None])
        self._messages.put_nowait(
            Heard(
                topic, bytes(payload), qos, bool(about["retain"]), expiry_s, response_topic, correlation_data
            )
        )
        return 0  # its PUBACK carries this as the reason code

    async def connect(self, port: int, version: int) -> None:
        await asyncio.wait_for(self._client.connect("127.0.0.1", port, version=version), WAIT_S)

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        packet_id = self._client.subscribe(topic_filter, qos)
        async with asyncio.timeout(WAIT_S):
            while packet_id not in self._subscribed:
                self._news.clear()
                await self._news.wait()

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
        properties = {
            "message_expiry_interval": expiry_s,
            "response_topic": response_topic,
            "correlation_data": correlation_data,
        }
        given = {name: value for name, value in properties.items() if value is not None}
        self._client.publish(topic, payload, qos, retain, **given)
        await asyncio.wait_for(self._unacknowledged.wait_empty(), WAIT_S)

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        for number, payload in enumerate(payloads):
            self._client.publish("" if number else topic, payload, qos, topic_alias=ALIAS)
        await asyncio.wait_for(self._unacknowledged.wait_empty(), WAIT_S)

    async def next(self) -> Heard:
        return await asyncio.wait_for(self._messages.get(), WAIT_S)

    async def drop(self) -> None:
        self._client.stop_reconnect()
        self._client._connection._transport.abort()
        await asyncio.sleep(0)

    async def leave(self) -> None:
        if self._client.is_connected:
            await self._client.disconnect()
