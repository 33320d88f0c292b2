from bridge.policy.batch import Batch, BatchLimits


def test_an_empty_batch_is_never_ready():
    batch = Batch(BatchLimits())
    assert batch.due_s is None
    assert not batch.ready(1e9)
    assert batch.take() == []


def test_without_a_wait_what_is_there_goes_at_once():
    batch = Batch(BatchLimits())
    batch.add("a", 1, now_s=5.0)
    assert batch.ready(5.0)


def test_with_a_wait_the_first_entry_starts_the_clock():
    batch = Batch(BatchLimits(wait_s=0.2))
    batch.add("a", 1, now_s=5.0)
    batch.add("b", 1, now_s=5.1)
    assert batch.due_s == 5.2
    assert not batch.ready(5.1)
    assert batch.ready(5.2)
    assert batch.take() == ["a", "b"]
    assert batch.due_s is None


def test_full_by_count():
    batch = Batch(BatchLimits(messages=2, wait_s=9))
    batch.add("a", 1, 0)
    assert batch.has_room(1)
    batch.add("b", 1, 0)
    assert not batch.has_room(1)
    assert batch.ready(0)


def test_full_by_bytes():
    batch = Batch(BatchLimits(bytes=10, wait_s=9))
    batch.add("a", 6, 0)
    assert batch.has_room(4)
    assert not batch.has_room(5)
    batch.add("b", 4, 0)
    assert batch.ready(0)


def test_an_entry_larger_than_the_limit_travels_alone():
    batch = Batch(BatchLimits(bytes=10, wait_s=9))
    assert batch.has_room(11)
    batch.add("huge", 11, 0)
    assert not batch.has_room(0)
    assert batch.ready(0)
