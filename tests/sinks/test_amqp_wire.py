"""Our frames are AMQP: pika reads back what we wrote, whatever a device put into the message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame

from bridge.message import CLOCK_PLAUSIBLE_NS, Message, Properties
from bridge.sinks.amqp_wire import EXPIRATION_MS_MAX, Unsendable, publish_frames
from bridge.sinks.base import Outgoing
from bridge.sinks.metadata import rfc3339
from tests.sinks.queues import as_owned

FRAME_MAX = 131_072
BASE = Outgoing("plant-7/1/1", "key", Message("a/b", b"x", 1, False, "press", 1_763_937_901_123_456_789))

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400)
properties = st.builds(
    Properties,
    payload_format_indicator=st.none() | st.integers(0, 1),
    message_expiry_interval_s=st.none() | st.integers(0, 2**32 - 1),
    content_type=st.none() | texts,
    response_topic=st.none() | texts.filter(bool),
    correlation_data=st.none() | st.binary(max_size=400),
    user_properties=st.lists(st.tuples(texts, texts), max_size=5).map(tuple),
)
messages = st.builds(
    Message,
    topic=texts.filter(bool),
    payload=st.binary(max_size=2000),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    publisher=texts,
    received_ns=st.integers(0, 2**63 - 1),
    properties=st.none() | properties,
)


def read(frames: list[bytes]) -> tuple[Any, Any, bytes]:
    """Return `(method, properties, body)` as pika decodes the bytes."""
    wire, seen = b"".join(frames), []
    while wire:
        consumed, one = frame.decode_frame(wire)
        assert consumed, "a frame is cut short"
        seen.append(one)
        wire = wire[consumed:]
    method, header, *bodies = seen
    body = b"".join(each.fragment for each in bodies)
    assert header.body_size == len(body)
    return method.method, header.properties, body


def test_what_travels_instead_of_the_payload_has_its_own_content_type() -> None:
    spoken = changed(properties=Properties(payload_format_indicator=1, content_type="text/plain"))
    told = msgspec.structs.replace(
        spoken, body=b"{}", content_type="application/json", headers=(("site", "Köln"), ("line", ""))
    )
    _, header, body = read(publish_frames(told, "plant", FRAME_MAX))
    assert (body, header.content_type) == (b"{}", "application/json")
    assert (header.headers["site"], header.headers["line"]) == ("Köln", "")
    assert "payload_format_indicator" not in header.headers
    untyped = msgspec.structs.replace(spoken, body=b"")
    _, header, body = read(publish_frames(untyped, "plant", FRAME_MAX))
    assert (body, header.content_type) == (b"", None)


def changed(**changes: Any) -> Outgoing:
    return msgspec.structs.replace(BASE, message=msgspec.structs.replace(BASE.message, **changes))


@settings(max_examples=60, deadline=None)
@given(messages)
def test_whatever_the_message_pika_reads_it_back(message: Message) -> None:
    try:
        frames = publish_frames(msgspec.structs.replace(BASE, message=message), "plant", FRAME_MAX)
    except Unsendable:
        pytest.fail("all of these fit")
    method, header, body = read(frames)
    assert (method.exchange, method.routing_key, method.mandatory) == ("plant", "key", True)
    owned = as_owned(header, body)
    assert (owned.id, owned.topic, owned.payload) == (BASE.id, message.topic, message.payload)
    assert owned.properties == (message.properties or Properties())
    assert header.delivery_mode == 2
    if message.received_ns < CLOCK_PLAUSIBLE_NS:
        assert (header.timestamp, header.headers["clock"]) == (None, "unset")
    else:
        assert (header.timestamp, header.headers.get("clock")) == (message.received_ns // 10**9, None)
    assert header.headers["received_at"] == rfc3339(message.received_ns)
    assert (header.headers["qos"], header.headers["retain"]) == (message.qos, message.retain)
    assert header.headers.get("publisher", "") == message.publisher


@settings(max_examples=60, deadline=None)
@given(
    messages,
    st.binary(min_size=1, max_size=300),
    st.integers(CLOCK_PLAUSIBLE_NS, 2**63 - 1),
    st.text("a/-7ü", max_size=80),
    st.text("k.ü", max_size=60),
)
def test_what_is_filled_into_a_stencil_is_what_is_built_bit_by_bit(
    message: Message, payload: bytes, received_ns: int, message_id: str, address: str
) -> None:
    # Empty properties say nothing, and go the long way.
    message = msgspec.structs.replace(message, payload=payload, received_ns=received_ns, properties=None)
    plain = Outgoing(message_id, address, message)
    built = msgspec.structs.replace(plain, message=msgspec.structs.replace(message, properties=Properties()))
    [filled] = publish_frames(plain, "plant", FRAME_MAX)
    assert filled == b"".join(publish_frames(built, "plant", FRAME_MAX))


def test_a_stencil_stays_within_what_amqp_can_say() -> None:
    with pytest.raises(Unsendable, match="message id has 256 bytes"):
        publish_frames(msgspec.structs.replace(BASE, id="i" * 256), "", FRAME_MAX)
    topic = "t" * 4096
    size = len(publish_frames(changed(topic=topic, payload=b""), "", FRAME_MAX)[1])
    assert len(publish_frames(changed(topic=topic), "", size)) == 1
    with pytest.raises(Unsendable, match="room for"):
        publish_frames(changed(topic=topic), "", size - 1)


@pytest.mark.parametrize("size", [0, 1, 91, 92, 93, 184, 185, 1000])
def test_a_body_is_cut_at_the_size_of_a_frame(size: int) -> None:
    frames = publish_frames(changed(payload=b"p" * size), "", 300)
    wire = b"".join(frames)
    while wire:
        consumed, _ = frame.decode_frame(wire)
        assert 0 < consumed <= 300
        wire = wire[consumed:]
    assert read(frames)[2] == b"p" * size


def test_what_amqp_cannot_say_is_said() -> None:
    with pytest.raises(Unsendable, match="routing key has 256 bytes"):
        publish_frames(msgspec.structs.replace(BASE, address="ü" * 128), "", FRAME_MAX)
    with pytest.raises(Unsendable, match="room for"):
        publish_frames(
            changed(properties=Properties(user_properties=(("k", "v" * FRAME_MAX),))), "", FRAME_MAX
        )


def test_a_device_cannot_name_a_header() -> None:
    # RabbitMQ would deliver a copy to every queue named in CC and BCC.
    frames = publish_frames(changed(properties=Properties(user_properties=(("CC", "other"),))), "", FRAME_MAX)
    headers = read(frames)[1].headers
    assert "CC" not in headers
    assert headers["user_properties"] == [["CC", "other"]]


@pytest.mark.parametrize(
    ("seconds", "expiration"), [(0, "0"), (60, "60000"), (EXPIRATION_MS_MAX // 1000 + 1, None)]
)
def test_an_expiry_that_rabbitmq_cannot_take_stays_a_header(seconds: int, expiration: str | None) -> None:
    header = read(
        publish_frames(changed(properties=Properties(message_expiry_interval_s=seconds)), "", FRAME_MAX)
    )[1]
    assert header.expiration == expiration
    assert header.headers["message_expiry_interval_s"] == seconds


def test_a_replayed_message_says_so_and_no_other_does() -> None:
    again = msgspec.structs.replace(BASE, replayed=True)
    assert read(publish_frames(again, "", FRAME_MAX))[1].headers["replayed"] is True
    assert "replayed" not in read(publish_frames(BASE, "", FRAME_MAX))[1].headers


def test_time_keeps_its_nanoseconds() -> None:
    assert rfc3339(1) == "1970-01-01T00:00:00.000000001Z"
