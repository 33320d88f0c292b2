import pytest

from bridge.mqtt.codec import decode, encode
from bridge.mqtt.connect import MalformedConnect
from bridge.mqtt.packet import Connack


@pytest.mark.parametrize(
    ("spelled", "version"),
    [
        ("10 0c 0004 48545450 04 02 0000 0000", 0),  # not MQTT: say nothing
        ("10 0c 0004 4d515454 06 02 0000 0000", 5),
        ("10 0c 0004 4d515454 02 02 0000 0000", 4),
        ("10 0c 0004 4d515454 84 02 0000 0000", 4),
        ("10 0c 0004 4d515454 05 03 0000 0000", 5),
        ("10 0c 0004 4d515454 04 03 0000 0000", 4),
    ],
)
def test_a_refused_connect_knows_how_to_say_so(spelled, version):
    with pytest.raises(MalformedConnect) as caught:
        decode(bytes.fromhex(spelled), 0)
    assert caught.value.version == version


def test_a_connack_without_a_word_in_3_1_1_is_not_written():
    with pytest.raises(ValueError, match="close instead"):
        encode(Connack(False, 0x81), 4)
