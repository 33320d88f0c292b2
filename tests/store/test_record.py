"""Any bytes: entries, *need more* or damage; nothing else, and never an altered message."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Message, Properties
from bridge.store.record import (
    HEADER_BYTES,
    MESSAGE,
    decode_all,
    encode_all,
    encode_one,
    find_next,
    magic_of,
    read_record,
)

salts = st.integers(0, 2**32 - 1)
bases = st.integers(0, 2**50)
messages = st.builds(
    Message,
    topic=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    payload=st.binary(max_size=60),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    publisher=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    received_ns=st.integers(0, 2**63 - 1),
    properties=st.none()
    | st.builds(
        Properties,
        message_expiry_interval_s=st.none() | st.integers(0, 2**32 - 1),
        user_properties=st.lists(st.tuples(st.just("k"), st.just("v"))).map(tuple),
    ),
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)


@given(st.lists(messages, max_size=5), st.data(), bases, salts)
def test_what_is_encoded_is_decoded(some, data, base, salt):
    notes = {at: b"note" for at in range(len(some)) if data.draw(st.booleans())}
    encoded, entries = encode_all(some, notes, base, 7, salt, 1 << 20)
    decoded, stopped, needs = decode_all(encoded, 0, base, salt, 99)
    assert decoded == entries
    assert [entry.message for entry in decoded] == some
    assert [entry.note for entry in decoded] == [notes.get(at, b"") for at in range(len(some))]
    assert [entry.sequence for entry in decoded] == list(range(7, 7 + len(some)))
    assert (stopped, needs) == (len(encoded), HEADER_BYTES)


@given(st.lists(messages, min_size=1, max_size=5), st.integers(0, 500), bases, salts)
def test_no_more_is_encoded_than_there_is_room(some, room, base, salt):
    encoded, entries = encode_all(some, {}, base, 1, salt, room)
    assert len(encoded) <= room
    whole, all_entries = encode_all(some, {}, base, 1, salt, 1 << 20)
    assert whole.startswith(encoded)
    assert entries == [entry for entry in all_entries if entry.end - base <= room]


@given(messages, bases, salts)
def test_every_proper_prefix_asks_for_more(message, base, salt):
    encoded, _ = encode_all([message], {}, base, 1, salt, 1 << 20)
    for size in range(len(encoded)):
        entries, stopped, needs = decode_all(encoded[:size], 0, base, salt, 9)
        assert (entries, stopped) == ([], 0)
        assert needs == (HEADER_BYTES if size < HEADER_BYTES else len(encoded))
        assert read_record(encoded[:size], 0, base, salt) is None


@given(st.binary(max_size=200), st.integers(0, 9), bases, salts)
def test_any_bytes_are_entries_need_more_or_damage(data, count_max, base, salt):
    entries, stopped, needs = decode_all(data, 0, base, salt, count_max)
    assert needs is None or needs >= 0
    assert 0 <= stopped <= len(data)
    assert len(entries) <= count_max


@given(st.binary(max_size=60), st.integers(0, 255), bases, salts)
def test_a_sound_record_with_any_body_is_an_entry_or_damage(body, kind, base, salt):
    encoded = encode_one(kind, body, base, 1, salt)
    entries, _, needs = decode_all(encoded, 0, base, salt, 1)
    assert needs == 0 if entries else needs is None


@given(st.lists(messages, min_size=3, max_size=5), st.data(), bases, salts)
def test_given_one_rotten_bit_all_other_records_are_found(some, data, base, salt):
    encoded, entries = encode_all(some, {}, base, 1, salt, 1 << 20)
    bit = data.draw(st.integers(0, 8 * (entries[-1].position - base) - 1))
    rotten = bytearray(encoded)
    rotten[bit // 8] ^= 1 << bit % 8
    found, at = [], 0
    while at is not None and at < len(rotten):
        more, at, _ = decode_all(bytes(rotten), at, base, salt, 99)
        found += more
        if at < len(rotten):
            at = find_next(bytes(rotten), at, base, salt)
    assert found == [entry for entry in entries if not entry.position - base <= bit // 8 < entry.end - base]


@given(messages, bases, st.integers(1, 2**32 - 1), salts)
def test_a_record_counts_only_where_it_was_written(message, base, distance, salt):
    encoded, _ = encode_all([message], {}, base, 1, salt, 1 << 20)
    assert read_record(encoded, 0, base, salt) is not None
    assert read_record(encoded, 0, base + distance, salt) is None
    assert decode_all(encoded, 0, base + distance, salt, 9)[2] is None


@given(messages, bases, salts, salts)
def test_a_record_of_another_segment_does_not_count(message, base, salt, other):
    encoded, _ = encode_all([message], {}, base, 1, salt, 1 << 20)
    assert (read_record(encoded, 0, base, other) is None) == (salt != other)


def test_the_search_for_the_next_record_never_answers_with_the_one_it_starts_at():
    encoded = encode_one(MESSAGE, b"", 0, 1, 5) + encode_one(MESSAGE, b"", HEADER_BYTES, 2, 5)
    assert find_next(encoded, 0, 0, 5) == HEADER_BYTES
    assert find_next(encoded, HEADER_BYTES, 0, 5) is None


@given(salts)
def test_the_magic_is_neither_zero_nor_text(salt):
    assert all(byte >= 0x80 for byte in magic_of(salt).to_bytes(2, "little"))


def test_a_record_from_before_messages_knew_their_users_is_read():
    body = msgspec.msgpack.encode(["a/b", b"x", 1, False, "press-7", 5, None])
    encoded = encode_one(MESSAGE, body, 0, 7, 1)
    [entry], _, _ = decode_all(encoded, 0, 0, 1, 10)
    assert entry.message == Message("a/b", b"x", 1, False, "press-7", 5)
