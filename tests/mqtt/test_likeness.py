"""Where Mosquitto refuses what we let pass, or says another code: on listeners that ask for it, only."""

import pytest

from bridge.errors import MalformedPacket
from bridge.message import Message
from bridge.mqtt.codec import encode
from bridge.mqtt.connection import Connection
from bridge.mqtt.likeness import refuse_mistaken
from bridge.mqtt.packet import (
    Connect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from bridge.mqtt.session import Session


def fault_of(version, data, *, like_mosquitto, first=False):
    """The reason code a connection ends with, None where it goes on; `first`: nothing came before."""
    connection = Connection(0.0, like_mosquitto=like_mosquitto)
    if not first:
        packets, fault = connection.receive(encode(Connect("c", version), version), 0.0)
        assert packets
        assert fault is None
        connection.accept(0.0, 0)
    _, fault = connection.receive(data, 0.0)
    return None if fault is None else fault.reason


# MQTT 5: the bytes behind CONNECT, what the specification says of them, and what Mosquitto says.
OTHER_CODES = [
    ("d0 01 00", 0x82, 0x00),  # PINGRESP, too long
    ("c0 01 00", 0x81, 0x00),  # PINGREQ, too long
    ("d0 00", 0x82, 0x82),
    ("40 80 80 80 80 01", 0x81, 0x00),  # a length of five bytes
    ("20 80 80 80 80 01", 0x82, 0x00),  # the same, of a packet that is not allowed
    ("00 00", 0x81, 0x82),
    ("f1 00", 0x81, 0x82),
    ("21 02 00 00", 0x81, 0x82),
    ("41 02 00 01", 0x81, 0x81),
    ("e0 01 05", 0x82, 0x00),  # DISCONNECT with a reason that is none
    ("e0 06 00 04 1c 0001 78", 0x82, 0x00),  # and one that names a server
    ("e0 04 00 02 01 00", 0x81, 0x82),  # a property out of place
    ("e0 03 00 01 01", 0x81, 0x81),  # the same, cut short
    ("e0 06 00 04 01 00 70 00", 0x81, 0x81),  # or followed by one that is none
    ("e0 06 00 04 01 00 01 00", 0x81, 0x82),
    ("e0 04 00 02 7f 00", 0x81, 0x81),  # a property that is none
    ("82 09 0001 02 0100 0001 61 00", 0x81, 0x81),
    ("30 03 0000 00", 0x82, 0x81),  # PUBLISH with neither topic nor alias
    ("30 04 0001 2b 00", 0x90, 0x81),
    ("30 08 0001 61 04 08 0001 23", 0x90, 0x82),  # a response topic with a wildcard
    ("32 06 0001 61 0000 00", 0x82, 0x82),
    ("82 07 0000 00 0001 61 00", 0x82, 0x81),
    ("82 07 0001 00 0001 61 30", 0x82, 0x81),
    ("82 03 0001 00", 0x82, 0x81),
    ("82 06 0001 00 0000 00", 0x8F, 0x81),
    ("82 09 0001 02 0b00 0001 61 00", 0x82, 0x81),  # a subscription identifier of 0
    ("a2 03 0001 00", 0x82, 0x81),
    ("a2 06 0000 00 0001 61", 0x82, 0x81),
]


@pytest.mark.parametrize(("text", "ours", "theirs"), OTHER_CODES)
def test_the_same_is_refused_with_the_code_that_devices_know(text, ours, theirs):
    data = bytes.fromhex(text)
    assert fault_of(5, data, like_mosquitto=False) == ours
    assert fault_of(5, data, like_mosquitto=True) == theirs


@pytest.mark.parametrize(
    ("topic_filter", "theirs"), [("$share/+/x", 0x82), ("$share/#/x", 0x81), ("$share/a", 0x82)]
)
def test_a_shared_subscription_that_is_none(topic_filter, theirs):
    data = encode(Subscribe(1, (Subscription("x" * len(topic_filter), 0),)), 5)
    data = data.replace(b"x" * len(topic_filter), topic_filter.encode())
    assert fault_of(5, data, like_mosquitto=False) == 0x8F
    assert fault_of(5, data, like_mosquitto=True) == theirs


CONNECTS = [
    ("1010 0004 4d515454 05 02 000a 00 0003 610062", 0x81, 0x85),  # U+0000 in the client identifier
    ("1014 0004 4d515454 05 82 000a 00 0001 61 0004 61006263", 0x81, 0x00),  # and in the user name
    ("100e 0004 4d515454 05 82 000a 00 0001 61", 0x81, 0x00),  # no user name where one is announced
    ("1011 0004 4d515454 05 c2 000a 00 0001 61 0001 61", 0x81, 0x00),  # nor a password
    ("1014 0004 4d515454 05 06 000a 00 0001 61 00 0000 0001 61", 0x90, 0x00),  # a will to no topic
    ("1015 0004 4d515454 05 06 000a 00 0001 61 00 0001 00 0001 61", 0x81, 0x00),  # and to U+0000
    ("1011 0004 4d515454 05 02 000a 03 230001 0001 61", 0x81, 0x82),  # a property out of place
]


@pytest.mark.parametrize(("text", "ours", "theirs"), CONNECTS)
def test_connect_is_refused_with_the_code_that_devices_know(text, ours, theirs):
    data = bytes.fromhex(text)
    assert fault_of(5, data, like_mosquitto=False, first=True) == ours
    assert fault_of(5, data, like_mosquitto=True, first=True) == theirs


def test_mqtt_3_1_lets_pass_what_it_did_not_use_and_wants_a_client_identifier():
    for text in ("10 0f 0006 4d5149736470 03 01 000a 0001 70", "14 0f 0006 4d5149736470 03 02 000a 0001 70"):
        assert fault_of(3, bytes.fromhex(text), like_mosquitto=False, first=True) is None
    for text in ("10 0d 0004 4d515454 04 03 000a 0001 70", "14 0d 0004 4d515454 04 02 000a 0001 70"):
        assert fault_of(4, bytes.fromhex(text), like_mosquitto=False, first=True) == 0x81
    empty = bytes.fromhex("10 0e 0006 4d5149736470 03 02 000a 0000")
    assert fault_of(3, empty, like_mosquitto=False, first=True) == 0x85


@pytest.mark.parametrize("control", ["\x01", "\x1f", "\x7f", "\x9f", "\n"])
@pytest.mark.parametrize("version", [4, 5])
def test_control_characters_in_topics_are_refused(control, version):
    name = f"a{control}b"
    for packet in (Publish(name, b""), Subscribe(1, (Subscription(name, 0),)), Unsubscribe(1, (name,))):
        data = encode(packet, version)
        for _ in range(2):  # what one connection may say must not be known to all
            assert fault_of(version, data, like_mosquitto=False) is None
            assert fault_of(version, data, like_mosquitto=True) == 0x81


@pytest.mark.parametrize(
    ("connect", "theirs"),
    [
        (Connect("a\nb", 5), 0x85),
        (Connect("a", 5, user_name="a\nb"), 0x00),
        (Connect("a", 5, will=Will("a\nb", b"", 0, False)), 0x00),
        (Connect("a\nb", 4), 0x00),
        (Connect("a", 4, user_name="a\nb"), 0x00),
    ],
)
def test_control_characters_in_names_are_refused(connect, theirs):
    data = encode(connect, connect.version)
    assert fault_of(connect.version, data, like_mosquitto=False, first=True) is None
    assert fault_of(connect.version, data, like_mosquitto=True, first=True) == theirs


def sent(qos):
    """A session that waits for the first answer to one PUBLISH with the identifier 1."""
    session = Session("c")
    session.reconnect(0)
    session.offer(1, qos, message=Message("t", b"", qos))
    assert session.take(0)
    return session


@pytest.mark.parametrize(
    ("qos", "good", "bad"), [(1, [Puback], [Pubrec, Pubcomp]), (2, [Pubrec], [Puback, Pubcomp])]
)
def test_an_answer_of_the_wrong_kind_is_refused(qos, good, bad):
    for kind in good:
        refuse_mistaken(sent(qos), kind(1))
    for kind in bad:
        with pytest.raises(MalformedPacket) as caught:
            refuse_mistaken(sent(qos), kind(1))
        assert caught.value.reason == 0x82
        refuse_mistaken(sent(qos), kind(2))  # answers nothing: that is let pass


def test_after_pubrec_only_pubcomp_is_due_and_another_pubrec_is_a_repetition():
    session = sent(2)
    session.pubrec(1)
    refuse_mistaken(session, Pubcomp(1))
    refuse_mistaken(session, Pubrec(1))
    with pytest.raises(MalformedPacket):
        refuse_mistaken(session, Puback(1))
