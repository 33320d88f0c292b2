from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt.codec import encode, encode_pubacks
from bridge.mqtt.framer import HELD_BYTES_MAX, Framer
from bridge.mqtt.packet import PINGREQ, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.mqtt.strategies import streams
from tests.mqtt.vectors import BYTES, HOSTILE


def feed(framer: Framer, data: bytes, cuts: list[int]) -> tuple[list[Packet], int | None]:
    """All packets and the reason of the fault, with the stream cut in these places."""
    packets: list[Packet] = []
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for begin, end in pairwise(places):
        more, fault = framer.receive(data[begin:end])
        packets += more
        if fault is not None:
            return packets, fault.reason
    return packets, None


cuts = st.lists(st.integers(0, 10_000), max_size=8)


@given(streams, cuts)
def test_slicing_does_not_matter(stream, cuts):
    version, packets = stream
    data = b"".join(encode(packet, version) for packet in packets)
    assert feed(Framer(version), data, cuts) == (packets, None)


@given(streams)
def test_the_second_time_goes_the_fast_way_and_reads_the_same(stream):
    version, packets = stream
    data = b"".join(encode(packet, version) for packet in packets)
    framer = Framer(version)
    assert framer.receive(data) == framer.receive(data) == (packets, None)
    assert framer.acknowledgeable == 2 * sum(type(p) is Publish and p.qos > 0 for p in packets)


@given(st.sampled_from([3, 4, 5]), st.binary(max_size=80), cuts)
def test_any_bytes_in_any_slicing_are_packets_or_more_or_malformed_and_nothing_else(version, data, cuts):
    assert feed(Framer(version), data, cuts) == feed(Framer(version), data, [])


@given(streams, st.data(), cuts)
def test_a_spoiled_stream_reads_the_same_however_sliced(stream, draw, cuts):
    version, packets = stream
    data = bytearray(b"".join(encode(packet, version) for packet in packets) + b"\xc0\0")
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    assert feed(Framer(version), bytes(data), cuts) == feed(Framer(version), bytes(data), [])


@given(streams)
def test_the_careful_way_and_the_fast_way_agree(stream):
    version, packets = stream
    data = b"".join(encode(packet, version) for packet in packets)
    careful = Framer(version)
    careful.fast = False
    assert careful.receive(data) == Framer(version).receive(data)


@pytest.mark.parametrize(("version", "data", "packet"), BYTES)
def test_one_byte_at_a_time(version, data, packet):
    assert feed(Framer(version), data * 2, list(range(len(data) * 2))) == ([packet, packet], None)


@pytest.mark.parametrize(
    ("version", "spelled", "reason"), [row[1:] for row in HOSTILE], ids=[r[0] for r in HOSTILE]
)
def test_what_was_whole_before_the_fault_is_kept(version, spelled, reason):
    framer = Framer(version)
    framer.fast = True
    packets, fault = framer.receive(b"\xc0\0" + bytes.fromhex(spelled))
    assert packets == [PINGREQ]
    assert fault is not None
    assert fault.reason == reason


# ---- the fast path, at its edges: (version, bytes, what comes out) after the topic "t" is known ----
TOPIC = bytes.fromhex("0001 74")
EDGES = [
    (4, "30 03 0001 74", Publish("t", b"")),
    (4, "30 04 0001 74 78", Publish("t", b"x")),
    (4, "32 05 0001 74 0001", Publish("t", b"", 1, packet_id=1)),
    (4, "32 06 0001 74 0001 78", Publish("t", b"x", 1, packet_id=1)),
    (5, "30 06 0001 74 00 7879", Publish("t", b"xy")),
    (5, "32 06 0001 74 0001 00", Publish("t", b"", 1, packet_id=1)),
    (4, "32 06 0001 74 0000 78", 0x82),
    (4, "32 07 0005 74 7474 74 74", 0x81),
    (4, "30 06 0007 74 747474", 0x81),
    (5, "32 06 0005 74 74 74 74", 0x81),
    (5, "30 06 0001 74 09 7879", 0x81),
    (5, "30 06 0001 74 02 0101", Publish("t", b"", properties=Properties(payload_format_indicator=1))),
    (4, "30 8600 0001 74 787878", 0x81),
    (4, "40 02 0000", 0x82),
    (4, "62 02 0007", Pubrel(7)),
    (4, "60 02 0007", 0x81),
]


@pytest.mark.parametrize(("version", "spelled", "expected"), EDGES)
def test_the_edges_of_the_fast_path(version, spelled, expected):
    framer = Framer(version)
    framer.receive(encode(Publish("t", b"learnt"), version))
    # More bytes follow, so that reading past the end of the packet would go unnoticed.
    packets, fault = framer.receive(bytes.fromhex(spelled) + bytes.fromhex("0001 74 00 78") * 3)
    if isinstance(expected, int):
        assert fault is not None
        assert (packets, fault.reason) == ([], expected)
    else:
        assert packets[0] == expected


@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
def test_many_answers_in_one_read(kind):
    ids = list(range(1, 500))
    assert Framer(4).receive(encode_pubacks(kind, ids)) == ([kind(packet_id) for packet_id in ids], None)


# ---- bounds ----


def test_a_length_above_the_limit_is_refused_at_the_header():
    framer = Framer(4, packet_bytes_max=100)
    _, fault = framer.receive(bytes.fromhex("30 ffffff7f"))
    assert fault is not None
    assert fault.reason == 0x95


@pytest.mark.parametrize(("size", "refused"), [(100, False), (101, True)])
def test_the_limit_counts_the_whole_packet(size, refused):
    packet = encode(Publish("t", b"x" * (size - 5)), 4)
    assert len(packet) == size
    _, fault = Framer(4, packet_bytes_max=100).receive(packet)
    assert (fault is not None) is refused


def test_only_admitted_packets_come_and_others_are_refused_at_their_first_byte():
    framer = Framer(4)
    framer.admit = frozenset({1})
    framer.fast = False
    _, fault = framer.receive(b"\x30")
    assert fault is not None
    assert fault.reason == 0x82


def test_while_paused_bytes_wait_and_are_bounded():
    framer = Framer(4)
    framer.paused = True
    assert framer.receive(b"\xc0\0") == ([], None)
    framer.paused = False
    assert framer.receive(b"") == ([PINGREQ], None)
    framer.paused = True
    _, fault = framer.receive(bytes(HELD_BYTES_MAX + 1))
    assert fault is not None
    assert fault.reason == 0x97


def test_an_examiner_may_pause_replace_and_refuse():
    def examine(packet: Packet) -> Packet:
        if type(packet) is Pubrel:
            raise MalformedPacket("no", 0x82)
        framer.paused = True
        return Publish("other", b"")

    framer = Framer(5, examine=examine)
    framer.fast = False
    assert framer.receive(bytes.fromhex("c000 6202 0001")) == ([Publish("other", b"")], None)
    framer.paused = False
    packets, fault = framer.receive(b"")
    assert packets == []
    assert fault is not None
