import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import StoreFailed
from bridge.store.files import OS_FILES
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import RawRecord, encode_one, magic_of
from bridge.store.segment import (
    HEADER_BYTES,
    Damage,
    Earlier,
    Header,
    Segment,
    file_name,
    new_salt,
    read_header,
    scan,
)

HEADER = Header(salt=0xA1B2C3D4, base=1 << 40, follows=(1 << 40) - 3, sequence=12, epoch=77)

# The bytes of one header, as the format page has them; whoever changes them changes the version.
SPELLED = (
    "65646765 73706c0a 01 000000 d4c3b2a1 0000000000010000 fdffffffff000000 0c00000000000000 4d000000"
).replace(" ", "")


AGAIN = HEADER._replace(earlier=Earlier(salt=0x0A0B0C0D, base=1 << 33))
SPELLED_AGAIN = SPELLED.replace("73706c0a01", "73706c0a02") + "0d0c0b0a" + "0000000002000000"


@pytest.mark.parametrize(("header", "spelled"), [(HEADER, SPELLED), (AGAIN, SPELLED_AGAIN)])
def test_a_header_is_spelled_as_the_format_page_says(header, spelled):
    assert header.encode().hex().startswith(spelled)
    assert len(header.encode()) == HEADER_BYTES
    assert read_header(header.encode(), "x") == header


@given(st.sampled_from([HEADER, AGAIN]), st.integers(0, 8 * HEADER_BYTES - 1))
def test_one_rotten_bit_costs_a_header_nothing(header, bit):
    data = bytearray(header.encode())
    data[bit // 8] ^= 1 << bit % 8
    assert read_header(bytes(data), "x") == header


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_file_used_again_never_has_the_magic_that_it_had(luck, salt):
    assert magic_of(new_salt(luck, Earlier(salt, 0))) != magic_of(salt)
    assert magic_of(new_salt(salt, Earlier(salt, 0))) != magic_of(salt)


@given(st.binary(max_size=HEADER_BYTES))
def test_any_bytes_are_a_header_or_none(data):
    assert read_header(data, "x") is None


@given(st.integers(3, 255))
def test_a_newer_version_is_refused_whatever_else_it_changed(version):
    data = (b"edgespl\n" + bytes([version]) + b"?" * 55) * 2
    with pytest.raises(StoreFailed, match=f"format {version}"):
        read_header(data, "x")


def test_names_sort_like_positions():
    bases = [0, 9, 10, 2**32, 2**63]
    assert sorted(map(file_name, bases)) == [file_name(base) for base in bases]


@pytest.fixture
def segment(tmp_path):
    path = str(tmp_path / "one.seg")
    segment = Segment(OS_FILES, path, HEADER, OS_FILES.create(path))
    yield segment
    segment.close()


def filled(segment, *pieces):
    """Write records (by their body) and raw bytes, in a row; return where each begins."""
    position, begins = segment.first, []
    for number, piece in enumerate(pieces):
        begins.append(position)
        data = piece if isinstance(piece, bytes) else encode_one(1, b"body", position, number, HEADER.salt)
        segment.write(position, data)
        position += len(data)
    return [*begins, position]


R = "a record"


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([], []),
        ([R, R], [(0, 1), (1, 2)]),
        ([R, bytes(50)], [(0, 1)]),
        ([R, b"torn"], [(0, 1), ("tail", 1, 2)]),
        ([b"rot", R], [("rot", 0, 1), (1, 2)]),
        ([R, b"rot" * 9, R], [(0, 1), ("rot", 1, 2), (2, 3)]),
        ([R, bytes(30), R], [(0, 1), ("rot", 1, 2), (2, 3)]),
        ([R, b"rot", R, b"torn", bytes(9)], [(0, 1), ("rot", 1, 2), (2, 3), ("tail", 3, 4)]),
    ],
)
def test_a_scan_finds_every_record_and_every_stretch_that_is_none(segment, pieces, found):
    at = filled(segment, *pieces)
    seen = []
    for one in scan(segment, at[-1]):
        if isinstance(one, Damage):
            seen.append(("tail" if one.at_tail else "rot", at.index(one.begin), at.index(one.end)))
        else:
            seen.append((one.sequence, at.index(one.end)))
    assert seen == found


def test_a_closed_segment_opens_by_itself(segment):
    segment.close()
    assert not segment.is_open
    assert segment.read(segment.base, 1) == b""
    assert segment.is_open


# ---- a file that is used again -----------------------------------------------------


class Palimpsest:
    """A file full of old records, and a segment that is being written over them."""

    OLD = 200  # old records
    HEADER = AGAIN

    def __init__(self, path, old_body=b"an old body"):
        earlier = self.HEADER.earlier
        old = Segment(
            OS_FILES, path, Header(earlier.salt, earlier.base, earlier.base, 1, 7), OS_FILES.create(path)
        )
        at, self.old_at = old.first, []
        for number in range(self.OLD):
            self.old_at.append(at - old.base)
            data = encode_one(1, old_body, at, number, earlier.salt)
            old.write(at, data)
            at += len(data)
        self.size = at - old.base
        old.close()
        self.segment = Segment(OS_FILES, path, self.HEADER)
        self.segment.write(self.segment.base, self.HEADER.encode())
        self.end = self.segment.first
        self.room_end = self.segment.base + self.size

    def record(self, body):
        return encode_one(1, body, self.end, 0, self.HEADER.salt)

    def write(self, body):
        data = self.record(body)
        self.segment.write_records(self.end, data, self.room_end)
        self.end += len(data)

    def found(self):
        return list(scan(self.segment, self.room_end))

    def records(self):
        return [one.body for one in self.found() if isinstance(one, RawRecord)]

    def damage(self):
        return [one for one in self.found() if isinstance(one, Damage)]


@pytest.fixture
def palimpsest(tmp_path):
    palimpsest = Palimpsest(str(tmp_path / "one.seg"))
    yield palimpsest
    palimpsest.segment.close()


def test_what_lay_in_the_file_is_neither_a_record_nor_torn_nor_rotten(palimpsest):
    assert palimpsest.found() == []
    for number in range(50):
        palimpsest.write(b"x" * (number * 7 % 23))
        assert len(palimpsest.records()) == number + 1
        assert palimpsest.damage() == []


def test_up_to_the_last_byte_of_the_file_there_is_room(palimpsest):
    room = palimpsest.room_end - palimpsest.end - RECORD_BYTES
    for left in range(2 * RECORD_BYTES, -1, -1):
        palimpsest.end = palimpsest.segment.first
        palimpsest.write(b"x" * (room - left))
        assert len(palimpsest.records()) == 1
        assert palimpsest.damage() == []
        assert palimpsest.segment.size == palimpsest.size


@given(data=st.data())
def test_a_write_torn_anywhere_is_found_and_the_damage_ends_about_where_it_ended(tmp_path_factory, data):
    path = str(tmp_path_factory.mktemp("torn") / "one.seg")
    palimpsest = Palimpsest(path)
    try:
        palimpsest.write(b"safe")
        batch = b""
        begin = palimpsest.end
        for size in data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=8)):
            one = palimpsest.record(b"n" * size)
            batch += one
            palimpsest.end += len(one)
        batch += bytes(RECORD_BYTES)
        sector = data.draw(st.sampled_from([16, 64, 512]))
        written = begin
        for at in range(0, len(batch), sector):
            if data.draw(st.booleans()):
                palimpsest.segment.write(begin + at, batch[at : at + sector])
                written = begin + at + len(batch[at : at + sector])
        bodies, damage = palimpsest.records(), palimpsest.damage()
        assert bodies[0] == b"safe"
        assert all(body == b"n" * len(body) for body in bodies[1:])
        old_record = RECORD_BYTES + len(b"an old body")
        for one in damage:
            assert one.begin >= begin
            assert one.end <= written + old_record, "old records are no part of it"
    finally:
        palimpsest.segment.close()


def test_given_the_last_record_rotten_then_the_log_ends_behind_it_and_not_at_the_end_of_the_file(palimpsest):
    palimpsest.write(b"safe")
    begin = palimpsest.end
    palimpsest.write(b"rotten")
    end = palimpsest.end
    palimpsest.segment.write(begin + 1, b"?")
    [damage] = palimpsest.damage()
    assert (damage.begin, damage.at_tail) == (begin, True)
    assert end <= damage.end <= end + RECORD_BYTES + RECORD_BYTES + len(b"an old body")


def test_given_a_rotten_record_with_others_behind_it_then_only_that_is_stepped_over(palimpsest):
    palimpsest.write(b"one")
    begin = palimpsest.end
    palimpsest.write(b"two")
    end = palimpsest.end
    palimpsest.write(b"three")
    palimpsest.segment.write(begin + 1, b"?")
    assert palimpsest.damage() == [Damage(begin, end, at_tail=False)]
    assert palimpsest.records() == [b"one", b"three"]


def test_rot_in_what_is_old_is_nobodys_damage(palimpsest):
    palimpsest.write(b"one")
    for at in range(palimpsest.end - palimpsest.segment.base + RECORD_BYTES, palimpsest.size, 97):
        palimpsest.segment.write(palimpsest.segment.base + at, b"?")
    assert palimpsest.damage() == []
