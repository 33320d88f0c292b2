"""MQTT.js, over TCP and over WebSocket: one Node process for all of its clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.house.clients.base import ALIAS, EXPIRY_S, WAIT_S, Client, Heard, Will
from tests.node import installed
from tests.servers import binary

_HERE = Path(__file__).parent
_SCRIPT = "mqttjs_adapter.js"


class Node:
    """The process. It outlives the loop of one test, so a thread reads what it says."""

    def __init__(self) -> None:
        folder = installed(_HERE, "clients")
        shutil.copy(_HERE / _SCRIPT, folder)  # beside its modules
        self._process = subprocess.Popen(
            [binary("node"), str(folder / _SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._number = itertools.count()
        self._asked: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self.messages: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Heard]]] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "id" in told:
                loop, done = self._asked.pop(told["id"])
                loop.call_soon_threadsafe(_settle, done, told)
            else:
                loop, queue = self.messages[told.pop("client")]
                for name in ("payload", "correlation_data"):
                    told[name] = None if told[name] is None else base64.b64decode(told[name])
                with contextlib.suppress(RuntimeError):  # the test is over
                    loop.call_soon_threadsafe(queue.put_nowait, Heard(**told))

    async def ask(self, verb: str, client: int, **more: Any) -> Any:
        """Returns when it is done. Raises AssertionError with what MQTT.js says."""
        assert self._process.stdin is not None
        loop = asyncio.get_running_loop()
        number, done = next(self._number), loop.create_future()
        self._asked[number] = loop, done
        line = json.dumps({"id": number, "verb": verb, "client": client, **more}) + "\n"
        await asyncio.to_thread(self._write, line.encode())
        return await asyncio.wait_for(done, WAIT_S)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def new_client(self) -> int:
        """A number for one more, whose messages come to the loop that runs now."""
        number = next(self._number)
        self.messages[number] = asyncio.get_running_loop(), asyncio.Queue()
        return number

    def close(self) -> None:
        """The end of its stdin is its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _settle(done: asyncio.Future[Any], told: dict[str, Any]) -> None:
    if done.done():
        return
    if "error" in told:
        done.set_exception(AssertionError(told["error"]))
    else:
        done.set_result(told["ok"])


class MqttJs:
    """See Adapter. `url` is mqtt://… or ws://…"""

    def __init__(self, node: Node, url: str, version: int) -> None:
        self._node = node
        self._url = url
        self._version = version

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        client = _Client(self._node)
        options: dict[str, Any] = {"clientId": name, "protocolVersion": self._version, "clean": clean}
        if self._version == 5:
            options["properties"] = {
                "sessionExpiryInterval": 0 if clean else EXPIRY_S,
                "topicAliasMaximum": aliases,
            }
        last = None if will is None else will._asdict() | {"payload": _text(will.payload)}
        client.session_present = await self._node.ask(
            "connect", client.number, url=self._url, options=options, will=last
        )
        return client


class _Client:
    def __init__(self, node: Node) -> None:
        self.session_present: bool | None = None
        self.number = node.new_client()
        self._node = node
        self._is_here = True

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        await self._node.ask("subscribe", self.number, filter=topic_filter, qos=qos)

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
            "messageExpiryInterval": expiry_s,
            "responseTopic": response_topic,
            "correlationData": None if correlation_data is None else _text(correlation_data),
        }
        await self._publish(topic, payload, qos, retain, properties)

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        for number, payload in enumerate(payloads):
            await self._publish("" if number else topic, payload, qos, False, {"topicAlias": ALIAS})

    async def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: dict[str, Any]
    ) -> None:
        options: dict[str, Any] = {"qos": qos, "retain": retain}
        if given := {name: value for name, value in properties.items() if value is not None}:
            options["properties"] = given
        await self._node.ask("publish", self.number, topic=topic, payload=_text(payload), options=options)

    async def next(self) -> Heard:
        return await asyncio.wait_for(self._node.messages[self.number][1].get(), WAIT_S)

    async def drop(self) -> None:
        self._is_here = False
        await self._node.ask("drop", self.number)

    async def leave(self) -> None:
        if self._is_here:
            self._is_here = False
            await self._node.ask("leave", self.number)


def _text(payload: bytes) -> str:
    return base64.b64encode(payload).decode()
