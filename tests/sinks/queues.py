"""What lies in a queue, read over a connection of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pika

from bridge.message import Properties
from bridge.sinks.kit import Owned
from bridge.sinks.metadata import RESERVED
from bridge.sinks.receiver import Received, unpacked


@contextlib.contextmanager
def channel_to(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def take_all(url: str, queue: str) -> list[tuple[Any, bytes]]:
    """Return `(properties, body)` of everything in the queue, which is empty afterwards."""
    taken: list[tuple[Any, bytes]] = []
    with channel_to(url) as channel:
        waiting = channel.queue_declare(queue, passive=True).method.message_count
        if waiting:
            for _method, properties, body in channel.consume(queue, auto_ack=True):
                taken.append((properties, body))
                if len(taken) == waiting:
                    break
    return taken


def as_owned(properties: Any, body: bytes) -> Owned:
    """Read a message as a consumer would."""
    headers = properties.headers
    correlation_data = headers.get("correlation_data")
    content_type, reply_to = properties.content_type, properties.reply_to
    if properties.correlation_id is not None:
        correlation_data = properties.correlation_id.encode()
    return Owned(
        properties.message_id,
        headers["topic"],
        body,
        Properties(
            payload_format_indicator=headers.get("payload_format_indicator"),
            message_expiry_interval_s=headers.get("message_expiry_interval_s"),
            content_type=headers.get("content_type") if content_type is None else content_type,
            response_topic=headers.get("response_topic") if reply_to is None else reply_to,
            correlation_data=correlation_data,
            user_properties=tuple((name, value) for name, value in headers.get("user_properties", ())),
        ),
        tuple((name, value) for name, value in headers.items() if name not in RESERVED),
    )


def opened(properties: Any, body: bytes) -> list[Received]:
    """The messages of a pack, as a consumer finds them; of what is none, the one."""
    headers = properties.headers
    return unpacked(
        {
            "id": properties.message_id,
            "topic": headers.get("topic", ""),
            "address": "",
            "headers": headers,
            "content_encoding": properties.content_encoding or "",
        },
        body,
    )
