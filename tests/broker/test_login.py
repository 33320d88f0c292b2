"""Who a CONNECT proves to be: at once, after a hash, or not at all."""

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from bridge.broker import login as module
from bridge.broker.door import Door
from bridge.broker.limits import Limits
from bridge.broker.login import Logins
from bridge.broker.rates import ADDRESSES_MAX, TRYING_MAX, Rates
from bridge.config.limits import HouseLimits
from bridge.mqtt.packet import Connack, Connect, Puback, Will
from bridge.policy.access import ANONYMOUS, Identity
from bridge.policy.password import Password, parse_line
from tests.broker.device import Device
from tests.gateway import port_of, running, sink_of, until
from tests.users import quick_line, write_users

WRONG, NOT_AUTHORIZED, BUSY, TOO_OFTEN, LEAVING = 0x87, 0x87, 0x89, 0x9F, 0x88


def quick(user, password, iterations=10):
    return parse_line(quick_line(user, password, iterations))


class Gated(Password, frozen=True):
    """Hashes only while its gate is open, and counts."""

    def verify(self, password):
        assert GATE.wait(10)
        HASHED.append(password)
        return super().verify(password)


GATE = threading.Event()
HASHED = []


def gated(user, password):
    read = quick(user, password)
    return Gated(read.user, read.hashed, read.scheme, read.cost, read.salt, read.expected)


@pytest.fixture(autouse=True)
def _gate():
    GATE.set()
    HASHED.clear()
    yield
    GATE.set()


def door(**says):
    return Door("mqtt://127.0.0.1:1883", Limits(), **({"anonymous": False} | says))


@dataclass
class Peer:
    """As much of a Link as a login sees."""

    door: Door = field(default_factory=door)
    address: str = "192.0.2.1"
    certificate_user: str | None = None
    identity: Identity = ANONYMOUS
    proof: Password | None = None
    gone: bool = False
    peer: str = "somebody"
    closed: int = 0

    def close(self, reason):
        self.closed = reason


class Asked:
    """One CONNECT and its answers: exactly one, and that one soon."""

    def __init__(self, logins, peer, user=None, password=None):
        self.peer = peer
        self.answers = []
        logins.check(peer, Connect("client", user_name=user, password=password), self._done)

    def _done(self, identity, reason, text):
        self.answers.append((identity, reason))
        assert (identity is None) == (reason != 0)
        if identity is not None:
            self.peer.identity = identity

    @property
    def answer(self):
        (answer,) = self.answers
        return answer

    async def settled(self):
        async with asyncio.timeout(10):
            while not self.answers:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        return self.answer


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def logins(clock):
    logins = Logins({"anna": gated("anna", b"secret"), "bert": gated("bert", b"other")}, 3, clock)
    yield logins
    GATE.set()
    logins.close()


# users there?, door, certificate, user name, password → answer at once; None: only after a hash
OPEN = {"anonymous": True}
AT_ONCE = [
    (False, OPEN, None, None, None, (ANONYMOUS, 0)),
    (False, OPEN, None, "", b"x", (ANONYMOUS, 0)),
    (False, OPEN, None, "anna", b"x", (ANONYMOUS, 0)),
    (False, OPEN, None, "anna", None, (ANONYMOUS, 0)),
    (False, OPEN | {"unverified_users": True}, None, "anna", None, (Identity("anna", False), 0)),
    (False, OPEN | {"unverified_users": True}, None, "anna", b"x", (Identity("anna", False), 0)),
    (False, OPEN | {"unverified_users": True}, None, None, None, (ANONYMOUS, 0)),
    (False, {}, None, None, None, (None, NOT_AUTHORIZED)),
    (False, {}, None, "anna", b"secret", (None, NOT_AUTHORIZED)),
    (False, {"unverified_users": True}, None, "anna", b"secret", (None, NOT_AUTHORIZED)),
    (True, {}, None, None, None, (None, NOT_AUTHORIZED)),
    (True, {}, None, "", None, (None, NOT_AUTHORIZED)),
    (True, {}, None, None, b"secret", (None, NOT_AUTHORIZED)),
    (True, {}, None, "anna", None, (None, WRONG)),
    (True, OPEN, None, "anna", None, (None, WRONG)),
    (True, OPEN | {"unverified_users": True}, None, "anna", None, (None, WRONG)),
    (True, OPEN | {"unverified_users": True}, None, "anna", b"x", None),
    (True, OPEN, None, None, None, (ANONYMOUS, 0)),
    (True, OPEN, None, "anna", b"secret", None),
    (True, {}, None, "anna", b"secret", None),
    (True, {}, None, "anna", b"", None),
    (True, {}, "press", None, None, (Identity("press"), 0)),
    (True, {}, "press", "anna", b"secret", (Identity("press"), 0)),
    (True, {"user_from": "san"}, "press", "anna", b"wrong", (Identity("press"), 0)),
    (False, {}, "press", None, None, (Identity("press"), 0)),
    (False, {}, "", None, None, (None, NOT_AUTHORIZED)),
    (True, {"user_from": "password"}, "press", None, None, (None, NOT_AUTHORIZED)),
    (True, {"user_from": "password"}, "press", "anna", None, (None, WRONG)),
    (True, {"user_from": "password"}, "press", "anna", b"secret", None),
    (False, {"user_from": "password"}, "press", "anna", b"secret", (None, NOT_AUTHORIZED)),
]


@pytest.mark.parametrize(("users", "says", "certificate", "user", "password", "answer"), AT_ONCE)
async def test_a_device_is_whom_the_door_and_the_users_say(
    clock, users, says, certificate, user, password, answer
):
    logins = Logins({"anna": gated("anna", b"secret")} if users else None, 3, clock)
    asked = Asked(logins, Peer(door(**says), certificate_user=certificate), user, password)
    if answer is not None:
        assert asked.answer == answer
        assert asked.peer.proof is None
    else:
        assert asked.answers == []
        right = (user, password) == ("anna", b"secret")
        assert await asked.settled() == ((Identity("anna"), 0) if right else (None, WRONG))
        assert asked.peer.proof == (logins._users["anna"] if right else None)
    logins.close()
    hashes = 0 if answer is not None else 1
    assert len(HASHED) == hashes


async def test_what_was_proven_once_is_known_from_then_on(logins):
    assert await Asked(logins, Peer(), "anna", b"secret").settled() == (Identity("anna"), 0)
    again = Asked(logins, Peer(address="192.0.2.9"), "anna", b"secret")
    assert again.answer == (Identity("anna"), 0)
    assert again.peer.proof is not None
    assert HASHED == [b"secret"]


async def test_a_wrong_password_is_wrong_also_for_who_is_known(logins):
    await Asked(logins, Peer(), "anna", b"secret").settled()
    for user, password in [("anna", b"Secret"), ("bert", b"secret"), ("anna", b"")]:
        assert await Asked(logins, Peer(), user, password).settled() == (None, WRONG)
    assert logins.failed == 3


async def test_who_is_not_there_costs_the_same_hash_as_who_is(clock, monkeypatch):
    users = {name: quick(name, b"secret", 77) for name in ("anna", "bert")} | {"carl": quick("carl", b"x", 5)}
    costs = []
    real = Password.verify
    monkeypatch.setattr(Password, "verify", lambda self, given: costs.append(self.cost) or real(self, given))
    logins = Logins(users, 30, clock)
    for user in ("anna", "nobody", "bert", "nobody", "Anna", "anna\0"):
        assert await Asked(logins, Peer(), user, b"wrong").settled() == (None, WRONG)
    assert costs == [(77,)] * 6
    logins.close()


async def test_an_empty_password_file_lets_nobody_in(clock):
    logins = Logins({}, 3, clock)
    assert await Asked(logins, Peer(), "anna", b"secret").settled() == (None, WRONG)
    assert Asked(logins, Peer(), None, None).answer == (None, NOT_AUTHORIZED)
    logins.close()


async def test_an_address_that_was_wrong_too_often_is_refused_without_a_hash(logins, clock):
    for _ in range(3):
        assert await Asked(logins, Peer(), "anna", b"no").settled() == (None, WRONG)
    HASHED.clear()
    assert [Asked(logins, Peer(), "anna", b"secret").answer for _ in range(50)] == [(None, TOO_OFTEN)] * 50
    assert HASHED == []
    assert (logins.failed, logins.limited) == (3, 50)
    # Others are not meant.
    assert await Asked(logins, Peer(address="192.0.2.2"), "anna", b"secret").settled() == (
        Identity("anna"),
        0,
    )
    # Who is known is let in at once, from there too.
    assert Asked(logins, Peer(), "anna", b"secret").answer == (Identity("anna"), 0)
    # One more try each second.
    clock.now += 1
    assert await Asked(logins, Peer(), "bert", b"no").settled() == (None, WRONG)
    assert Asked(logins, Peer(), "bert", b"other").answer == (None, TOO_OFTEN)


async def test_no_more_can_be_wrong_at_once_than_may_be_wrong(logins):
    GATE.clear()
    asked = [Asked(logins, Peer(), "anna", b"guess %d" % number) for number in range(100)]
    assert not any(each.answers for each in asked)
    GATE.set()
    answers = [await each.settled() for each in asked]
    assert answers == [(None, WRONG)] * 3 + [(None, TOO_OFTEN)] * 97
    assert len(HASHED) == 3


async def test_many_right_ones_from_one_address_are_all_let_in(clock):
    users = {f"u{number}": gated(f"u{number}", b"p%d" % number) for number in range(200)}
    logins = Logins(users, 3, clock)
    asked = [Asked(logins, Peer(), f"u{number}", b"p%d" % number) for number in range(200)]
    assert [await each.settled() for each in asked] == [(Identity(user), 0) for user in users]
    assert (logins.failed, logins.limited) == (0, 0)
    logins.close()


async def test_500_devices_with_one_user_cost_two_hashes(logins):
    GATE.clear()
    asked = [Asked(logins, Peer(address=f"10.0.{n // 250}.{n % 250}"), "anna", b"secret") for n in range(500)]
    GATE.set()
    assert [await each.settled() for each in asked] == [(Identity("anna"), 0)] * 500
    assert len(HASHED) <= module.THREADS


async def test_the_queue_is_bounded(logins):
    GATE.clear()
    peers = [Peer(address=f"10.0.{n // 250}.{n % 250}") for n in range(module.WAITING_MAX + 5)]
    asked = [Asked(logins, peer, "anna", b"no") for peer in peers]
    assert [each.answer for each in asked[-5:]] == [(None, BUSY)] * 5
    assert not any(each.answers for each in asked[:-5])
    GATE.set()
    assert {await each.settled() for each in asked[:-5]} == {(None, WRONG)}


async def test_given_a_crowd_from_one_address_then_one_from_elsewhere_is_next_but_four(clock):
    logins = Logins({"anna": gated("anna", b"secret")}, 1_000, clock)
    GATE.clear()
    crowd = [Asked(logins, Peer(), "anna", b"no %d" % n) for n in range(module.WAITING_MAX)]
    assert [each.answer for each in crowd if each.answers][:1] == [(None, BUSY)]
    guest = Asked(logins, Peer(address="192.0.2.2"), "anna", b"secret")
    assert guest.answers == []
    GATE.set()
    assert await guest.settled() == (Identity("anna"), 0)
    assert HASHED.index(b"secret") <= TRYING_MAX
    for each in crowd:
        await each.settled()
    logins.close()


async def test_who_left_is_not_hashed_for(logins):
    GATE.clear()
    asked = [Asked(logins, Peer(address=f"10.0.0.{n}"), "anna", b"no") for n in range(10)]
    for each in asked[2:]:
        each.peer.gone = True
    GATE.set()
    for each in asked:
        await each.settled()
    assert len(HASHED) == 2
    assert logins.failed == 2


@pytest.mark.parametrize(
    ("users", "answer"),
    [
        ({}, (None, WRONG)),
        ({"anna": gated("anna", b"another")}, (None, WRONG)),
        ({"anna": gated("anna", b"secret")}, (Identity("anna"), 0)),
        (None, (None, NOT_AUTHORIZED)),
    ],
    ids=["removed", "changed", "the same, read again", "no users any more"],
)
async def test_given_a_reload_while_a_password_is_hashed_then_the_new_file_counts(logins, users, answer):
    GATE.clear()
    asked = [Asked(logins, Peer(), "anna", b"secret") for _ in range(3)]  # two in threads, one waits
    logins.replace(users)
    GATE.set()
    assert [await each.settled() for each in asked] == [answer] * 3


async def test_given_a_reload_then_who_was_known_has_to_prove_it_again(logins):
    await Asked(logins, Peer(), "anna", b"secret").settled()
    await Asked(logins, Peer(), "bert", b"other").settled()
    logins.replace({"anna": gated("anna", b"new"), "bert": gated("bert", b"other")})
    assert Asked(logins, Peer(), "bert", b"other").answer == (Identity("bert"), 0)
    assert await Asked(logins, Peer(), "anna", b"secret").settled() == (None, WRONG)
    assert await Asked(logins, Peer(), "anna", b"new").settled() == (Identity("anna"), 0)
    logins.replace({})
    assert await Asked(logins, Peer(address="192.0.2.7"), "bert", b"other").settled() == (None, WRONG)


async def test_a_reload_finds_those_whose_proof_counts_no_more(logins):
    anna, bert, nobody, cert, claimed = (Peer() for _ in range(5))
    await Asked(logins, anna, "anna", b"secret").settled()
    await Asked(logins, bert, "bert", b"other").settled()
    nobody.door = door(anonymous=True)
    cert.certificate_user = "anna"
    for peer in (nobody, cert):
        Asked(logins, peer)
    assert all(logins.still_holds(peer) for peer in (anna, bert, nobody, cert))
    logins.replace({"anna": gated("anna", b"new"), "bert": gated("bert", b"other")})
    assert [logins.still_holds(peer) for peer in (anna, bert, nobody, cert)] == [False, True, True, True]
    logins.replace(None)
    claimed.door = door(anonymous=True, unverified_users=True)
    Asked(logins, claimed, "anna", None)
    assert [logins.still_holds(peer) for peer in (bert, nobody, cert, claimed)] == [False, True, True, True]
    nobody.door.anonymous = claimed.door.unverified_users = False
    cert.door.user_from = "password"
    assert not any(logins.still_holds(peer) for peer in (nobody, cert, claimed))


async def test_given_a_stop_then_nobody_waits_for_ever(logins):
    GATE.clear()
    asked = [Asked(logins, Peer(address=f"10.0.0.{n}"), "anna", b"secret") for n in range(10)]
    logins.close()
    assert [each.answer for each in asked] == [(None, LEAVING)] * 10
    GATE.set()
    late = Asked(logins, Peer(), "anna", b"secret")
    await asyncio.sleep(0.05)
    assert late.answer == (None, LEAVING)
    assert all(len(each.answers) == 1 for each in asked)
    assert len(HASHED) <= module.THREADS


async def test_given_one_device_that_we_fail_at_then_the_others_are_let_in(logins, caplog):
    def fail(identity, reason, text):
        raise RuntimeError("a mistake of ours")

    unlucky = Peer()
    GATE.clear()
    logins.check(unlucky, Connect("c", user_name="anna", password=b"secret"), fail)
    lucky = [Asked(logins, Peer(), "bert", b"other") for _ in range(5)]
    GATE.set()
    assert [await each.settled() for each in lucky] == [(Identity("bert"), 0)] * 5
    await until(lambda: unlucky.closed == 0x83)
    assert "a mistake of ours" in caplog.text


async def test_given_no_memory_then_a_login_is_told_to_come_again(clock, caplog):
    class Greedy(Password, frozen=True):
        def verify(self, password):
            raise MemoryError

    read = quick("anna", b"secret")
    greedy = Greedy(read.user, read.hashed, read.scheme, read.cost, read.salt, read.expected)
    logins = Logins({"anna": greedy}, 3, clock)
    assert await Asked(logins, Peer(), "anna", b"secret").settled() == (None, BUSY)
    assert logins.failed == 0
    logins.close()


async def test_given_a_stop_while_a_password_is_hashed_then_the_device_is_told_and_no_thread_stays(tmp_path):
    write_users(tmp_path / "passwords", {"anna": "secret"})
    access = {"users": str(tmp_path / "passwords")}
    async with running(tmp_path, access=access, limits={"failed_logins": 7}) as gateway:
        gateway.broker.logins._users = {"anna": gated("anna", b"secret")}
        assert gateway.broker.logins._rates.failures_max == 7
        GATE.clear()
        device = Device(port_of(gateway))
        await device.open()
        device.send(Connect("c", 5, user_name="anna", password=b"secret"))
        await until(lambda: gateway.broker.logins._running)
        config = gateway.config.model_copy(update={"limits": HouseLimits(failed_logins=9)})
        gateway.reload(config)
        assert gateway.broker.logins._rates.failures_max == 9
    assert await device.goodbye() == LEAVING
    device.drop()
    GATE.set()
    await until(lambda: not [each for each in threading.enumerate() if each.name.startswith("login")])


ONE_ADDRESS = [
    ("192.0.2.1", "::ffff:192.0.2.1", True),
    ("192.0.2.1", "192.0.2.2", False),
    ("2001:db8::1", "2001:db8::2:3", True),
    ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ("fe80::1%eth0", "fe80::2%eth0", True),
    ("", "", True),
    ("", "127.0.0.1", False),
]


@pytest.mark.parametrize(("one", "other", "same"), ONE_ADDRESS)
def test_what_counts_as_one_address(clock, one, other, same):
    rates = Rates(3, clock)
    assert (rates.of(one) is rates.of(other)) is same


def test_the_table_of_addresses_is_bounded_and_keeps_who_is_busy(clock):
    rates = Rates(3, clock)
    busy = rates.of("busy")
    busy.waiting.append("somebody")
    rates.next(busy)
    for number in range(2 * ADDRESSES_MAX):
        rates.of(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(rates) == ADDRESSES_MAX
    assert rates.of("busy") is busy


@pytest.mark.parametrize(("version", "user"), [(4, "anna"), (5, "anna"), (5, None)])
async def test_a_message_knows_who_published_it_also_one_that_was_a_will(tmp_path, version, user):
    users = write_users(tmp_path / "passwords", {"anna": "secret"})
    access = {"users": str(users)}
    routes = {"mine": {"from": "#", "to": "cloud", "where": 'user == "anna"', "address": "{user}/{topic}"}}
    listeners = [{"mqtt": "127.0.0.1:0", "anonymous": True}]
    async with running(tmp_path, access=access, routes=routes, listeners=listeners) as gateway:
        device = Device(port_of(gateway), version)
        await device.open()
        password = b"secret" if user else None
        device.send(Connect("press-7", version, True, 0, user, password, Will("gone", b"x", 1)))
        await device.expect(Connack)
        device.publish("here")
        await device.expect(Puback)
        device.drop()
        account = gateway.forwarders[0].account
        await until(lambda: account.accepted == 2 and not account.stored)
        addresses = [each.address for each in sink_of(gateway).received]
        assert addresses == (["anna/here", "anna/gone"] if user else [])
        assert account.tally.filtered == (0 if user else 2)
