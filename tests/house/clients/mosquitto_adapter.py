"""mosquitto_pub and mosquitto_sub: a process for each subscriber, and one for each message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from tests.house.clients.base import ALIAS, EXPIRY_S, WAIT_S, Client, Heard, Will
from tests.servers import binary

# topic, qos, retain, expiry, response topic, correlation data, payload in hexadecimal
_FORMAT = "heard\t%t\t%q\t%r\t%E\t%R\t%D\t%x"


class Mosquitto:
    """See Adapter."""

    def __init__(self, port: int, version: int) -> None:
        self.common = ["-h", "127.0.0.1", "-p", str(port), "-V", f"mqttv{version}"]
        self.is_five = version == 5
        # mosquitto_sub cannot come back without naming what it wants.
        self.filters: dict[str, list[str]] = {}

    async def connect(
        self, name: str, *, clean: bool = True, will: Will | None = None, aliases: int = 0
    ) -> Client:
        client = _Client(self, name, clean, will)
        if will is not None:
            await client.subscribe(client.farewell, 0)
        elif name in self.filters and not clean:
            await client.listen()
        return client


class _Client:
    def __init__(self, adapter: Mosquitto, name: str, clean: bool, will: Will | None) -> None:
        self.session_present: bool | None = None
        self._adapter = adapter
        self._name = name
        self._options = ["-i", name]
        self.farewell = f"farewell/{name}"
        self._has_will = will is not None
        if not clean:
            self._options += ["-c"] + (["-x", str(EXPIRY_S)] if adapter.is_five else [])
        if will is not None:
            self._options += ["--will-topic", will.topic, "--will-payload", will.payload.decode()]
            self._options += ["--will-qos", str(will.qos)] + (["--will-retain"] if will.retain else [])
            self._options += ["-C", "1"]  # one message and it leaves
        self._process: asyncio.subprocess.Process | None = None
        self._subscribed = asyncio.Event()
        self._messages: asyncio.Queue[Heard] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        # Another process for another filter: it takes them all at once, and with one QoS.
        await self.leave()
        known = self._adapter.filters.setdefault(self._name, [])
        known += ["-q", str(qos), "-t", topic_filter]
        await self.listen()

    async def listen(self) -> None:
        # -d tells of SUBACK, on the same stream and only once the buffer is full unless told otherwise.
        self._subscribed.clear()
        self._process = await asyncio.create_subprocess_exec(
            "stdbuf", "-oL", binary("mosquitto_sub"), *self._adapter.common, *self._options,
            *self._adapter.filters[self._name], "-d", "-F", _FORMAT,
            stdout=asyncio.subprocess.PIPE, limit=4 << 20,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))
        await asyncio.wait_for(self._subscribed.wait(), WAIT_S)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode().rstrip("\n")
            if text.startswith("Subscribed"):
                self._subscribed.set()
            elif text.startswith("heard\t"):
                _, topic, qos, retain, expiry, response_topic, correlation_data, payload = text.split("\t")
                self._messages.put_nowait(
                    Heard(
                        topic,
                        bytes.fromhex(payload),
                        int(qos),
                        retain == "1",
                        int(expiry) if expiry else None,
                        response_topic or None,
                        correlation_data.encode() or None,
                    )
                )

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
        words = ["-t", topic, "-q", str(qos)] + (["-r"] if retain else [])
        words += ["-s"] if payload else ["-n"]  # -s: the whole of stdin is the message
        if expiry_s is not None:
            words += ["-D", "PUBLISH", "message-expiry-interval", str(expiry_s)]
        if response_topic is not None:
            words += ["-D", "PUBLISH", "response-topic", response_topic]
        if correlation_data is not None:
            words += ["-D", "PUBLISH", "correlation-data", correlation_data.decode()]
        await self._say(words, payload)

    async def publish_by_alias(self, topic: str, payloads: list[bytes], qos: int) -> None:
        words = ["-t", topic, "-q", str(qos), "-D", "PUBLISH", "topic-alias", str(ALIAS), "-l"]
        await self._say(words, b"".join(payload + b"\n" for payload in payloads))

    async def _say(self, words: list[str], stdin: bytes) -> None:
        process = await asyncio.create_subprocess_exec(
            binary("mosquitto_pub"), *self._adapter.common, *words, stdin=asyncio.subprocess.PIPE
        )
        await asyncio.wait_for(process.communicate(stdin), WAIT_S)
        assert process.returncode == 0

    async def next(self) -> Heard:
        return await asyncio.wait_for(self._messages.get(), WAIT_S)

    async def drop(self) -> None:
        await self._end(signal.SIGKILL)

    async def leave(self) -> None:
        if self._has_will and self._process is not None:
            # With MQTT 5 and a signal it would ask for its will to be sent.
            await self.publish(self.farewell, b"", 0)
            await self._end(None)
            return
        # It disconnects within the handler of the signal, and hangs for ever if that falls into the writing
        # of a line: what we have just read it may not have finished.
        await asyncio.sleep(0.05)
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals | None) -> None:
        if self._process is not None and self._reading is not None:
            if how is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, how)
            await asyncio.wait_for(self._process.wait(), WAIT_S)
            await self._reading
            self._process = None
