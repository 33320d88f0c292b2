"""What Mosquitto refuses and the specification lets pass.

For listeners that stand in for a Mosquitto (`like_mosquitto`): text with control
characters, which a receiver may refuse v3 [MQTT-1.5.3-2], and an answer to a PUBLISH that
is not the one its QoS asks for, which we else take for an answer to nothing.

Where the two refuse the same with different reason codes, the error says both
(`MalformedPacket.mosquitto`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bridge.errors import MalformedPacket
from bridge.mqtt.connect import MalformedConnect
from bridge.mqtt.packet import Connect, Packet, Puback, Pubcomp, Publish, Pubrec, Subscribe, Unsubscribe
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import Session, Stage
from bridge.topic import has_control

__all__ = ["refuse_control", "refuse_mistaken"]

_FITS: Final = {
    Stage.PUBACK: (Puback,),
    Stage.PUBREC: (Pubrec,),
    Stage.PUBCOMP: (Pubcomp, Pubrec),  # a PUBREC may come twice
}


def refuse_control(packet: Packet) -> None:
    """Raise MalformedPacket for a packet with a control character in a name."""
    if isinstance(packet, Connect):
        if has_control(packet.client_id):
            _refuse_connect(packet, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
        will_topic = packet.will.topic if packet.will is not None else ""
        if has_control(packet.user_name or "") or has_control(will_topic):
            _refuse_connect(packet, 0)
    elif any(has_control(text) for text in _topics(packet)):
        raise MalformedPacket("a topic has a control character")


def _refuse_connect(packet: Connect, elsewhere: int) -> None:
    text = "a name in CONNECT has a control character"
    said = elsewhere if packet.version == 5 else 0
    raise MalformedConnect(text, ReasonCode.MALFORMED_PACKET, packet.version, said)


def _topics(packet: Packet) -> Iterator[str]:
    if isinstance(packet, Publish):
        yield packet.topic
    elif isinstance(packet, Subscribe):
        yield from (each.topic_filter for each in packet.subscriptions)
    elif isinstance(packet, Unsubscribe):
        yield from packet.topic_filters


def refuse_mistaken(session: Session, packet: Puback | Pubrec | Pubcomp) -> None:
    """Raise MalformedPacket for an answer that the PUBLISH of this identifier does not want now."""
    found = session.in_flight.get(packet.packet_id)
    if found is not None and not isinstance(packet, _FITS[found.stage]):
        text = f"{packet.TYPE.name} answers what wants another answer"
        raise MalformedPacket(text, ReasonCode.PROTOCOL_ERROR)
