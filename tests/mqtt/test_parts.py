import pytest

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt import parts
from bridge.mqtt.packet import PacketType as P


@pytest.mark.parametrize(
    ("reason", "properties", "spelled"),
    [
        (0, None, ""),
        (0x87, None, "87"),
        (0, Properties(reason_string="n"), "00 04 1f00016e"),
        (0x87, Properties(reason_string="n"), "87 04 1f00016e"),
    ],
)
def test_reason_and_properties_take_the_shortest_form(reason, properties, spelled):
    assert parts.reason_and_properties(P.PUBACK, reason, properties) == bytes.fromhex(spelled)


def test_mqtt_3_has_no_properties():
    assert parts.read_properties(P.PUBLISH, b"\x02\x01\x01", 0, 3, 4) == (None, 0)


@pytest.mark.parametrize(("data", "reason"), [(b"", 0x81), (b"\x42", 0x82)])
def test_a_reason_is_there_and_known(data, reason):
    with pytest.raises(MalformedPacket) as caught:
        parts.read_reason(P.PUBACK, frozenset({0}), data, 0, len(data))
    assert caught.value.reason == reason


def test_packets_with_fixed_flags_are_the_three_the_specification_names():
    assert {packet for packet, flags in parts.FLAGS.items() if flags} == {
        P.PUBREL,
        P.SUBSCRIBE,
        P.UNSUBSCRIBE,
    }
