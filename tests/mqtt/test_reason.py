import pytest

from bridge.mqtt import reason
from bridge.mqtt.reason import ReasonCode, connect_return_code

SETS = [name for name in reason.__all__ if name.endswith("_REASONS")]


@pytest.mark.parametrize("name", SETS)
def test_every_reason_a_packet_may_carry_has_a_name(name):
    assert getattr(reason, name) <= {int(code) for code in ReasonCode}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ReasonCode.SUCCESS, 0),
        (ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, 1),
        (ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, 2),
        (ReasonCode.SERVER_UNAVAILABLE, 3),
        (ReasonCode.SERVER_BUSY, 3),
        (ReasonCode.BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode.NOT_AUTHORIZED, 5),
        (ReasonCode.MALFORMED_PACKET, None),
        (ReasonCode.PACKET_TOO_LARGE, None),
    ],
)
def test_what_3_1_1_says_instead(code, said):
    assert connect_return_code(code) == said
