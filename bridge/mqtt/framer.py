"""A stream of bytes → whole packets, bounded.

    held      what is left of the last read: less than one packet, or whatever came
              while paused
    need      how much must be held before looking again is of any use

A large packet that arrives in small slices is only collected, into one growing
buffer, until `need` is there; that keeps the work linear however it is sliced. A
length above `packet_bytes_max` is refused at the header, before anything is
collected.

The one loop in `_scan` is the hot path of the house: a read of 64 KiB holds some
450 PUBLISH packets. What is common is decoded right there, without a call per
packet: PUBLISH with a known short topic and no properties, and the four bytes of
a successful PUBACK, PUBREC, PUBREL or PUBCOMP. All else falls through to the
codec, which is also the only one to raise: whatever the loop finds odd, it
leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.errors import MalformedPacket
from bridge.mqtt.codec import check_flags, decode_body
from bridge.mqtt.packet import (
    PINGREQ,
    Packet,
    PacketType,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from bridge.mqtt.publish import TOPICS
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.wire import read_variable_byte_integer

__all__ = ["ANY_PACKET", "HELD_BYTES_MAX", "PACKET_BYTES_MAX", "Framer"]

PACKET_BYTES_MAX: Final = 1024 * 1024
HELD_BYTES_MAX: Final = 256 * 1024  # while paused: a few reads that were under way
ANY_PACKET: Final = frozenset(PacketType) - {PacketType.WILL}

# Two bytes of length reach 16,383; under a smaller limit every packet goes the careful way.
_FAST_BYTES_MAX: Final = 16_383 + 3
# First byte → (qos, retain, dup) of every PUBLISH that has them legally.
_PUBLISH: Final = {
    0x30 | dup << 3 | qos << 1 | retain: (qos, bool(retain), bool(dup))
    for qos in (0, 1, 2)
    for retain in (0, 1)
    for dup in ((0, 1) if qos else (0,))
}
_ACKS: Final[dict[int, Callable[[int], Packet]]] = {0x40: Puback, 0x50: Pubrec, 0x62: Pubrel, 0x70: Pubcomp}


class Framer:
    """Cuts packets off a stream and decodes them.

    `admit` are the packet types that may come now: another one is refused at its
    first byte. `examine` sees every packet that did not take the fast path, may
    return another in its place, raise MalformedPacket, change any attribute here, or
    set `paused`, upon which the rest stays unparsed until it is False again.
    """

    __slots__ = (
        "_held",
        "_need",
        "acknowledgeable",
        "admit",
        "examine",
        "fast",
        "packet_bytes_max",
        "paused",
        "version",
    )

    def __init__(
        self,
        version: int = 0,
        packet_bytes_max: int = PACKET_BYTES_MAX,
        examine: Callable[[Packet], Packet] | None = None,
    ) -> None:
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self.examine = examine
        self.admit: frozenset[int] = ANY_PACKET
        self.fast = version != 0  # whether PUBLISH and its answers need no examination
        self.paused = False
        self.acknowledgeable = 0  # PUBLISH packets with QoS 1 or 2, since the start
        self._held = bytearray()
        self._need = 0

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Let go of what is held and of the examiner, who most likely holds this framer."""
        self.paused = True
        self.examine = None
        self._held = bytearray()

    def receive(self, data: bytes) -> tuple[list[Packet], MalformedPacket | None]:
        """The packets that are whole by now, in order, and the fault behind them, if there is one.

        After a fault the stream has no meaning any more; do not call again. `data` may
        be empty: to go on after a pause.
        """
        packets: list[Packet] = []
        held = self._held
        if self.paused:
            held += data
            self._need = 0
            if len(held) > HELD_BYTES_MAX:
                return packets, MalformedPacket("too much sent before CONNACK", ReasonCode.QUOTA_EXCEEDED)
            return packets, None
        if held:
            held += data
            if len(held) < self._need:
                return packets, None
            data = bytes(held)
            held.clear()
        try:
            at = self._scan(data, packets)
        except MalformedPacket as fault:
            # The frames of its traceback and of its cause hold the whole read, and in the
            # end whoever holds the fault: a circle that only the collector would open.
            fault.__context__ = None
            return packets, fault.with_traceback(None)
        if at < len(data):
            held += data[at:] if at else data
        return packets, None

    def _scan(self, data: bytes, packets: list[Packet]) -> int:
        """Append every whole packet to `packets` and return where the first unfinished one begins."""
        at = 0
        end = len(data)
        last = end - 1
        append = packets.append
        topics = TOPICS.get
        publish = _PUBLISH.get
        acks = _ACKS.get
        acknowledgeable = 0
        version5 = self.version == 5
        fast = self.fast and self.packet_bytes_max >= _FAST_BYTES_MAX
        try:
            while at < last:
                if fast:
                    first = data[at]
                    length = data[at + 1]
                    if (flags := publish(first)) is not None:
                        body = at + 2
                        if length >= 0x80 and body < end:
                            # A third length byte, or a second one of 0, makes `length` too
                            # small or too large to be true; both are for the codec.
                            high = data[body]
                            length = length - 0x80 + (high << 7) if 0 < high < 0x80 else 0
                            body += 1
                        stop = body + length
                        if length > 5 and stop <= end and data[body] == 0:
                            begin = body + 2
                            payload = begin + data[body + 1]
                            topic = topics(data[begin:payload])
                            qos, retain, dup = flags
                            packet_id = 0
                            if qos and payload + 2 <= stop:
                                packet_id = data[payload] << 8 | data[payload + 1]
                                payload += 2
                            if (
                                topic is not None
                                and (packet_id or not qos)
                                and (not version5 or (payload < stop and data[payload] == 0))
                            ):
                                if version5:
                                    payload += 1
                                if payload <= stop:
                                    append(Publish(topic, data[payload:stop], qos, retain, dup, packet_id))
                                    if qos:
                                        acknowledgeable += 1
                                    at = stop
                                    continue
                    elif length == 2:
                        ack = acks(first)
                        if ack is not None and at + 4 <= end:
                            packet_id = data[at + 2] << 8 | data[at + 3]
                            if packet_id:
                                append(ack(packet_id))
                                at += 4
                                continue
                    elif first == 0xC0 and length == 0:
                        append(PINGREQ)
                        at += 2
                        continue
                after = self._careful(data, at, end, packets)
                if after is None:
                    break
                at = after
                if self.paused:
                    self._need = 0
                    break
            else:
                if at < end:
                    after = self._careful(data, at, end, packets)
                    assert after is None, "one byte is not a packet"
        finally:
            self.acknowledgeable += acknowledgeable
        return at

    def _careful(self, data: bytes, at: int, end: int, packets: list[Packet]) -> int | None:
        """Decode the packet at `at` and return where the next one begins, or None while it is not whole.

        Then `_need` says how much of it must be there.
        """
        first = data[at]
        check_flags(first, self.version)
        if first >> 4 not in self.admit:
            kind = PacketType(first >> 4)
            text = f"{kind.name} is not allowed here"
            raise MalformedPacket(text, ReasonCode.PROTOCOL_ERROR, _elsewhere(kind, data, at, end))
        try:
            found = read_variable_byte_integer(data, at + 1, end)
        except MalformedPacket as fault:
            fault.mosquitto = 0
            raise
        if found is None:
            self._need = end - at + 1
            return None
        length, body = found
        stop = body + length
        if stop - at > self.packet_bytes_max:
            raise MalformedPacket(
                f"a packet of {stop - at} bytes, {self.packet_bytes_max} are allowed",
                ReasonCode.PACKET_TOO_LARGE,
            )
        if stop > end:
            self._need = stop - at
            return None
        packet = decode_body(first, data, body, stop, self.version)
        if self.examine is not None:
            packet = self.examine(packet)
        packets.append(packet)
        if type(packet) is Publish and packet.qos:
            self.acknowledgeable += 1
        return stop


def _elsewhere(kind: PacketType, data: bytes, at: int, end: int) -> int | None:
    """What Mosquitto, which reads a whole packet before it asks whether it is allowed, says of this one."""
    try:
        found = read_variable_byte_integer(data, at + 1, end)
    except MalformedPacket:
        return 0
    return 0 if kind is PacketType.PINGRESP and found is not None and found[0] else None
