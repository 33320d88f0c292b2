"""One sequence of packets, played to a broker over real sockets, and what each device saw of it.

A sequence is a list of steps that name no packet identifier of the broker's choice:
"answer the second message that waits" means the same to every broker. So it can be
played to two of them and what the devices saw be compared.

Nobody sleeps. After each step a device of the stage's own, which the brokers treat as
any other, asks until its own message has come back by way of the disk; what the step
has caused, has been sent by then.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st

from bridge.message import Properties
from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import (
    PINGREQ,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)

__all__ = ["BAD_FILTERS", "BEFORE", "CLOSED", "NAMES", "Seen", "Stage", "Step", "describe", "sequences"]

Step: TypeAlias = tuple[str, dict[str, Any]]
CLOSED = "the connection is closed"
Seen: TypeAlias = "list[Packet | str]"

NAMES = ("one", "two", "three")
TOPICS = ("a", "a/b", "b", "$t", "a//b")
FILTERS = ("a", "a/b", "b", "$t", "a//b")
WIDE_FILTERS = ("a/+", "a/#", "+", "#", "+/b", "+/+", "/#", "$share/{name}/a", "$share/{name}/#")
BAD_FILTERS = ("", "a/#/b", "a#", "b+", "#/a", "$share/", "$share/x", "$share//a", "$share/+/a", "$share/x/")
BAD_TOPICS = ("", "a/+", "#")
BEFORE = ", before it came again"
PROBE = "$probe/home"
WAIT_S = 10.0
ABOUT = {
    "": None,
    "user": Properties(user_properties=(("k", "v"), ("a", "b"), ("k", "w"))),
    "content": Properties(payload_format_indicator=1, content_type="text/plain"),
    "request": Properties(response_topic="b", correlation_data=b"\0\1"),
    "expiry": Properties(message_expiry_interval_s=1_000),
    "alias 1": Properties(topic_alias=1),
    "alias 0": Properties(topic_alias=0),
    "alias 9000": Properties(topic_alias=9_000),
    "identifier": Properties(subscription_identifiers=(1,)),
}

# ---- steps -----------------------------------------------------------------------------

numbers = st.integers(0, 5)
names = st.sampled_from(NAMES)
qos = st.sampled_from((0, 1, 2))
expiries_s = st.sampled_from((None, 0, 1_000))
rarely = st.sampled_from((False, False, False, True))

subscriptions = st.fixed_dictionaries(
    {
        "topic_filter": st.sampled_from((*FILTERS * 12, *WIDE_FILTERS * 4, *BAD_FILTERS)),
        "qos": qos,
        "no_local": rarely,
        "retain_as_published": rarely,
        "retain_handling": st.sampled_from((0, 0, 1, 2)),
    }
)
ACTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "connect": (
        4,
        {
            "name": names,
            "version": st.sampled_from((3, 4, 4, 5, 5, 5)),
            "clean": st.booleans(),
            "expiry_s": expiries_s,
            "receive_maximum": st.sampled_from((None, None, 1, 2)),
            "will": st.none() | st.tuples(st.sampled_from(TOPICS), qos, st.booleans()),
        },
    ),
    "drop": (1, {"name": names}),
    "leave": (1, {"name": names, "reason": st.sampled_from((0, 0, 4)), "expiry_s": expiries_s}),
    "subscribe": (
        4,
        {
            "name": names,
            "filters": st.lists(subscriptions, min_size=1, max_size=2),
            "identifier": st.sampled_from((None, None, 1, 300)),
        },
    ),
    "unsubscribe": (
        1,
        {
            "name": names,
            "filters": st.lists(
                st.sampled_from((*FILTERS * 6, *WIDE_FILTERS * 2, "", "a#")), min_size=1, max_size=2
            ),
        },
    ),
    "publish": (
        8,
        {
            "name": names,
            "topic": st.sampled_from((*TOPICS * 8, *BAD_TOPICS)),
            "qos": qos,
            "retain": rarely,
            "empty": rarely,
            "about": st.sampled_from((*("", "user", "content", "request", "expiry", "alias 1") * 3, *ABOUT)),
        },
    ),
    "begin": (1, {"name": names, "topic": st.sampled_from(TOPICS)}),
    "repeat": (1, {"name": names, "which": numbers}),
    "release": (2, {"name": names, "which": numbers}),
    "answer": (5, {"name": names, "which": numbers, "reason": st.sampled_from((0, 0, 0, 0x80))}),
    "answer_unknown": (1, {"name": names, "kind": st.sampled_from((Puback, Pubrec, Pubrel, Pubcomp))}),
    "ping": (1, {"name": names}),
    "odd": (1, {"name": names, "what": st.deferred(lambda: st.sampled_from(sorted(ODD)))}),
}

# Packets that are no packets, or that a client may not send.
ODD: dict[str, bytes] = {
    "type 0": b"\x00\x00",
    "AUTH": b"\xf0\x00",
    "CONNACK": b"\x20\x02\x00\x00",
    "SUBACK": b"\x90\x03\x00\x01\x00",
    "UNSUBACK": b"\xb0\x02\x00\x01",
    "PINGRESP": b"\xd0\x00",
    "PINGREQ with a body": b"\xc0\x01x",
    "PINGREQ with flags": b"\xc1\x00",
    "PUBLISH with QoS 3": b"\x36\x06\x00\x01a\x00\x01\x00",
    "PUBLISH with QoS 0 and DUP": b"\x38\x04\x00\x01a\x00",
    "PUBLISH with packet identifier 0": b"\x32\x06\x00\x01a\x00\x00\x00",
    "PUBLISH shorter than its topic": b"\x30\x04\x00\x09ab",
    "PUBLISH with U+0000": b"\x30\x05\x00\x01\x00\x00x",
    "PUBLISH with a topic that is no UTF-8": b"\x30\x05\x00\x02\xc3\x28\x00",
    "SUBSCRIBE with flags 0": b"\x80\x07\x00\x01\x00\x00\x01a\x00",
    "SUBSCRIBE with packet identifier 0": b"\x82\x07\x00\x00\x00\x00\x01a\x00",
    "SUBSCRIBE without filters": b"\x82\x03\x00\x01\x00",
    "SUBSCRIBE with QoS 3": b"\x82\x07\x00\x01\x00\x00\x01a\x03",
    "UNSUBSCRIBE without filters": b"\xa2\x03\x00\x01\x00",
    "PUBREL with flags 0": b"\x60\x02\x00\x01",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a second CONNECT": encode(Connect("again", 4), 4),
    "a second CONNECT, of version 5": encode(Connect("again", 5), 5),
}


def _step(name: str) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.fixed_dictionaries(ACTIONS[name][1]))


_kinds = [name for name, (weight, _) in ACTIONS.items() for _ in range(weight)]
_steps = st.sampled_from(_kinds).flatmap(_step)


def sequences(steps_max: int) -> st.SearchStrategy[list[Step]]:
    """Three devices come, and then anything goes."""
    begin = st.tuples(*(_step("connect") for _ in NAMES)).map(
        lambda steps: [(what, how | {"name": name}) for name, (what, how) in zip(NAMES, steps, strict=True)]
    )
    steps = st.lists(_steps, min_size=steps_max // 2, max_size=steps_max)
    return st.tuples(begin, steps).map(lambda both: both[0] + both[1])


# ---- a device --------------------------------------------------------------------------


class Device:
    """One connection; blocking, and nothing done by itself."""

    def __init__(self, port: int, client_id: str, version: int, has_will: bool = False) -> None:
        self.client_id = client_id
        self.has_will = has_will
        self.version = version
        self.closed = False
        # What has to be answered: which message, packet identifier, QoS, released. `new` of this step.
        self.waiting: list[tuple[str, int, int, bool]] = []
        self.new: list[tuple[str, int, int, bool]] = []
        self._held = b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(each, self.version) for each in packets))

    def send_bytes(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def next(self) -> Packet | None:
        """The next packet; None when the broker has closed."""
        while not self.closed:
            found = decode(self._held, self.version)
            if found is not None:
                packet, at = found
                self._held = self._held[at:]
                return packet
            self._read()
        return None

    def _read(self) -> bool:
        try:
            data = self._socket.recv(65_536)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            self._socket.close()
        self._held += data
        return bool(data)

    def here(self) -> Iterator[Packet]:
        """The packets that have come by now."""
        if not self.closed:
            self._socket.setblocking(False)
            while self._read():
                pass
            if not self.closed:
                self._socket.settimeout(WAIT_S)
        while (found := decode(self._held, self.version)) is not None:
            packet, at = found
            self._held = self._held[at:]
            yield packet

    def drop(self) -> None:
        self.closed = True
        self._socket.close()


class Stage:
    """One broker, and the devices on it. `play` may be called again and again: nothing is left behind."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._plays = 0
        self._home = Device(port, "home", 5)
        self._home.send(Connect("home", 5, properties=Properties(session_expiry_interval_s=1_000)))
        assert isinstance(self._home.next(), Connack)
        self._home.send(Subscribe(1, (Subscription(PROBE, 1),)))
        assert isinstance(self._home.next(), Suback)

    def play(self, steps: list[Step]) -> Iterator[dict[str, Seen]]:
        """Take one step after the other, and say after each what each device has seen."""
        self._plays += 1
        self._devices: dict[str, Device] = {}
        self._gone: list[tuple[str, Device]] = []
        self._open: dict[str, list[int]] = {name: [] for name in NAMES}
        self._packet_id = 0
        try:
            for nth, (what, how) in enumerate(steps):
                self._payload = b"%d" % nth
                self._seen: dict[str, Seen] = {}
                name = how["name"]
                if what == "connect" or name in self._devices:
                    getattr(self, f"_{what}")(**how)
                    self._settle()
                    self._look()
                yield {who: seen for who, seen in self._seen.items() if seen}
        finally:
            self._clean_up()

    # ---- steps ---------------------------------------------------------------------

    def _id(self, name: str) -> str:
        return f"{name}-{self._plays}"

    def _next_packet_id(self) -> int:
        self._packet_id += 1
        return self._packet_id

    def _connect(
        self,
        name: str,
        version: int,
        clean: bool,
        expiry_s: int | None,
        receive_maximum: int | None,
        will: tuple[str, int, bool] | None,
    ) -> None:
        old = self._devices.pop(name, None)
        if old is not None:
            if old.has_will:
                # Mosquitto forgets the will of a session that is taken over and goes on, and sends
                # one's own to the old connection: after that nothing could be compared. See test_model.
                old.drop()
                self._settle()
            self._gone.append((f"{name}{BEFORE}", old))
        device = self._devices[name] = Device(self.port, self._id(name), version, will is not None)
        said = Will(will[0], b"will " + self._payload, will[1], will[2]) if will is not None else None
        about = Properties(session_expiry_interval_s=expiry_s, receive_maximum=receive_maximum)
        device.send(
            Connect(device.client_id, version, clean, will=said, properties=about if version == 5 else None)
        )
        connack = device.next()
        if connack is not None:
            self._saw(name, device, connack)
            if isinstance(connack, Connack) and not connack.session_present:
                self._open[name] = []

    def _drop(self, name: str) -> None:
        self._devices.pop(name).drop()

    def _leave(self, name: str, reason: int, expiry_s: int | None) -> None:
        device = self._devices[name]
        about = Properties(session_expiry_interval_s=expiry_s) if expiry_s is not None else None
        device.send(Disconnect(reason, about))

    def _subscribe(self, name: str, filters: list[dict[str, Any]], identifier: int | None) -> None:
        device = self._devices[name]
        wanted = []
        for each in filters:
            topic_filter = each["topic_filter"].format(name=name)
            options = each | {"topic_filter": topic_filter}
            if device.version < 5:
                options = {"topic_filter": topic_filter, "qos": each["qos"]}
            wanted.append(Subscription(**options))
        about = Properties(subscription_identifiers=(identifier,)) if identifier else None
        device.send(Subscribe(self._next_packet_id(), tuple(wanted), about))

    def _unsubscribe(self, name: str, filters: list[str]) -> None:
        filters = [each.format(name=name) for each in filters]
        self._devices[name].send(Unsubscribe(self._next_packet_id(), tuple(filters)))

    def _publish(self, name: str, topic: str, qos: int, retain: bool, empty: bool, about: str) -> None:
        device = self._devices[name]
        packet_id = self._next_packet_id() if qos else 0
        payload = b"" if empty else self._payload
        device.send(Publish(topic, payload, qos, retain, packet_id=packet_id, properties=ABOUT[about]))
        while qos == 2 and (packet := device.next()) is not None:
            self._saw(name, device, packet)
            if isinstance(packet, Pubrec):
                device.send(Pubrel(packet_id))
                break

    def _begin(self, name: str, topic: str) -> None:
        """QoS 2, but for its end."""
        packet_id = self._next_packet_id()
        self._open[name].append(packet_id)
        self._devices[name].send(Publish(topic, self._payload, 2, packet_id=packet_id))

    def _repeat(self, name: str, which: int) -> None:
        if open_ids := self._open[name]:
            packet_id = open_ids[which % len(open_ids)]
            self._devices[name].send(Publish("a", self._payload, 2, dup=True, packet_id=packet_id))

    def _release(self, name: str, which: int) -> None:
        if open_ids := self._open[name]:
            self._devices[name].send(Pubrel(open_ids.pop(which % len(open_ids))))

    def _answer(self, name: str, which: int, reason: int) -> None:
        device = self._devices[name]
        if not device.waiting:
            return
        _, packet_id, qos, released = device.waiting.pop(which % len(device.waiting))
        if device.version < 5 or released:
            reason = 0
        if qos == 1:
            device.send(Puback(packet_id, reason))
        elif released:
            device.send(Pubcomp(packet_id))
        else:
            device.send(Pubrec(packet_id, reason))

    def _answer_unknown(self, name: str, kind: Any) -> None:
        self._devices[name].send(kind(60_000))

    def _ping(self, name: str) -> None:
        self._devices[name].send(PINGREQ)

    def _odd(self, name: str, what: str) -> None:
        self._devices[name].send_bytes(ODD[what])

    # ---- seeing --------------------------------------------------------------------

    def _settle(self) -> None:
        """Wait until the broker has done everything that the last step has caused."""
        home = self._home
        for _ in range(2):  # the second is read in a later turn of the broker's loop than what came before
            home.send(PINGREQ)
            assert isinstance(home.next(), Pingresp)
        for nth in (1, 2):
            home.send(Publish(PROBE, b"", 1, packet_id=nth))
            for _ in range(2):  # PUBACK, and the message itself
                packet = home.next()
                if isinstance(packet, Publish):
                    home.send(Puback(packet.packet_id))
                else:
                    assert isinstance(packet, Puback), packet

    def _look(self) -> None:
        for name, device in (*self._gone, *self._devices.items()):
            for packet in device.here():
                self._saw(name, device, packet)
            if device.closed:
                self._seen.setdefault(name, []).append(CLOSED)
            # The order of different topics is the broker's business; "the second" is the same to both.
            device.waiting += sorted(device.new, key=lambda each: each[0])
            device.new.clear()
        self._gone.clear()
        self._devices = {name: device for name, device in self._devices.items() if not device.closed}
        for seen in self._seen.values():
            # The order of different topics is the broker's business, and of different QoS.
            seen.sort(key=lambda each: (each.topic, each.qos) if isinstance(each, Publish) else ("", 0))

    def _saw(self, name: str, device: Device, packet: Packet) -> None:
        if isinstance(packet, Publish) and packet.qos:
            key = f"{packet.topic} {packet.payload!r} {packet.qos}"
            device.new.append((key, packet.packet_id, packet.qos, False))
            packet = msgspec.structs.replace(packet, packet_id=0)
        elif isinstance(packet, Pubrel) and packet.packet_id != 60_000:
            device.new.append(("", packet.packet_id, 2, True))
            packet = Pubrel(0, packet.reason)
        if not isinstance(packet, Publish | Pingresp):
            packet = msgspec.structs.replace(packet, properties=None)
        self._seen.setdefault(name, []).append(packet)

    def _clean_up(self) -> None:
        for device in (*self._devices.values(), *(device for _, device in self._gone)):
            device.drop()
        for name in NAMES:
            device = Device(self.port, self._id(name), 5)
            device.send(Connect(device.client_id, 5))
            device.next()
            device.send(Disconnect())
            while device.next() is not None:
                pass
        for nth, topic in enumerate(TOPICS, 1):
            self._home.send(Publish(topic, b"", 1, True, packet_id=nth))
            assert isinstance(self._home.next(), Puback)

    def end(self) -> None:
        self._home.drop()


def describe(packet: Packet | str) -> str:
    """Only what is said."""
    if isinstance(packet, str):
        return packet
    said = {
        name: value
        for name, value in msgspec.structs.asdict(packet).items()
        if value not in (None, (), False, 0) or name == "qos"
    }
    if about := said.get("properties"):
        said["properties"] = {
            name: value for name, value in msgspec.structs.asdict(about).items() if value not in (None, ())
        }
    return f"{type(packet).__name__.upper()} " + " ".join(f"{name}={value!r}" for name, value in said.items())
