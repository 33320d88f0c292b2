from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt import property as properties_
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.property import TABLE, USER_PROPERTIES_MAX, Kind, application_properties
from bridge.mqtt.wire import variable_byte_integer
from tests.mqtt.strategies import properties_of

# One legal value of each property, as bytes and as the field's value.
SAMPLES = {
    Kind.FLAG: ("01", 1),
    Kind.U16: ("0102", 258),
    Kind.U32: ("01020304", 16_909_060),
    Kind.LENGTH: ("8001", 128),
    Kind.STRING: ("000161", "a"),
    Kind.BINARY: ("0002ff00", b"\xff\0"),
    Kind.PAIR: ("0001610000", ("a", "")),
}
MANY = {"user_properties", "subscription_identifiers"}
EVERY = [(number, packet) for number in TABLE for packet in P]


def spell(number: int) -> bytes:
    return bytes((number,)) + bytes.fromhex(SAMPLES[TABLE[number].kind][0])


def decode(packet: P, block: bytes) -> Properties | None:
    data = variable_byte_integer(len(block)) + block
    found, after = properties_.decode(packet, data, 0, len(data))
    assert after == len(data)
    return found


def test_the_table_knows_every_field_once():
    assert sorted(row.field for row in TABLE.values()) == sorted(Properties.__struct_fields__)


@pytest.mark.parametrize(("number", "packet"), EVERY)
def test_a_property_is_read_and_written_where_it_belongs_and_malformed_elsewhere(number, packet):
    row = TABLE[number]
    block = spell(number)
    if row.field == "authentication_data":
        block = spell(0x15) + block  # never without its method
    if packet not in row.packets:
        with pytest.raises(MalformedPacket) as caught:
            decode(packet, block)
        assert caught.value.reason == 0x81
        return
    value = SAMPLES[row.kind][1]
    found = decode(packet, block)
    assert getattr(found, row.field) == ((value,) if row.field in MANY else value)
    assert properties_.encode(packet, found)[1:] == block


@pytest.mark.parametrize(("number", "packet"), [(n, p) for n, p in EVERY if p in TABLE[n].packets])
def test_a_property_stands_twice_only_where_it_may_repeat(number, packet):
    row = TABLE[number]
    block = spell(number) * 2
    if row.field == "authentication_data":
        block = spell(0x15) + block
    if packet in row.repeats:
        assert len(getattr(decode(packet, block), row.field)) == 2
    else:
        with pytest.raises(MalformedPacket, match="twice") as caught:
            decode(packet, block)
        assert caught.value.reason == 0x82


@pytest.mark.parametrize("packet", [packet for packet in P if packet not in (P.PINGREQ, P.PINGRESP)])
@given(data=st.data())
def test_properties_read_back(packet, data):
    properties = data.draw(properties_of(packet))
    block = properties_.encode(packet, properties)
    expected = None if properties == Properties() else properties
    assert properties_.decode(packet, block, 0, len(block)) == (expected, len(block))


@given(st.sampled_from(P), st.binary(max_size=40))
def test_any_bytes_are_properties_or_malformed_and_nothing_else(packet, block):
    with suppress(MalformedPacket):
        decode(packet, block)


def test_user_properties_are_bounded():
    one = bytes.fromhex("2600000000")
    assert len(decode(P.PUBLISH, one * USER_PROPERTIES_MAX).user_properties) == USER_PROPERTIES_MAX
    with pytest.raises(MalformedPacket) as caught:
        decode(P.PUBLISH, one * (USER_PROPERTIES_MAX + 1))
    assert caught.value.reason == 0x97


def test_what_a_packet_may_not_carry_is_left_out():
    assert (
        properties_.encode(P.PUBACK, Properties(content_type="text/plain", reason_string="n")).hex()
        == "041f00016e"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        Properties(message_expiry_interval_s=2**32),
        Properties(content_type="x" * 65_536),
        Properties(content_type="\0"),
    ],
)
def test_what_the_wire_cannot_hold_is_a_value_error(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        properties_.encode(P.PUBLISH, wrong)


def test_only_what_belongs_to_the_application_travels_on():
    mixed = Properties(
        content_type="a", user_properties=(("k", "v"),), topic_alias=3, subscription_identifiers=(1,)
    )
    assert application_properties(mixed) == Properties(content_type="a", user_properties=(("k", "v"),))
    assert application_properties(Properties(topic_alias=3)) is None
    assert application_properties(None) is None
