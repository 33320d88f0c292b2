"""CONNECT and CONNACK as bytes: where the version is agreed on, or not.

CONNECT is the one packet that says its own version, so it is read before anything
is known; and the one whose refusal has words in every version, so its faults say
which version to answer in.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import MalformedPacket
from bridge.mqtt import property as properties_
from bridge.mqtt.packet import LEVELS, Connack, Connect, Will
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.parts import at_end, read_properties, read_reason
from bridge.mqtt.publish import read_topic
from bridge.mqtt.reason import CONNACK_REASONS, ReasonCode, connect_return_code
from bridge.mqtt.wire import read_binary, read_string, read_u16, write_binary, write_string

__all__ = ["MalformedConnect", "read_connack", "read_connect", "write_connack", "write_connect"]


class MalformedConnect(MalformedPacket):
    """A CONNECT that cannot be taken: answered, where possible, by CONNACK instead of DISCONNECT.

    `version` is how to say so (3, 4 or 5), or 0 when the client does not seem to
    speak MQTT and nothing should be said.
    """

    def __init__(self, text: str, reason: int, version: int, mosquitto: int | None = None) -> None:
        super().__init__(text, reason, mosquitto)
        self.version = version


def read_connect(first: int, data: bytes, at: int, end: int, version: int) -> Connect:
    name, at = read_string(data, at, end)
    if at >= end:
        raise MalformedPacket("CONNECT ends before its protocol level")
    level = data[at]
    if name not in LEVELS.values():
        raise MalformedConnect("CONNECT of another protocol", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, 0)
    if LEVELS.get(level) != name:
        # Said in the nearest version we know: 0x01 in MQTT 3 [MQTT-3.1.2-2], 0x84 in MQTT 5.
        raise MalformedConnect(
            f"CONNECT with protocol level {level}",
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            5 if 5 < level < 0x80 else 4,
        )
    try:
        if first & 0x0F and level != 3:
            raise MalformedPacket(f"CONNECT with the reserved flags {first & 0x0F:#x}")
        return _read_connect_of(level, data, at + 1, end)
    except MalformedPacket as cause:
        elsewhere = cause.mosquitto if level == 5 or cause.mosquitto is None else 0
        raise MalformedConnect(str(cause), cause.reason, level, elsewhere) from None


def _read_connect_of(version: int, data: bytes, at: int, end: int) -> Connect:
    """Everything behind the protocol level."""
    if at >= end:
        raise MalformedPacket("CONNECT ends before its flags")
    flags = data[at]
    will_qos = flags >> 3 & 3
    if flags & 0x01 and version != 3:
        raise MalformedPacket("CONNECT with the reserved flag")  # [MQTT-3.1.2-3]
    if not flags & 0x04 and flags & 0x38:
        raise MalformedPacket("CONNECT with will flags and no will")  # v5 [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if will_qos == 3:
        raise MalformedPacket("CONNECT with will QoS 3")  # v5 [MQTT-3.1.2-12]
    if version < 5 and flags & 0xC0 == 0x40:
        raise MalformedPacket("CONNECT with a password and no user name")  # v3 [MQTT-3.1.2-22]
    keep_alive_s, at = read_u16(data, at + 1, end)
    properties, at = read_properties(P.CONNECT, data, at, end, version)
    client_id, at = _read_string_or(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, data, at, end)
    will = user_name = password = None
    if flags & 0x04:
        will_properties, at = read_properties(P.WILL, data, at, end, version)
        try:
            topic, at = read_topic(data, at, end)
            payload, at = read_binary(data, at, end)
        except MalformedPacket as fault:
            fault.mosquitto = 0
            raise
        will = Will(topic, payload, will_qos, bool(flags & 0x20), will_properties)
    if flags & 0x80:
        user_name, at = _read_string_or(0, data, at, end)
    if flags & 0x40:
        if at >= end:
            raise MalformedPacket("CONNECT ends before its password", mosquitto=0)
        password, at = read_binary(data, at, end)
    at_end(P.CONNECT, at, end)
    return Connect(
        client_id, version, bool(flags & 0x02), keep_alive_s, user_name, password, will, properties
    )


def _read_string_or(elsewhere: int, data: bytes, at: int, end: int) -> tuple[str, int]:
    """A string, of whose faults Mosquitto has another opinion."""
    try:
        return read_string(data, at, end)
    except MalformedPacket as fault:
        fault.mosquitto = elsewhere
        raise


def write_connect(packet: Connect, version: int) -> bytes:
    version, will = packet.version, packet.will
    flags = packet.clean_start << 1 | (packet.user_name is not None) << 7 | (packet.password is not None) << 6
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
    body = [write_string(LEVELS[version]), bytes((version, flags)), packet.keep_alive_s.to_bytes(2)]
    if version == 5:
        body.append(properties_.encode(P.CONNECT, packet.properties))
    body.append(write_string(packet.client_id))
    if will is not None:
        if version == 5:
            body.append(properties_.encode(P.WILL, will.properties))
        body += (write_string(will.topic), write_binary(will.payload))
    if packet.user_name is not None:
        body.append(write_string(packet.user_name))
    if packet.password is not None:
        body.append(write_binary(packet.password))
    return b"".join(body)


_RETURN_CODES: Final = {
    0: 0x00,
    1: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    2: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    3: ReasonCode.SERVER_UNAVAILABLE,
    4: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    5: ReasonCode.NOT_AUTHORIZED,
}


def read_connack(first: int, data: bytes, at: int, end: int, version: int) -> Connack:
    if at >= end or data[at] > 1:
        raise MalformedPacket("CONNACK with reserved flags")  # v5 [MQTT-3.2.2-1]
    session_present = bool(data[at]) and version != 3  # 3.1 reserves that byte
    known = CONNACK_REASONS if version == 5 else frozenset(_RETURN_CODES)
    reason, at = read_reason(P.CONNACK, known, data, at + 1, end)
    properties, at = read_properties(P.CONNACK, data, at, end, version)
    at_end(P.CONNACK, at, end)
    if session_present and reason:
        raise MalformedPacket(
            "CONNACK refuses with a session present", ReasonCode.PROTOCOL_ERROR
        )  # v5 [MQTT-3.2.2-6]
    return Connack(session_present, reason if version == 5 else _RETURN_CODES[reason], properties)


def write_connack(packet: Connack, version: int) -> bytes:
    if version == 5:
        head = bytes((packet.session_present, packet.reason))
        return head + properties_.encode(P.CONNACK, packet.properties)
    code = connect_return_code(packet.reason)
    if code is None:
        raise ValueError(f"3.1.1 has no CONNACK for the reason 0x{packet.reason:02x}; close instead")
    # 3.1 has no Session Present: its first byte is reserved.
    return bytes((packet.session_present if version == 4 else 0, code))
