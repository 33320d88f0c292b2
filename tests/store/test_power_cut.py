"""The store on a disk that does the worst it may; `tests.store.history` has the invariants."""

import logging
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.disk import File, Site
from tests.store.history import History

STEPS = 14
HISTORIES_MAX = 6000  # the one that shows last needs about 2,100

# Every place that syncs, and how often in one function. A new one has to be
# entered here, and then has to prove below that something is lost without it.
SITES = [
    ("Aside.__init__", "sync_folder", 0),
    ("Aside.write", "sync", 0),
    ("Aside.write", "sync_folder", 0),
    ("Cursor.begin", "sync", 0),
    ("Cursor.begin", "sync_folder", 0),
    ("Cursor.sync", "sync", 0),
    ("Files.make_folder", "sync_folder", 0),
    ("Files.make_folder", "sync_folder", 1),
    ("Log.open", "sync", 0),
    ("Log.open", "sync_folder", 0),
    ("Table.__init__", "sync_folder", 0),
    ("Table._write_whole", "sync", 0),
    ("Table._write_whole", "sync_folder", 0),
    ("Table.write", "sync", 0),
    ("Writer._begin", "sync_folder", 0),
    ("Writer.write", "sync", 0),
    ("Writer.write", "sync_folder", 0),
]


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def sites():
    """The places in the store that sync, as `SITES` names them."""
    found: set[Site] = set()
    for seed in range(40):
        history = History(Random(seed))
        history.run(STEPS)
        found |= {site for site in history.disk.sites if not site.function.startswith("History")}
    named = {}
    for site in sorted(found):
        rank = sum(1 for other in named if other[:2] == (site.function, site.call))
        named[site.function, site.call, rank] = site
    return named


@given(st.randoms(use_true_random=False))
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_disk_does_nothing_confirmed_is_lost_and_no_number_comes_back(luck):
    History(luck).run(STEPS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_in_twenty_thousand_histories_nothing_confirmed_is_lost():
    """Others every time, and longer ones: Hypothesis would take a quarter of an hour to draw them."""
    first = Random().randrange(1 << 32)
    used_again = 0
    for seed in range(first, first + 20_000):
        history = None
        try:
            history = History(Random(seed))
            history.run(3 * STEPS)
        except Exception as error:
            pytest.fail(f"History(Random({seed})).run({3 * STEPS}): {error!r}")
        used_again += history.used_again
    print(f"20,000 histories from {first} on, {used_again:,} segments in files used again, 0 violations")
    assert used_again > 1000


def test_every_place_that_syncs_is_known(sites):
    assert sorted(sites) == SITES


@pytest.mark.parametrize("name", SITES, ids=lambda name: f"{name[0]}-{name[1]}-{name[2]}")
def test_given_one_sync_is_left_out_some_history_goes_wrong(sites, name):
    for seed in range(HISTORIES_MAX):
        history = None
        try:
            history = History(Random(seed), sites[name])
            history.run(STEPS)
        except (AssertionError, FileNotFoundError):
            return
    pytest.fail(f"nothing needs {name}: the sync is idle, or these histories are too tame")


# ---- the disk itself ---------------------------------------------------------------


def test_what_was_synced_survives_and_what_was_not_may_go():
    luck, left = Random(1), set()
    for _ in range(50):
        file = File()
        file.change(0, b"safe")
        file.sync()
        file.change(4, b"unsafe")
        file.cut(luck)
        assert file.live[:4] == b"safe"
        left.add(bytes(file.live))
    assert left == {b"safe", b"safeunsafe"}


def test_a_write_longer_than_a_sector_is_torn_in_any_place():
    luck, left = Random(1), set()
    for _ in range(200):
        file = File()
        file.change(0, b"a" * 64 + b"b" * 64)
        file.cut(luck)
        left.add(bytes(file.live).strip(b"\0"))
    assert left == {b"", b"a" * 64, b"b" * 64, b"a" * 64 + b"b" * 64}
