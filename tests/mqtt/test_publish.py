import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Properties
from bridge.mqtt import publish
from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel
from bridge.mqtt.publish import encode_pubacks, imprint
from tests.mqtt.strategies import publishes


def test_3_1_1_loses_the_reason_of_a_puback():
    assert encode(Puback(1, 0x87, Properties(reason_string="no")), 4).hex() == "40020001"


@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
@pytest.mark.parametrize("version", [4, 5])
def test_many_answers_are_the_single_ones_in_a_row(kind, version):
    ids = [1, 7, 65_535]
    assert encode_pubacks(kind, ids) == b"".join(encode(kind(packet_id), version) for packet_id in ids)


@pytest.mark.parametrize("version", [4, 5])
@given(data=st.data())
def test_an_imprint_is_the_publish_it_stands_for(version, data):
    packet = data.draw(publishes(version))
    made = imprint(packet.topic, packet.payload, packet.properties, version)
    assert made.bytes(packet.qos, packet.retain, packet.dup, packet.packet_id) == encode(packet, version)


def test_the_topic_caches_are_bounded(monkeypatch):
    monkeypatch.setattr(publish, "TOPICS_MAX", 50)
    for nth in range(200):
        packet = Publish(f"invented/{nth}", b"")
        assert decode(encode(packet, 4), 4) == (packet, 14 + len(str(nth)) - 1)
        assert len(publish.TOPICS) <= 16_384
    publish.TOPICS.clear()
    for nth in range(200):
        decode(encode(Publish(f"invented/{nth}", b""), 4), 4)
        assert len(publish.TOPICS) <= 50


def test_a_long_topic_is_not_cached():
    packet = Publish("x" * 256, b"")
    assert decode(encode(packet, 4), 4) is not None
    assert b"x" * 256 not in publish.TOPICS
