import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedPacket
from bridge.mqtt import wire

# Table 1-1 of MQTT 5, both ends of every row.
EDGES = [
    ("00", 0),
    ("7f", 127),
    ("8001", 128),
    ("ff7f", 16_383),
    ("808001", 16_384),
    ("ffff7f", 2_097_151),
    ("80808001", 2_097_152),
    ("ffffff7f", 268_435_455),
]


def read(data: bytes) -> tuple[int, int] | None:
    return wire.read_variable_byte_integer(data, 0, len(data))


@pytest.mark.parametrize(("spelled", "value"), EDGES)
def test_a_variable_byte_integer_reads_and_writes(spelled, value):
    data = bytes.fromhex(spelled)
    assert read(data) == (value, len(data))
    assert wire.variable_byte_integer(value) == data


@pytest.mark.parametrize(("spelled", "value"), EDGES)
def test_every_proper_prefix_asks_for_more(spelled, value):
    data = bytes.fromhex(spelled)
    assert all(read(data[:cut]) is None for cut in range(len(data)))


@pytest.mark.parametrize("spelled", ["ffffffff", "80808080", "ffffffff7f"])
def test_a_fifth_byte_is_malformed_as_soon_as_it_is_announced(spelled):
    with pytest.raises(MalformedPacket, match="fifth"):
        read(bytes.fromhex(spelled))


@pytest.mark.parametrize("spelled", ["8000", "ff00", "80808000"])
def test_a_longer_spelling_than_needed_is_malformed(spelled):
    with pytest.raises(MalformedPacket, match="longer"):
        read(bytes.fromhex(spelled))


@given(st.integers(0, wire.VARIABLE_BYTE_INTEGER_MAX), st.binary(max_size=3))
def test_what_is_written_reads_back_and_leaves_the_rest(value, rest):
    data = wire.variable_byte_integer(value)
    assert read(data + rest) == (value, len(data))


@pytest.mark.parametrize("value", [-1, wire.VARIABLE_BYTE_INTEGER_MAX + 1])
def test_what_four_bytes_cannot_hold_is_not_written(value):
    with pytest.raises(ValueError, match="does not fit"):
        wire.variable_byte_integer(value)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_a_string_reads_back(text):
    data = wire.write_string(text)
    assert wire.read_string(data, 0, len(data)) == (text, len(data))


def test_a_byte_order_mark_stays():
    assert wire.read_string(b"\0\x03\xef\xbb\xbf", 0, 5) == ("\ufeff", 5)


@pytest.mark.parametrize("raw", [b"\0", b"a\0b", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_a_bad_string_is_malformed(raw):
    data = wire.write_binary(raw)
    with pytest.raises(MalformedPacket):
        wire.read_string(data, 0, len(data))


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 65_536])
def test_a_bad_string_is_not_written(text):
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one of them
        wire.write_string(text)


@pytest.mark.parametrize(
    ("read_it", "data"),
    [
        (wire.read_u16, b"\1"),
        (wire.read_u32, b"\1\2\3"),
        (wire.read_binary, b"\0"),
        (wire.read_binary, b"\0\2x"),
        (wire.read_length, b"\x80"),
        (wire.read_length, b""),
    ],
)
def test_a_value_past_its_packet_is_malformed(read_it, data):
    with pytest.raises(MalformedPacket, match="past its packet"):
        read_it(data + b"more of the next packet", 0, len(data))
