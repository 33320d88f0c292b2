import gc

import pytest

from bridge.mqtt.packet import PacketType, Puback, Publish
from bridge.mqtt.property import TABLE
from tests.mqtt.vectors import HOSTILE, VECTORS

PACKETS = [packet for packet in PacketType if packet is not PacketType.WILL]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_each_packet_of_a_version_has_a_vector(version):
    wanted = {packet for packet in PACKETS if packet is not PacketType.AUTH or version == 5}
    assert {packet.TYPE for spoken, _, packet in VECTORS if spoken == version} == wanted


@pytest.mark.parametrize("packet", [packet for packet in PacketType if packet.name[:4] != "PING"])
def test_each_property_that_a_packet_may_carry_is_in_one_of_its_vectors(packet):
    carried = set()
    for _, _, value in VECTORS:
        if packet is PacketType.WILL:
            value = getattr(value, "will", None)
        elif value.TYPE is not packet:
            continue
        properties = getattr(value, "properties", None)
        if properties is not None:
            carried |= {
                name for name in properties.__struct_fields__ if getattr(properties, name) not in (None, ())
            }
    assert carried == {row.field for row in TABLE.values() if packet in row.packets}


@pytest.mark.parametrize("packet", PACKETS)
def test_each_packet_has_malformed_vectors_of_its_own(packet):
    assert [row for row in HOSTILE if int(row[2][:2], 16) >> 4 == packet]


def test_packets_do_not_burden_the_garbage_collector():
    assert not gc.is_tracked(Publish("a", b"x"))
    assert not gc.is_tracked(Puback(1))
