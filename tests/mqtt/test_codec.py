from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedPacket
from bridge.mqtt import reason
from bridge.mqtt.codec import check_flags, decode, encode
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.packet import Suback
from bridge.mqtt.parts import FLAGS
from tests.mqtt.strategies import versioned
from tests.mqtt.vectors import BYTES, HOSTILE


@pytest.mark.parametrize(("version", "data", "packet"), BYTES)
def test_bytes_read_as_the_packet(version, data, packet):
    assert decode(data, version) == (packet, len(data))


@pytest.mark.parametrize(("version", "data", "packet"), BYTES)
def test_the_packet_writes_as_the_bytes(version, data, packet):
    assert encode(packet, version) == data


@pytest.mark.parametrize(("version", "data", "packet"), BYTES)
def test_every_proper_prefix_asks_for_more(version, data, packet):
    assert all(decode(data[:cut], version) is None for cut in range(len(data)))


@pytest.mark.parametrize(("version", "data", "packet"), BYTES)
def test_a_body_cut_short_never_reads_as_the_packet(version, data, packet):
    """The length says less than what is there: nothing may be read from behind it."""
    if data[1] >= 0x80:
        return
    for length in range(data[1]):
        cut = bytes((data[0], length)) + data[2:]
        with suppress(MalformedPacket):
            assert decode(cut, version) != (packet, len(data))


@pytest.mark.parametrize(
    ("version", "spelled", "code"), [row[1:] for row in HOSTILE], ids=[r[0] for r in HOSTILE]
)
def test_hostile_input_is_malformed_with_its_reason(version, spelled, code):
    with pytest.raises(MalformedPacket) as caught:
        decode(bytes.fromhex(spelled), version)
    assert caught.value.reason == code


@given(versioned)
def test_what_is_written_reads_back(pair):
    version, packet = pair
    data = encode(packet, version)
    assert decode(data + b"\0\0", version) == (packet, len(data))


@given(st.sampled_from([0, 3, 4, 5]), st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_more_or_malformed_and_nothing_else(version, data):
    with suppress(MalformedPacket):
        decode(data, version)


@given(versioned, st.data())
def test_one_changed_byte_is_a_packet_or_more_or_malformed_and_nothing_else(pair, data):
    version, packet = pair
    spoiled = bytearray(encode(packet, version))
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MalformedPacket):
        decode(bytes(spoiled), version)


@pytest.mark.parametrize("spelled", ["6a 02 0001", "8a 06 0001 0001 61 00", "aa 05 0001 0001 61"])
def test_mqtt_3_1_may_repeat_with_dup(spelled):
    assert decode(bytes.fromhex(spelled), 3) is not None


def test_3_1_1_says_0x80_for_every_refusal_in_suback():
    assert encode(Suback(1, (1, 0x87, 0x97)), 4).hex() == "90050001018080"


@pytest.mark.parametrize("version", [3, 4, 5])
def test_every_first_byte_but_the_legal_ones_is_malformed(version):
    """All 256 of them: packet types, and the flags that each may have."""
    legal = {packet << 4 | FLAGS[packet] for packet in P if packet not in (P.WILL, P.PUBLISH, P.AUTH)}
    legal |= {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D}
    legal |= {0xF0} if version == 5 else set()
    legal |= {0x6A, 0x8A, 0xAA} if version == 3 else set()
    taken = set()
    for first in range(256):
        with suppress(MalformedPacket):
            check_flags(first, version)
            taken.add(first)
    assert taken == legal


# What may stand where the reason code stands: (packet, what is before it, what is after it, known codes).
REASONED = [
    (P.CONNACK, "00", "00", reason.CONNACK_REASONS),
    (P.PUBACK, "0001", "", reason.PUBACK_REASONS),
    (P.PUBREC, "0001", "", reason.PUBACK_REASONS),
    (P.PUBREL, "0001", "", reason.PUBREL_REASONS),
    (P.PUBCOMP, "0001", "", reason.PUBREL_REASONS),
    (P.SUBACK, "000100", "", reason.SUBACK_REASONS),
    (P.UNSUBACK, "000100", "", reason.UNSUBACK_REASONS),
    (P.DISCONNECT, "", "", reason.DISCONNECT_REASONS),
    (P.AUTH, "", "", reason.AUTH_REASONS),
]


@pytest.mark.parametrize(("packet", "before", "after", "known"), REASONED)
def test_every_reason_code_of_a_packet_reads_back_and_no_other_is_taken(packet, before, after, known):
    for code in range(256):
        body = bytes.fromhex(before) + bytes((code,)) + bytes.fromhex(after)
        data = bytes((packet << 4 | FLAGS[packet], len(body))) + body
        if code not in known:
            with pytest.raises(MalformedPacket) as caught:
                decode(data, 5)
            assert caught.value.reason == 0x82
            continue
        value, end = decode(data, 5)
        assert end == len(data)
        assert getattr(value, "reasons", None) == (code,) or value.reason == code
        assert decode(encode(value, 5), 5)[0] == value
