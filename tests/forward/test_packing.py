"""Batches as packs: every message settled by itself, in order for each address, and none too large."""

import asyncio
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import SinkUnavailable
from bridge.forward.letters import Selection
from bridge.forward.orders import LetterOrder, letter_desk
from bridge.forward.packing import Packer, sender
from bridge.forward.redelivery import Redelivery
from bridge.message import Message
from bridge.policy.pack import PACK_BYTES_MAX, Pack, pack_id
from bridge.sinks.base import Outgoing, Refusal
from bridge.sinks.memory import MemorySink
from bridge.sinks.metadata import metadata
from bridge.sinks.receiver import unpacked

RECEIVED_NS = 1_772_344_800_012_345_678
PACKS = [
    Pack(form, compress) for form in ("ndjson", "json", "length_prefixed") for compress in (None, "zlib")
]


def outgoing(number, address="a", payload=None, **more):
    payload = b"%d" % number if payload is None else payload
    message = Message(f"plant/{number % 3}", payload, 1, False, "press-1", RECEIVED_NS + number)
    return Outgoing(f"plant-7/5f/{number}", address, message, **more)


def opened(sent):
    """What a receiver makes of what was sent: (number of the id, address, payload)."""
    meta = {"id": sent.id, "topic": sent.message.topic, "address": sent.address}
    meta |= {"headers": dict(sent.headers), "content_encoding": sent.content_encoding}
    return [
        (int(one.id.rpartition("/")[2]), one.address, one.payload) for one in unpacked(meta, sent.payload)
    ]


class Far(MemorySink):
    """A far end that knows which messages it will never take, and refuses whatever they are in."""

    def __init__(self, guilty=()):
        super().__init__("cloud")
        self.guilty = set(guilty)
        self.calls = []
        self.judge = lambda sent: "never" if self.guilty & {number for number, _, _ in opened(sent)} else None

    async def send_batch(self, batch):
        self.calls.append(batch)
        return await super().send_batch(batch)

    def numbers(self, address=None):
        return [
            number
            for sent in self.received
            for number, to, _ in opened(sent)
            if address is None or to == address
        ]


@pytest.fixture
async def far():
    far = Far()
    await far.open()
    return far


async def packed(far, batch, pack=PACKS[0]):
    return await sender(Packer(pack), far.send_batch)(batch)


@pytest.mark.parametrize("pack", PACKS, ids=repr)
async def test_a_batch_travels_as_one_and_comes_out_whole(far, pack):
    batch = [outgoing(n, payload=bytes([n, 255])) for n in range(100)]
    assert await packed(far, batch, pack) == []
    (sent,) = far.received
    assert opened(sent) == [(n, "a", bytes([n, 255])) for n in range(100)]
    assert sent.content_type == pack.content_type
    assert dict(sent.headers) == {
        "pack": pack.format,
        "pack_count": "100",
        "pack_first": "plant-7/5f/0",
        "pack_last": "plant-7/5f/99",
    }


async def test_without_a_packer_nothing_is_done(far):
    assert sender(None, far.send_batch) == far.send_batch


async def test_what_a_receiver_is_told_of_a_message_is_the_same_with_packs_and_without(far):
    plain = outgoing(
        7, headers=(("site", "Köln"),), body=b"{}", content_type="application/json", replayed=True
    )
    await packed(far, [plain])
    (one,) = unpacked(
        {"headers": dict(far.received[0].headers), "id": "", "topic": "", "address": ""},
        far.received[0].payload,
    )
    assert one.meta == msgspec.json.decode(msgspec.json.encode(metadata(plain)))
    assert one.payload == b"{}"
    assert far.received[0].replayed


async def test_a_pack_is_replayed_if_all_of_it_is_and_each_message_says_it_for_itself(far):
    await packed(far, [outgoing(0, replayed=True), outgoing(1)])
    await packed(far, [outgoing(0, replayed=True), outgoing(1, replayed=True)])
    assert [each.replayed for each in far.received] == [False, True]
    meta = {"id": "", "topic": "", "address": "", "headers": dict(far.received[0].headers)}
    assert [one.meta.get("replayed") for one in unpacked(meta, far.received[0].payload)] == [True, None]


async def test_each_address_has_its_own_packs_and_its_order(far):
    batch = [outgoing(n, address="abc"[n * n % 3]) for n in range(60)]
    await packed(far, batch)
    assert len(far.received) == len({each.address for each in batch})
    for address in "abc":
        assert far.numbers(address) == [n for n in range(60) if "abc"[n * n % 3] == address]


async def test_the_same_messages_have_the_same_ids_and_bodies_again(far):
    batch = [outgoing(n) for n in range(10)]
    await packed(far, batch)
    await packed(far, batch)
    first, second = far.received
    assert first == second
    assert first.id == pack_id([each.id for each in batch])


async def test_no_pack_is_larger_than_the_bound_and_what_is_larger_itself_travels_as_it_is(far):
    luck = random.Random(5)
    sizes = [luck.choice([10, 5_000, 200_000, PACK_BYTES_MAX + 1]) for _ in range(60)]
    batch = [outgoing(n, payload=bytes(size)) for n, size in enumerate(sizes)]
    assert await packed(far, batch, Pack("length_prefixed")) == []
    assert far.numbers() == list(range(60)), "in order, also around those"
    for sent in far.received:
        if sent.headers:
            assert len(sent.payload) <= PACK_BYTES_MAX
        else:
            assert len(sent.payload) > PACK_BYTES_MAX
            assert sent is batch[opened(sent)[0][0]]


async def test_of_a_pack_that_is_refused_only_the_guilty_are(far):
    far.guilty = {3, 57}
    batch = [outgoing(n, address="ab"[n % 2]) for n in range(100)]
    assert await packed(far, batch) == [Refusal(3, "never"), Refusal(57, "never")]
    assert sorted(far.numbers()) == [n for n in range(100) if n not in (3, 57)]
    assert far.numbers("a") == list(range(0, 100, 2)), "the other address is not touched"
    assert far.numbers("b") == [n for n in range(1, 100, 2) if n not in (3, 57)]
    alone = [each for each in far.received if dict(each.headers)["pack_count"] == "1"]
    assert len(alone) == 48, "one by one, each as a pack of one"


async def test_a_message_alone_that_is_refused_is_not_asked_about_twice(far):
    far.guilty = {0}
    assert await packed(far, [outgoing(0), outgoing(1, "b")]) == [Refusal(0, "never")]
    assert len(far.calls) == 1


async def test_while_the_guilty_one_is_looked_for_nothing_new_is_sent(far):
    far.guilty = {5}
    packer = Packer(PACKS[0])
    send = sender(packer, far.send_batch)
    first = asyncio.create_task(send([outgoing(n) for n in range(10)]))
    while len(far.calls) < 2:
        await asyncio.sleep(0)
    later = [asyncio.create_task(send([outgoing(n)])) for n in (10, 11, 12)]
    assert await first == [Refusal(5, "never")]
    assert await asyncio.gather(*later) == [[], [], []]
    assert far.numbers() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]


class Breaking:
    """Owns so many of what it is given, call after call, and breaks."""

    def __init__(self, *owns, guilty=()):
        self.owns = list(owns)
        self.guilty = set(guilty)
        self.owned = set()

    async def send_batch(self, batch):
        count = self.owns.pop(0)
        kept = batch if count is None else batch[:count]
        refusals = []
        for index, sent in enumerate(kept):
            numbers = {number for number, _, _ in opened(sent)}
            if self.guilty & numbers:
                refusals.append(Refusal(index, "never"))
            else:
                self.owned |= numbers
        if count is not None:
            raise SinkUnavailable("it broke", min([count, *(each.index for each in refusals)]))
        return refusals


async def test_when_the_link_breaks_what_is_confirmed_is_a_prefix_that_the_far_end_owns():
    batch = [outgoing(n, address="aabab"[n % 5]) for n in range(20)]
    far = Breaking(1)  # the pack of address a
    with pytest.raises(SinkUnavailable) as caught:
        await packed(far, batch)
    assert caught.value.confirmed == 2, "the third message is of address b"
    with pytest.raises(SinkUnavailable) as caught:
        await packed(Breaking(0), batch)
    assert caught.value.confirmed == 0


BREAKS = st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=2)


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12), BREAKS, st.sets(st.integers(0, 11), max_size=3)
)
@settings(max_examples=300)
def test_whatever_breaks_or_is_refused_nothing_is_called_delivered_that_is_not(addresses, owns, guilty):
    batch = [outgoing(n, address) for n, address in enumerate(addresses)]
    far = Breaking(*owns, None, None, guilty=guilty)
    broken = refusals = None
    try:
        refusals = asyncio.run(packed(far, batch))
    except SinkUnavailable as error:
        broken = error
    if broken is not None:
        assert set(range(broken.confirmed)) <= far.owned
        return
    refused = {each.index for each in refusals}
    assert refused == guilty & set(range(len(batch)))
    assert far.owned == set(range(len(batch))) - refused


# ---- a route that packs ----------------------------------------------------------------


async def test_a_route_that_packs_settles_every_message_by_itself(hall):
    far = Far({3, 42})
    far.judge = lambda sent: "never" if far.guilty & set(payloads(sent)) else None
    hall.sink = hall.keeper.sink = far
    route = hall.route(pack=Pack("ndjson", "zlib"))
    hall.run()
    await hall.append(*range(100))
    await hall.drained(route)
    tally = route.account.tally
    assert (tally.delivered, tally.refused) == (98, 2)
    assert sorted(payloads(*far.received)) == [n for n in range(100) if n not in (3, 42)]
    letters = [entry.message.payload for entry in hall.letters.read(0)]
    assert letters == [b"3", b"42"], "whole, and not as they were packed"


async def test_a_link_that_breaks_in_the_middle_of_packs_repeats_and_loses_nothing(hall):
    luck = random.Random(4)
    far = Far()
    far.judge = lambda sent: None
    hall.sink = hall.keeper.sink = far
    route = hall.route(pack=Pack("length_prefixed"), address="{topic}")
    hall.run()
    for round in range(10):
        for number in range(30):
            await hall.append(round * 30 + number, topic="ab"[number % 2])
        far.go_away()
        await asyncio.sleep(luck.uniform(0, 0.01))
        far.come_back()
    await hall.drained(route)
    assert route.account.tally.delivered == 300
    assert hall.backlog(route) == 0
    for address, rest in (("a", 0), ("b", 1)):
        seen = [n for sent in far.received if sent.address == address for n in payloads(sent)]
        assert list(dict.fromkeys(seen)) == [n for n in range(300) if n % 2 == rest], "first seen in order"


async def test_dead_letters_go_back_in_packs_too(hall):
    far = Far()
    far.judge = lambda sent: "not now"
    hall.sink = hall.keeper.sink = far
    route = hall.route(pack=Pack("json"))
    hall.run()
    await hall.append(*range(20))
    await hall.drained(route)
    far.judge = lambda sent: None
    hall.run(hall.letters)
    redelivery = Redelivery(
        letter_desk(str(hall.folder)), hall.letters, hall.forwarders, {"cloud": hall.keeper}
    )
    outcome = await redelivery._carry_out("now", _order(hall))
    assert outcome.settled == 20
    assert payloads(*far.received) == list(range(20))
    assert all(sent.replayed and dict(sent.headers)["pack_count"] == "10" for sent in far.received)


def payloads(*packs):
    """The numbers that lie in packs, whatever their ids are."""
    return [int(payload) for sent in packs for _, _, payload in opened(sent)]


def _order(hall):
    desk = letter_desk(str(hall.folder))
    desk.open()
    return LetterOrder("replay", Selection())
