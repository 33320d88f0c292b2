"""The wall clock is set while messages wait (D14): order, identity and expiry do not depend on it."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import time
from pathlib import Path

import pytest

from bridge.clock import Clock
from bridge.message import Message, Properties, age_ns
from bridge.mqtt.packet import PINGREQ, Pingresp, Puback, Subscription
from bridge.mqtt.session import expired
from tests.broker.device import Device
from tests.gateway import until
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.servers import binary

HOUR_NS = 3_600 * 1_000_000_000
YEAR_NS = 365 * 24 * HOUR_NS
EXPIRY = Properties(message_expiry_interval_s=1800)  # less than any of the jumps
SESSION_S = 86_400
KEEP_ALIVE_S = 1
SOURCE = Path(__file__).with_name("wrong_clock.c")


class WrongClock:
    """What the gateway takes for the time of day; `set` may be called while it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ahead"
        library = folder / "wrong_clock.so"
        subprocess.run(
            [binary("gcc"), "-shared", "-fPIC", "-O", "-o", library, SOURCE, "-ldl"], check=True, timeout=60
        )
        self.environ = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}
        self._file.write_bytes(bytes(8))

    def set(self, ahead_ns: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", ahead_ns))


async def _publish(device: Device, numbers: range) -> None:
    for number in numbers:
        device.publish("plant/a", b"%d" % number, 1, number + 1, properties=EXPIRY)
    await device.several(Puback, len(numbers))


JUMPS = {
    "an-hour-back": (0, -HOUR_NS),
    "ten-years-ahead": (0, 10 * YEAR_NS),
    "ten-years-ahead-and-set-right": (10 * YEAR_NS, 0),
    "1970-and-then-ntp": (-time.time_ns() + HOUR_NS, 0),
}
CASES = [
    *((name, False) for name in JUMPS),
    ("ten-years-ahead", True),
    ("1970-and-then-ntp", True),
    *(
        pytest.param(name, True, marks=pytest.mark.long)
        for name in ("an-hour-back", "ten-years-ahead-and-set-right")
    ),
]


@pytest.mark.parametrize(("jump", "killed"), CASES)
async def test_given_the_clock_is_set_then_nothing_expires_nothing_is_lost_and_nobody_is_cut_off(
    tmp_path: Path, jump: str, killed: bool
) -> None:
    first_ns, then_ns = JUMPS[jump]
    clock = WrongClock(tmp_path)
    clock.set(first_ns)
    gateway = Shipped(tmp_path / "gateway", environ=clock.environ)
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.start()
    try:
        sleeper = await Device.connect(gateway.port, "sleeper", clean=False, expiry_s=SESSION_S)
        await sleeper.subscribe(Subscription("plant/#", 1))
        await sleeper.leave()
        device = await Device.connect(gateway.port, "device", keep_alive_s=KEEP_ALIVE_S)
        await _publish(device, range(100))
        clock.set(then_ns)
        await _publish(device, range(100, 200))
        # Long enough to be cut off, were it not heard in time.
        for _ in range(4):
            await asyncio.sleep(KEEP_ALIVE_S / 2)
            device.send(PINGREQ)
            await device.expect(Pingresp)
        if killed:
            device.drop()
            gateway.kill()
            gateway.start()
        sleeper = await Device.connect(gateway.port, "sleeper", clean=False, expiry_s=SESSION_S)
        assert sleeper.connack.session_present, "the session was taken for an old one"
        assert await sleeper.receive(200) == [b"%d" % number for number in range(200)]
        far_end.start()
        await until(lambda: len(far_end.received()) >= 200, 20)
        arrived = far_end.received()
        assert [one["payload"] for one in arrived] == [str(number) for number in range(200)]
        unset = [one["payload"] for one in arrived if one.get("clock") == "unset"]
        assert unset == ([str(number) for number in range(100)] if first_ns < 0 else [])
        await until(lambda: gateway.status()["routes"]["default"]["delivered"] == 200)
        route = gateway.status()["routes"]["default"]
        assert route["expired"] == route["lost"] == 0
        assert gateway.output().count("clock set") == 1
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        far_end.kill()
    assert "Traceback" not in gateway.output()


# ---- the two clocks ----------------------------------------------------------------


class Hands:
    """Both clocks of a machine, moved by the test."""

    def __init__(self, wall_ns: int) -> None:
        self.wall_ns = wall_ns
        self.steady_ns = 0
        self.clock = Clock(lambda: self.wall_ns, lambda: self.steady_ns)

    def pass_time(self, ns: int) -> None:
        self.wall_ns += ns
        self.steady_ns += ns

    def age_of(self, stamp_ns: int) -> int:
        return age_ns(stamp_ns, self.clock.now_ns(), self.clock.jumps)


NOW_NS = 1_800_000_000 * 1_000_000_000


def test_time_that_passes_is_age_and_time_that_is_set_is_none() -> None:
    hands = Hands(NOW_NS)
    before = hands.clock.now_ns()
    hands.pass_time(HOUR_NS)
    assert hands.age_of(before) == HOUR_NS
    hands.wall_ns += YEAR_NS
    hands.pass_time(HOUR_NS)
    after = hands.clock.now_ns()
    hands.pass_time(HOUR_NS)
    assert hands.age_of(before) == 3 * HOUR_NS
    assert hands.age_of(after) == HOUR_NS


def test_a_year_set_ahead_and_taken_back_leaves_the_right_age() -> None:
    hands = Hands(NOW_NS)
    before = hands.clock.now_ns()
    hands.wall_ns += YEAR_NS
    wrong = hands.clock.now_ns()
    hands.pass_time(HOUR_NS)
    hands.wall_ns -= YEAR_NS
    hands.pass_time(HOUR_NS)
    assert hands.age_of(before) == 2 * HOUR_NS
    assert hands.age_of(wrong) == 0, "stamped in the future: nobody can know, and unknown is not old"


def test_set_back_nothing_looks_older_than_it_is() -> None:
    hands = Hands(NOW_NS)
    before = hands.clock.now_ns()
    hands.pass_time(HOUR_NS // 2)
    hands.wall_ns -= HOUR_NS
    assert hands.age_of(before) == 0
    hands.wall_ns += HOUR_NS
    assert hands.age_of(before) <= HOUR_NS // 2


def test_a_stamp_from_1970_has_no_age() -> None:
    hands = Hands(HOUR_NS)
    before = hands.clock.now_ns()
    hands.wall_ns = NOW_NS
    assert hands.age_of(before) == 0


def test_what_an_earlier_life_saw_counts_and_the_list_has_an_end() -> None:
    hands = Hands(NOW_NS + YEAR_NS)
    hands.clock.recall([(NOW_NS, NOW_NS + YEAR_NS)])
    hands.pass_time(HOUR_NS)
    assert hands.age_of(NOW_NS) == HOUR_NS
    for _ in range(1000):
        hands.wall_ns += HOUR_NS
        hands.clock.now_ns()
    assert len(hands.clock.jumps) < 100


def test_a_message_for_a_device_from_before_ntp_is_not_taken_for_an_old_one() -> None:
    """It was once: 1970 plus half an hour had long been over."""
    assert not expired(Message("a", b"x", 1, False, "", HOUR_NS, EXPIRY), NOW_NS)
    assert expired(Message("a", b"x", 1, False, "", NOW_NS - HOUR_NS, EXPIRY), NOW_NS)
    assert not expired(
        Message("a", b"x", 1, False, "", NOW_NS - HOUR_NS, EXPIRY), NOW_NS, [(NOW_NS - HOUR_NS, NOW_NS)]
    )
