from bridge.policy.batch import Batch, BatchLimits


def test_an_empty_batch_is_never_ready():
    batch = Batch(BatchLimits())
    assert batch.due_s is None
    assert not batch.ready(1e9)
    assert batch.take() == []


def test_without_a_wait_what_is_there_goes_at_once():
    batch = Batch(BatchLimits())
    batch.extend(["a"], 1, now_s=5.0)
    assert batch.ready(5.0)


def test_with_a_wait_the_first_entry_starts_the_clock():
    batch = Batch(BatchLimits(wait_s=0.2))
    batch.extend(["a"], 1, now_s=5.0)
    batch.extend(["b", "c"], 2, now_s=5.1)
    assert batch.due_s == 5.2
    assert not batch.ready(5.1)
    assert batch.ready(5.2)
    assert batch.body_bytes == 3
    assert batch.take() == ["a", "b", "c"]
    assert batch.due_s is None
    assert batch.body_bytes == 0


def test_full_by_count():
    batch = Batch(BatchLimits(messages=2, wait_s=9))
    batch.extend(["a"], 1, 0)
    assert not batch.ready(0)
    batch.extend(["b"], 1, 0)
    assert batch.full
    assert batch.ready(0)


def test_full_by_bytes():
    batch = Batch(BatchLimits(bytes=10, wait_s=9))
    batch.extend(["a"], 6, 0)
    assert not batch.full
    batch.extend(["b"], 4, 0)
    assert batch.ready(0)


def test_an_entry_larger_than_the_limit_is_a_batch_of_its_own():
    batch = Batch(BatchLimits(bytes=10, wait_s=9))
    batch.extend(["huge"], 11, 0)
    assert batch.ready(0)
    assert list(batch.entries) == ["huge"]
