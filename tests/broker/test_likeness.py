"""A listener that stands in for a Mosquitto: the answers that only a broker gives."""

import pytest

from bridge.mqtt.packet import Connack, Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from bridge.mqtt.reason import ReasonCode


@pytest.fixture
async def like_mosquitto(house):
    house.limit(like_mosquitto=True)
    return house


async def test_identifiers_that_are_not_known_are_answered_without_a_word(like_mosquitto):
    device = await like_mosquitto.connect()
    device.send(Pubrec(9), Pubrel(8))
    assert await device.expect(Pubrel) == Pubrel(9)
    assert await device.expect(Pubcomp) == Pubcomp(8)


async def test_elsewhere_they_are_named(house):
    device = await house.connect()
    device.send(Pubrec(9), Pubrel(8))
    assert await device.expect(Pubrel) == Pubrel(9, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
    assert await device.expect(Pubcomp) == Pubcomp(8, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)


@pytest.mark.parametrize(("version", "reason"), [(4, None), (5, ReasonCode.PROTOCOL_ERROR)])
async def test_an_answer_of_the_wrong_kind_ends_the_connection(like_mosquitto, version, reason):
    device = await like_mosquitto.connect(version=version)
    await device.subscribe("t", qos=1)
    await (await like_mosquitto.connect("other")).published("t")
    device.send(Pubrec((await device.expect(Publish)).packet_id))
    assert await device.goodbye() == reason


async def test_elsewhere_it_answers_nothing(house):
    device = await house.connect()
    await device.subscribe("t", qos=1)
    await (await house.connect("other")).published("t")
    packet_id = (await device.expect(Publish)).packet_id
    device.send(Pubrec(packet_id))
    assert await device.expect(Pubrel) == Pubrel(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
    device.send(Puback(packet_id))
    await device.quiet()


@pytest.mark.parametrize(
    ("like", "version", "reason"), [(True, 5, 0x80), (True, 4, 0x85), (False, 5, 0x85), (False, 4, 0x85)]
)
async def test_a_client_identifier_that_is_missing(house, like, version, reason):
    house.limit(like_mosquitto=like, empty_client_ids=False)
    device = await house.socket(version)
    device.send(Connect("", version))
    assert (await device.expect(Connack)).reason == reason
