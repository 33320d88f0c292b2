"""Many messages as one, there and back; and whatever else may be found in its place."""

import os
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.message import Message
from bridge.policy.envelope import document, envelope
from bridge.policy.pack import PACK_BYTES_MAX, Pack, PackError, Unpacked, has_zstd, pack_id, unpack
from tests.policy.test_envelope import MESSAGES, RECEIVED_NS, TEXTS

FORMATS = ["ndjson", "json", "length_prefixed"]
COMPRESSIONS = [None, "zlib", "zstd"]
PACKS = [Pack(form, compress) for form in FORMATS for compress in COMPRESSIONS]
BATCHES = st.lists(st.tuples(TEXTS, MESSAGES), min_size=1, max_size=8)


def packed(pack: Pack, batch: list[tuple[str, Message]]) -> bytes:
    with_payload = not pack.carries_payloads
    return pack.seal(
        [pack.item(envelope(id, "a.b", one, with_payload=with_payload), one.payload) for id, one in batch]
    )


def opened(pack: Pack, body: bytes) -> list[Unpacked]:
    return unpack(body, pack.format, pack.content_encoding)


def telemetry(count: int = 20) -> list[tuple[str, Message]]:
    return [
        (f"plant-7/5f/{n}", Message(f"plant/{n % 3}", b'{"t": %d}' % n, 1, received_ns=RECEIVED_NS + n))
        for n in range(count)
    ]


def _check(error: PackError) -> None:
    assert str(error), "it says nothing"


def test_the_library_for_zstd_is_here():
    assert has_zstd()


@pytest.mark.parametrize("pack", PACKS, ids=repr)
@given(BATCHES)
@settings(max_examples=40)
def test_every_message_comes_out_as_it_went_in(pack, batch):
    found = opened(pack, packed(pack, batch))
    assert [one.envelope.id for one in found] == [id for id, _ in batch]
    assert [one.payload for one in found] == [message.payload for _, message in batch]
    for one, (_, message) in zip(found, batch, strict=True):
        told = one.envelope.message
        assert (told.topic, told.qos, told.retain, told.publisher) == (
            message.topic, message.qos, message.retain, message.publisher,
        )  # fmt: skip
        assert (told.received_ns, told.properties) == (message.received_ns, message.properties)


@pytest.mark.parametrize("content_encoding", ["", "deflate", "zstd", "br"])
@pytest.mark.parametrize("form", [*FORMATS, "csv"])
@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_any_bytes_are_messages_or_one_clear_error(form, content_encoding, body):
    try:
        assert unpack(body, form, content_encoding)
    except PackError as error:
        _check(error)


@pytest.mark.parametrize("pack", PACKS, ids=repr)
def test_a_pack_that_was_spoilt_is_messages_or_one_clear_error(pack):
    luck = random.Random(7)
    good = packed(pack, telemetry())
    for _ in range(400):
        body = bytearray(good)
        for _ in range(luck.randrange(1, 4)):
            at = luck.randrange(len(body))
            match luck.randrange(4):
                case 0:
                    body[at] = luck.randrange(256)
                case 1:
                    del body[at : at + luck.randrange(1, 9)]
                case 2:
                    body[at:at] = luck.randbytes(luck.randrange(1, 9))
                case 3:
                    body[at:at] = body[: luck.randrange(len(body))]
            if not body:
                break
        try:
            assert opened(pack, bytes(body))
        except PackError as error:
            _check(error)


@pytest.mark.parametrize("pack", [p for p in PACKS if p.format != "ndjson" or p.compress], ids=repr)
def test_a_pack_that_was_cut_short_is_noticed(pack):
    good = packed(pack, telemetry(3))
    for end in range(len(good)):
        if pack == Pack("length_prefixed") and _at_a_border(good, end):
            continue  # what it was cut from carries the count
        with pytest.raises(PackError):
            opened(pack, good[:end])


def _at_a_border(good: bytes, end: int) -> bool:
    at, borders = 4, []
    while at < len(good):
        for _ in range(2):
            at += 4 + int.from_bytes(good[at : at + 4], "big")
        borders.append(at)
    return end in borders


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content_encoding", ["deflate", "zstd"])
def test_a_bomb_is_refused_and_costs_no_more_than_the_bound(form, content_encoding):
    bombs = {
        "deflate": zlib.compress(bytes(64 << 20), 9),
        "zstd": pytest.importorskip("zstandard").ZstdCompressor().compress(bytes(64 << 20)),
    }
    tracemalloc.start()
    try:
        with pytest.raises(PackError, match="larger than 1,048,576 bytes"):
            unpack(bombs[content_encoding], form, content_encoding)
        assert tracemalloc.get_traced_memory()[1] < 3 * PACK_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_that_lies_about_its_size_or_hides_it_is_refused():
    zstandard = pytest.importorskip("zstandard")
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    with pytest.raises(PackError, match="does not say how large"):
        unpack(silent, "ndjson", "zstd")
    twice = Pack("ndjson", "zstd").seal([b"{}"]) * 2
    with pytest.raises(PackError):
        unpack(twice, "ndjson", "zstd")


def test_what_is_larger_than_a_pack_may_be_does_not_fit():
    pack = Pack("ndjson")
    small = document(envelope("1", "", Message("t", b"x" * 1000, received_ns=RECEIVED_NS)))
    assert pack.fits(small)
    assert not pack.fits(bytes(PACK_BYTES_MAX))


@pytest.mark.parametrize("pack", PACKS, ids=repr)
def test_a_pack_that_is_filled_to_the_brim_can_be_opened(pack):
    items, size = [], 0
    payload = os.urandom(9_000)
    while True:
        one = Message("t", payload, received_ns=RECEIVED_NS)
        item = pack.item(envelope("1", "", one, with_payload=not pack.carries_payloads), payload)
        if size + pack.size(item) > PACK_BYTES_MAX:
            break
        items.append(item)
        size += pack.size(item)
    assert len(opened(pack, pack.seal(items))) == len(items)


def test_the_same_messages_have_the_same_pack_id_and_others_another():
    ids = [f"plant-7/5f/{n}" for n in range(100)]
    assert pack_id(ids) == pack_id(list(ids))
    assert pack_id(ids).startswith("plant-7/5f/0+99.")
    assert pack_id(ids) != pack_id([*ids[:50], *ids[51:], ids[50]])
    assert pack_id(ids[:1]) != ids[0]


@pytest.mark.parametrize(
    ("body", "form", "why"),
    [
        (b"", "ndjson", "no end"),
        (b"[]", "json", "empty"),
        (b"ESP1", "length_prefixed", "empty"),
        (b"ESP2", "length_prefixed", "begins with ESP1"),
        (b"ESP1\0\0\0\xff", "length_prefixed", "in the middle of a message, at byte 4"),
        (b"{}\n", "ndjson", "no envelope"),
        (b"[" * 100_000, "json", "no array"),
        (b"{}", "xml", "there is no pack 'xml'"),
    ],
)
def test_an_error_says_what_is_wrong(body, form, why):
    with pytest.raises(PackError, match=why):
        unpack(body, form)


def test_a_line_with_two_payloads_or_none_is_no_message():
    line = document(envelope("1", "a", Message("t", b"x", received_ns=RECEIVED_NS)))
    for spoilt in (line.replace(b',"payload":"x"', b""), line[:-1] + b',"payload_b64":"eA=="}'):
        with pytest.raises(PackError, match="needs one of payload and payload_b64"):
            unpack(spoilt + b"\n", "ndjson")
