import gc
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Properties
from bridge.mqtt.codec import decode, encode
from bridge.mqtt.connection import CLIENT_MAY_SEND, CONNECT_WAIT_S, Connection, State
from bridge.mqtt.packet import (
    PINGREQ,
    PINGRESP,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
    Will,
)
from tests.mqtt.strategies import versioned
from tests.mqtt.vectors import BYTES, HOSTILE, TOO_DEEP


def opened(version: int = 4, properties: Properties | None = None, **granted) -> Connection:
    """A connection whose client was let in at second 0, with a keep alive of 10 s."""
    connection = Connection(0)
    packets, fault = connection.receive(encode(Connect("c", version, properties=properties), version), 0)
    assert (len(packets), fault) == (1, None)
    connection.accept(0, 10, **granted)
    return connection


def reason_of(fault):
    return None if fault is None else fault.reason


# ---- the table ----

SAMPLE = {(version, packet.TYPE): data for version, data, packet in BYTES}
SAMPLE[5, PacketType.PUBLISH] = bytes.fromhex("30 04 0001 61 00")
SAMPLE[5, PacketType.DISCONNECT] = bytes.fromhex("e0 00")  # one that a client may say
ROWS = [(version, packet) for version in (4, 5) for packet in PacketType if (version, packet) in SAMPLE]


@pytest.mark.parametrize(("version", "packet"), ROWS)
def test_when_new_only_connect_may_come(version, packet):
    connection = Connection(0)
    packets, fault = connection.receive(SAMPLE[version, packet], 0)
    if packet in CLIENT_MAY_SEND[State.NEW]:
        assert (len(packets), fault, connection.state) == (1, None, State.PENDING)
        assert connection.version == version
    else:
        assert (packets, reason_of(fault), connection.state) == ([], 0x82, State.CLOSED)
        assert connection.goodbye(0x82) == b""


@pytest.mark.parametrize(("version", "packet"), ROWS)
def test_when_open_the_table_decides(version, packet):
    connection = opened(version)
    packets, fault = connection.receive(SAMPLE[version, packet], 0)
    after = CLIENT_MAY_SEND[State.OPEN].get(packet)
    if after is not None:
        assert (len(packets), fault, connection.state) == (1, None, after)
    else:
        assert (packets, reason_of(fault), connection.state) == ([], 0x82, State.CLOSED)
        assert connection.goodbye(0x82) == (b"\xe0\x01\x82" if version == 5 else b"")


@pytest.mark.parametrize(("version", "packet"), ROWS)
def test_while_pending_everything_waits(version, packet):
    connection = Connection(0)
    connection.receive(encode(Connect("c", version), version), 0)
    assert connection.receive(SAMPLE[version, packet], 0) == ([], None)
    assert connection.state is State.PENDING


@pytest.mark.parametrize(("version", "packet"), ROWS)
def test_when_closed_everything_is_ignored(version, packet):
    connection = opened(version)
    connection.close()
    assert connection.receive(SAMPLE[version, packet], 0) == ([], None)


@pytest.mark.parametrize("packet_type", range(16))
@pytest.mark.parametrize("is_open", [False, True])
def test_a_packet_out_of_place_is_refused_at_its_first_byte(packet_type, is_open):
    connection = opened(5) if is_open else Connection(0)
    flags = 2 if packet_type in (6, 8, 10) else 0
    _, fault = connection.receive(bytes((packet_type << 4 | flags,)), 0)
    row = CLIENT_MAY_SEND[State.OPEN if is_open else State.NEW]
    if packet_type == 0:
        assert reason_of(fault) == 0x81
    else:
        assert reason_of(fault) == (None if packet_type in row else 0x82)


# ---- CONNECT and what follows it ----


def test_what_follows_connect_waits_for_accept():
    connection = Connection(0)
    early = encode(Connect("c"), 4) + encode(Publish("t", b"x"), 4) + b"\xc0"
    packets, fault = connection.receive(early, 0)
    assert (packets, fault) == ([Connect("c")], None)
    assert connection.receive(b"\0", 0) == ([], None)
    connection.accept(1, 0)
    assert connection.resume(1) == ([Publish("t", b"x"), PINGREQ], None)


def test_what_follows_a_refused_connect_is_never_read():
    connection = Connection(0)
    connection.receive(encode(Connect("c"), 4) + encode(Publish("t", b"x"), 4), 0)
    assert connection.goodbye(0x87).hex() == "20020005"
    assert connection.resume(0) == ([], None)


def test_what_waits_is_bounded():
    connection = Connection(0)
    connection.receive(encode(Connect("c", 5), 5), 0)
    for _ in range(5):
        _, fault = connection.receive(bytes(65_536), 0)
    assert reason_of(fault) == 0x97
    assert connection.goodbye(0x97).hex() == "2003009700"


def test_before_connect_64_kib_is_the_most_and_afterwards_what_was_given():
    _, fault = Connection(0).receive(bytes.fromhex("10 ffff7f"), 0)
    assert reason_of(fault) == 0x95
    connection = opened(5)
    assert connection.receive(bytes.fromhex("30 80803f"), 0) == ([], None)
    _, fault = opened(5).receive(bytes.fromhex("30 80804f"), 0)
    assert reason_of(fault) == 0x95


def test_no_client_identifier_and_a_session_to_keep_is_refused_in_3_1_1():
    connection = Connection(0)
    _, fault = connection.receive(encode(Connect("", 4, False), 4), 0)
    assert reason_of(fault) == 0x85
    assert connection.goodbye(0x85).hex() == "20020002"
    assert reason_of(Connection(0).receive(encode(Connect("", 5, False), 5), 0)[1]) is None


@pytest.mark.parametrize(
    ("spelled", "answer"),
    [
        ("10 0c 0004 48545450 04 02 0000 0000", ""),
        ("10 0c 0004 4d515454 06 02 0000 0000", "20 03 00 84 00"),
        ("10 0c 0004 4d515454 02 02 0000 0000", "20 02 00 01"),
        ("10 0c 0004 4d515454 05 03 0000 0000", "20 03 00 81 00"),
        ("10 0c 0004 4d515454 04 03 0000 0000", ""),
        ("10 01 00", ""),
    ],
)
def test_a_bad_connect_is_answered_as_well_as_its_version_can(spelled, answer):
    connection = Connection(0)
    packets, fault = connection.receive(bytes.fromhex(spelled), 0)
    assert packets == []
    assert connection.goodbye(fault.reason) == bytes.fromhex(answer)


@pytest.mark.parametrize(
    ("version", "spelled", "reason"),
    [row[1:] for row in HOSTILE + TOO_DEEP],
    ids=[row[0] for row in HOSTILE + TOO_DEEP],
)
def test_hostile_input_ends_an_open_connection(version, spelled, reason):
    connection = opened(version) if version else Connection(0)
    packets, fault = connection.receive(bytes.fromhex(spelled), 0)
    assert packets == []
    # A packet that only a server may send is refused for that, before its faults are seen.
    assert reason_of(fault) in (reason, 0x82, 0x95)
    assert connection.state is State.CLOSED
    assert connection.receive(b"\xc0\0", 0) == ([], None)


def test_given_a_thousand_malformed_connects_when_gone_then_nothing_is_left_to_collect():
    def one() -> None:
        connection = Connection(0)
        _, fault = connection.receive(bytes.fromhex("10 0e 0004 4d515454 05 03 0000 0000") + bytes(2), 0)
        connection.goodbye(fault.reason)
        left = opened(5)
        left.receive(b"\xe0\0\xc0", 0)

    one()
    gc.collect()
    gc.disable()
    try:
        for _ in range(1_000):
            one()
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_what_was_legal_before_the_fault_is_returned():
    connection = opened()
    packets, fault = connection.receive(encode(Publish("t", b"x"), 4) + b"\x36\0", 0)
    assert packets == [Publish("t", b"x")]
    assert reason_of(fault) == 0x81


@given(versioned, st.binary(max_size=50), st.lists(st.integers(0, 90), max_size=4))
def test_any_bytes_are_packets_or_a_fault_and_nothing_else(pair, data, cuts):
    version, packet = pair
    stream = encode(packet, version) + data
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    whole, sliced = opened(version), opened(version)
    parts = [sliced.receive(stream[a:b], 0) for a, b in pairwise(places)]
    packets, fault = whole.receive(stream, 0)
    assert [packet for part, _ in parts for packet in part] == packets
    assert next((reason_of(each) for _, each in parts if each), None) == reason_of(fault)


def test_disconnect_ends_it_and_what_follows_is_ignored():
    connection = opened()
    assert connection.receive(b"\xe0\0\xc0\0", 0) == ([Disconnect()], None)
    assert connection.state is State.CLOSED
    assert connection.deadline() is None


@pytest.mark.parametrize(
    ("properties", "session_expires", "reason"),
    [
        (Properties(session_expiry_interval_s=9), True, None),
        (Properties(session_expiry_interval_s=0), False, None),
        (Properties(session_expiry_interval_s=9), False, 0x82),
        (Properties(server_reference="other"), True, 0x82),
    ],
)
def test_what_a_client_may_say_in_disconnect(properties, session_expires, reason):
    connection = opened(5, session_expires=session_expires)
    _, fault = connection.receive(encode(Disconnect(0, properties), 5), 0)
    assert reason_of(fault) == reason


# ---- topic aliases and subscription identifiers ----


def alias(number: int, topic: str = "", payload: bytes = b"x") -> bytes:
    return encode(Publish(topic, payload, properties=Properties(topic_alias=number)), 5)


def test_an_alias_stands_for_the_topic_it_was_last_set_to():
    connection = opened(5, topic_alias_maximum=2)
    stream = alias(1, "a") + alias(2, "b") + alias(1) + alias(1, "c") + alias(1) + alias(2)
    packets, fault = connection.receive(stream, 0)
    assert fault is None
    assert [packet.topic for packet in packets] == ["a", "b", "a", "c", "c", "b"]
    assert all(packet.properties is None for packet in packets)


def test_an_alias_keeps_the_properties_of_the_application():
    connection = opened(5, topic_alias_maximum=2)
    sent = Publish("a", b"x", 1, packet_id=3, properties=Properties(content_type="t", topic_alias=2))
    packets, _ = connection.receive(encode(sent, 5), 0)
    assert packets == [Publish("a", b"x", 1, packet_id=3, properties=Properties(content_type="t"))]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (alias(3, "a"), 0x94),
        (alias(65_535, "a"), 0x94),
        (alias(1), 0x82),
        (bytes.fromhex("30 06 0000 03 230000"), 0x94),
        (encode(Publish("a", b"", properties=Properties(subscription_identifiers=(1,))), 5), 0x82),
    ],
)
def test_a_bad_alias_or_a_subscription_identifier_is_refused(stream, reason):
    _, fault = opened(5, topic_alias_maximum=2).receive(stream, 0)
    assert reason_of(fault) == reason


def test_without_an_offer_there_are_no_aliases():
    assert reason_of(opened(5).receive(alias(1, "a"), 0)[1]) == 0x94


# ---- Receive Maximum ----


def publishes(*ids: int, qos: int = 1, version: int = 5) -> bytes:
    return b"".join(encode(Publish("t", b"", qos, packet_id=each), version) for each in ids)


def test_one_publish_too_many_is_a_fault_and_those_before_it_count():
    connection = opened(5, receive_maximum=2)
    packets, fault = connection.receive(publishes(1) + b"\xc0\0" + publishes(2, 3, 4) + b"\x36\0", 0)
    assert packets == [*connection_packets(1), PINGREQ, *connection_packets(2)]
    assert reason_of(fault) == 0x93
    assert connection.state is State.CLOSED


def connection_packets(*ids: int) -> list[Publish]:
    return [Publish("t", b"", 1, packet_id=each) for each in ids]


def test_answers_make_room():
    connection = opened(5, receive_maximum=2)
    connection.receive(publishes(1, 2), 0)
    assert connection.unacknowledged == 2
    assert connection.encode_pubacks(Puback, [1]) == b"\x40\x02\0\1"
    connection.encode(Puback(2, 0x87))
    assert connection.unacknowledged == 0
    assert connection.receive(publishes(3, 4), 0)[1] is None
    assert reason_of(connection.receive(publishes(5), 0)[1]) == 0x93


def test_qos_2_is_finished_by_pubcomp_or_a_refusal():
    connection = opened(5)
    connection.receive(publishes(1, 2, qos=2), 0)
    connection.encode(Pubrec(1))
    assert connection.unacknowledged == 2
    connection.encode(Pubrec(2, 0x97))
    assert connection.unacknowledged == 1
    connection.encode_pubacks(Pubcomp, [1])
    assert connection.unacknowledged == 0


def test_a_pubcomp_for_the_connection_before_does_not_make_room():
    connection = opened(5)
    connection.encode(Pubcomp(1))
    assert connection.unacknowledged == 0
    connection.receive(publishes(1), 0)
    assert connection.unacknowledged == 1


def test_mqtt_3_has_no_receive_maximum_and_pubrec_finishes():
    connection = opened(4, receive_maximum=2)
    _, fault = connection.receive(publishes(1, 2, 3, 3, qos=2, version=4), 0)
    assert fault is None
    connection.encode_pubacks(Pubrec, [1, 2, 3, 3])
    connection.encode_pubacks(Pubcomp, [1, 2, 3])
    assert connection.unacknowledged == 0


# ---- keep alive ----


def test_without_connect_the_end_comes_however_slowly_bytes_drip():
    connection = Connection(100)
    for second in range(9):
        connection.receive(b"\x10\x0d\0\4MQTT\4"[second : second + 1], 100 + second)
    assert connection.deadline() == 100 + CONNECT_WAIT_S
    assert not connection.expired(109.9)
    assert connection.expired(110)


def test_one_and_a_half_times_the_keep_alive():
    connection = opened()
    assert connection.deadline() == 15
    connection.receive(b"\xc0\0", 12)
    assert not connection.expired(26.9)
    assert connection.expired(27)


def test_a_byte_at_a_time_does_not_keep_alive_but_a_large_message_on_its_way_does():
    connection = opened()
    data = encode(Publish("t", bytes(5_000)), 4)
    connection.receive(data[:1], 10)
    assert connection.deadline() == 15
    connection.receive(data[1:1_461], 14)
    assert connection.deadline() == 29


def test_a_keep_alive_of_0_never_ends():
    connection = Connection(0)
    connection.receive(encode(Connect("c"), 4), 0)
    connection.accept(0, 0)
    connection.receive(b"\xc0\0", 1)
    assert connection.deadline() is None
    assert not connection.expired(1e9)


# ---- what goes out ----


def test_what_the_client_granted_is_known():
    properties = Properties(receive_maximum=7, maximum_packet_size=99, topic_alias_maximum=3)
    connection = opened(5, properties)
    assert (connection.receive_maximum, connection.packet_bytes_max) == (7, 99)
    assert connection.topic_alias_maximum == 3
    assert (opened().receive_maximum, opened().packet_bytes_max) == (65_535, None)


@pytest.mark.parametrize("levels", [20, 21])
def test_how_many_levels_are_too_many_is_a_setting_also_for_topics_known_from_others(levels):
    topic = "/".join("x" * levels)
    deep, flat = Connection(0), Connection(0, levels_max=20)
    for connection, fits in ((deep, True), (flat, levels <= 20), (deep, True), (flat, levels <= 20)):
        if connection.state is State.NEW:
            connection.receive(encode(Connect("c"), 4), 0)
            connection.accept(0, 10)
        packets, fault = connection.receive(encode(Publish(topic, b""), 4), 0)
        assert bool(packets) is fits
        if not fits:
            assert reason_of(fault) in (0x90, None)
    will = Connect("c", will=Will(topic, b""))
    assert bool(Connection(0, levels_max=20).receive(encode(will, 4), 0)[0]) is (levels <= 20)


def test_topics_towards_the_client_get_aliases_as_long_as_there_are_some():
    connection = opened(5, Properties(topic_alias_maximum=2), topic_alias_maximum=10)
    assert connection.aliasing
    sent = [decode(connection.encode(Publish(topic, b"")), 5)[0] for topic in ("a", "b", "c", "a", "c", "b")]
    assert [(each.topic, each.properties and each.properties.topic_alias) for each in sent] == [
        ("a", 1), ("b", 2), ("c", None), ("", 1), ("c", None), ("", 2),
    ]  # fmt: skip
    assert not opened(5, topic_alias_maximum=10).aliasing
    assert not opened(4, topic_alias_maximum=10).aliasing


def test_an_alias_that_the_client_never_heard_of_is_not_used():
    connection = opened(5, Properties(topic_alias_maximum=2, maximum_packet_size=20), topic_alias_maximum=2)
    assert connection.encode(Publish("topic", b"x" * 30)) is None
    fits = connection.encode(Publish("topic", b"x" * 10))  # 20 bytes, and there is no room for an alias
    assert decode(fits, 5)[0].topic == "topic"
    short = [decode(connection.encode(Publish("topic", b"")), 5)[0] for _ in range(2)]
    assert [each.topic for each in short] == ["topic", ""]


def test_without_reason_strings_the_client_gets_codes_alone():
    connection = Connection(0, reason_strings=False)
    connection.receive(encode(Connect("c", 5), 5), 0)
    connection.accept(0, 10)
    said = connection.encode(Puback(1, 0x87, Properties(reason_string="not allowed")))
    assert said == encode(Puback(1, 0x87), 5)
    assert connection.goodbye(0x87, "not allowed") == encode(Disconnect(0x87), 5)


def test_a_publish_too_large_for_the_client_is_not_encoded():
    connection = opened(5, Properties(maximum_packet_size=20))
    fits = Publish("t", b"x" * 14)
    assert len(connection.encode(fits)) == 20
    assert connection.encode(Publish("t", b"x" * 15)) is None


def test_other_packets_first_lose_what_is_optional():
    connection = opened(5, Properties(maximum_packet_size=20))
    chatty = Properties(reason_string="x" * 50, user_properties=(("k", "v"),))
    assert connection.encode(Puback(1, 0x87, chatty)).hex() == "4003000187"
    assert connection.encode(Suback(1, (0,) * 30)) is None


CHATTY = Properties(reason_string="why" * 20, user_properties=(("k", "v" * 30),))


@pytest.mark.parametrize(
    "named", [Properties(reason_string="x" * 50), Properties(user_properties=(("k", "v" * 50),))]
)
@pytest.mark.parametrize(
    "packet",
    [
        Connack(False, 0),
        Puback(1, 0x87),
        Pubrec(1, 0x97),
        Pubrel(1, 0x92),
        Pubcomp(1, 0x92),
        Suback(1, (0, 0x87)),
        Unsuback(1, (0x11,)),
        Disconnect(0x8B),
    ],
)
def test_a_reason_string_or_user_property_that_does_not_fit_is_left_out_of_every_packet(packet, named):
    connection = opened(5, Properties(maximum_packet_size=30))
    data = connection.encode(msgspec.structs.replace(packet, properties=named))
    assert decode(data, 5)[0] == packet
    roomy = opened(5, Properties(maximum_packet_size=100))
    whole = msgspec.structs.replace(packet, properties=named)
    assert decode(roomy.encode(whole), 5)[0] == whole


@pytest.mark.parametrize(
    ("packet", "allowed"),
    [
        (Connack(False, 0), True),
        (Disconnect(0x8B), True),
        (Puback(1, 0x87), False),
        (Pubrec(1, 0x97), False),
        (Pubrel(1, 0x92), False),
        (Pubcomp(1, 0x92), False),
        (Suback(1, (0, 0x87)), False),
        (Unsuback(1, (0x11,)), False),
    ],
)
def test_without_request_problem_information_only_connack_and_disconnect_explain(packet, allowed):
    connection = opened(5, Properties(request_problem_information=0))
    whole = msgspec.structs.replace(packet, properties=CHATTY)
    assert decode(connection.encode(whole), 5)[0] == (whole if allowed else packet)


def test_a_client_that_wants_no_problem_information_gets_it_only_where_allowed():
    connection = opened(5, Properties(request_problem_information=0))
    why = Properties(reason_string="why")
    assert decode(connection.encode(Puback(1, 0x87, why)), 5)[0] == Puback(1, 0x87)
    assert decode(connection.encode(Connack(False, 0, why)), 5)[0] == Connack(False, 0, why)
    assert decode(connection.encode(Disconnect(0x8B, why)), 5)[0] == Disconnect(0x8B, why)
    spoken = Publish("t", b"", properties=Properties(user_properties=(("k", "v"),)))
    assert decode(connection.encode(spoken), 5)[0] == spoken


@pytest.mark.parametrize("packet", [Disconnect(0x8B), Connack(False, 0x95)])
def test_what_mqtt_3_cannot_say_is_not_encoded(packet):
    assert opened(4).encode(packet) is None


@pytest.mark.parametrize("packet", [PINGRESP, Pubrel(1), Publish("t", b"x"), Puback(3)])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_connection_writes_its_version(version, packet):
    assert opened(version).encode(packet) == encode(packet, version)


@pytest.mark.parametrize(
    ("version", "reason", "answer"),
    [
        (5, 0x8D, "e0 01 8d"),
        (5, 0x85, "e0 01 80"),  # not a reason of DISCONNECT
        (4, 0x8D, ""),
    ],
)
def test_goodbye_after_connack_is_disconnect(version, reason, answer):
    connection = opened(version)
    assert connection.goodbye(reason) == bytes.fromhex(answer)
    assert connection.state is State.CLOSED


def test_goodbye_says_why():
    assert decode(opened(5).goodbye(0x93, "too many"), 5)[0].properties.reason_string == "too many"


def test_goodbye_before_connack_is_connack():
    connection = Connection(0)
    connection.receive(encode(Connect("c", 5), 5), 0)
    assert connection.goodbye(0x8D).hex() == "2003008000"  # 0x8D is not a reason of CONNACK


@pytest.mark.parametrize("accepted", [False, True])
def test_whatever_the_reason_goodbye_says_one_that_its_packet_may_carry(accepted):
    for reason in range(0x80, 0x100):
        connection = opened(5) if accepted else Connection(0)
        if not accepted:
            connection.receive(encode(Connect("c", 5), 5), 0)
        packet, _ = decode(connection.goodbye(reason, "why"), 5)  # which takes no other reason
        assert type(packet) is (Disconnect if accepted else Connack)
        assert packet.reason in (reason, 0x80)
        assert packet.properties == Properties(reason_string="why")
