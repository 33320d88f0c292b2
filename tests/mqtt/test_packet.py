import gc

from bridge.mqtt.packet import PacketType, Puback, Publish
from tests.mqtt.vectors import VECTORS


def test_each_of_the_fifteen_packets_has_a_vector():
    assert {packet.TYPE for _, _, packet in VECTORS} == set(PacketType) - {PacketType.WILL}


def test_packets_do_not_burden_the_garbage_collector():
    assert not gc.is_tracked(Publish("a", b"x"))
    assert not gc.is_tracked(Puback(1))
