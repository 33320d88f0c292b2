"""Reading takes work in proportion to the bytes read, whatever they are and however they are sliced.

Work is counted, not timed: lines of `bridge` that were executed, and bytes that
the framer copied into and out of its buffer. Both are the same on every machine
and on every run. An input four times as long may cost four times the work, and a
little for the rounding; a square would cost sixteen times.
"""

from collections.abc import Callable, Iterator

import pytest

from bridge.errors import MalformedPacket
from bridge.mqtt.codec import encode
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import Puback, Publish, Subscribe, Subscription, Unsubscribe
from bridge.mqtt.property import USER_PROPERTIES_MAX
from bridge.mqtt.wire import variable_byte_integer, write_string
from tests.work import lines_of


class Counted(bytearray):
    """A buffer that counts what is copied into it and out of it."""

    copied = 0

    def __iadd__(self, data):
        Counted.copied += len(data)
        return super().__iadd__(data)

    def __bytes__(self):
        Counted.copied += len(self)
        return bytes(memoryview(self))


def work(version: int, slices: Iterator[bytes]) -> tuple[int, MalformedPacket | None]:
    """Lines executed plus bytes copied, and the fault that ended it."""
    framer = Framer(version, 1 << 28)
    framer._held = Counted()
    Counted.copied = 0
    fault = None

    def read() -> None:
        nonlocal fault
        for part in slices:
            _, fault = framer.receive(part)
            assert type(framer._held) is Counted
            if fault is not None:
                break

    lines = lines_of(read)
    return lines + Counted.copied, fault


def sliced(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def block(properties: bytes, body: bytes = b"") -> bytes:
    whole = b"\0\1a" + variable_byte_integer(len(properties)) + properties + body
    return b"\x30" + variable_byte_integer(len(whole)) + whole


# What grows with n: in both versions the same packets, in 5 also property blocks.
SHAPES: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "one large PUBLISH": (4, lambda n: encode(Publish("a", bytes(n)), 4)),
    "one large PUBLISH in 5": (5, lambda n: encode(Publish("a", bytes(n)), 5)),
    "small PUBLISHes": (4, lambda n: encode(Publish("a/b", b"x", 1, packet_id=1), 4) * (n // 10)),
    "small PUBLISHes in 5": (5, lambda n: encode(Publish("a/b", b"x", 1, packet_id=1), 5) * (n // 10)),
    "ever new topics": (4, lambda n: b"".join(encode(Publish(f"t/{i:09}", b""), 4) for i in range(n // 15))),
    "PUBACKs": (5, lambda n: encode(Puback(7), 5) * (n // 4)),
    "PINGREQs": (4, lambda n: b"\xc0\0" * (n // 2)),
    "a SUBSCRIBE of many filters": (
        4,
        lambda n: encode(Subscribe(1, tuple(Subscription("a/+", 1) for _ in range(n // 40))), 4),
    ),
    "an UNSUBSCRIBE of many filters": (5, lambda n: encode(Unsubscribe(1, ("a/+",) * (n // 40)), 5)),
    "a filter of many levels": (4, lambda n: encode(Subscribe(1, (Subscription("+/" * (n // 2), 0),)), 4)),
    "a topic of many levels": (4, lambda n: encode(Publish("/" * n, b""), 4)),
    "many user properties": (5, lambda n: block(b"\x26\0\1k\0\1v" * (n // 40))),
    "one long user property": (5, lambda n: block(b"\x26\0\1k" + write_string("v" * n))),
    "many subscription identifiers": (5, lambda n: block(b"\x0b\1" * (n // 40))),
    "the fault at the end": (4, lambda n: b"\xc0\0" * (n // 2) + b"\xff"),
    "a packet that never ends": (4, lambda n: b"\x30\xff\xff\xff\x7f" + bytes(n)),
}
N = 10_000
assert 4 * N // 40 <= USER_PROPERTIES_MAX, "no bound may cut the longer input short"


@pytest.mark.parametrize("size", [1, 7, 1_000, 1_000_000], ids="slices of {}".format)
@pytest.mark.parametrize("shape", SHAPES)
def test_four_times_the_bytes_take_four_times_the_work(shape, size):
    version, make = SHAPES[shape]
    short, long = make(N), make(4 * N)
    assert 3.9 < len(long) / len(short) < 4.1
    few, _ = work(version, sliced(short, size))
    many, _ = work(version, sliced(long, size))
    assert many < 4.5 * few + 1_000


def test_a_length_past_the_limit_costs_nothing_however_much_follows():
    def refused(n: int) -> int:
        framer = Framer(4, 100)
        framer._held = Counted()
        Counted.copied = 0
        _, fault = framer.receive(b"\x30\xff\xff\xff\x7f" + bytes(n))
        assert fault is not None
        assert fault.reason == 0x95
        return Counted.copied

    assert refused(0) == refused(1_000_000) == 0


def test_the_count_would_show_a_square(monkeypatch):
    """A framer that looked at everything it holds whenever a byte came once was a way to stop a server."""
    receive = Framer.receive

    def forgetful(framer, data):
        framer._need = 0
        return receive(framer, data)

    monkeypatch.setattr(Framer, "receive", forgetful)
    _, make = SHAPES["one large PUBLISH"]
    few, _ = work(4, sliced(make(1_000), 1))
    many, _ = work(4, sliced(make(4_000), 1))
    assert many > 8 * few
