import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import StoreFailed
from bridge.store.files import OS_FILES
from bridge.store.record import encode_one
from bridge.store.segment import HEADER_BYTES, Damage, Header, Segment, file_name, read_header, scan

HEADER = Header(salt=0xA1B2C3D4, base=1 << 40, follows=(1 << 40) - 3, sequence=12, epoch=77)

# The bytes of one header, as the format page has them; whoever changes them changes the version.
SPELLED = (
    "65646765 73706c0a 01 000000 d4c3b2a1 0000000000010000 fdffffffff000000 0c00000000000000 4d000000"
).replace(" ", "")


def test_a_header_is_spelled_as_the_format_page_says():
    assert HEADER.encode()[:44].hex() == SPELLED
    assert len(HEADER.encode()) == HEADER_BYTES


@given(st.integers(0, 8 * HEADER_BYTES - 1))
def test_one_rotten_bit_costs_a_header_nothing(bit):
    data = bytearray(HEADER.encode())
    data[bit // 8] ^= 1 << bit % 8
    assert read_header(bytes(data), "x") == HEADER


@given(st.binary(max_size=HEADER_BYTES))
def test_any_bytes_are_a_header_or_none(data):
    assert read_header(data, "x") is None


@given(st.integers(2, 255))
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
