"""What was dropped is said, and not too often."""

import asyncio

from bridge.forward.losses import Losses


def test_the_first_loss_is_said_at_once_and_then_one_line_a_minute(caplog):
    counts = {"a": {"oldest": 0, "newest": 0}, "b": {"oldest": 0, "newest": 0}}
    losses = Losses(lambda: counts)
    losses.look(0)
    assert not caplog.messages
    for second in range(1, 121):
        counts["a"]["newest"] += 10
        losses.look(second)
    assert caplog.messages == [
        "messages dropped route=a newest=10 total=10",
        "messages dropped route=a newest=600 total=610",
    ]
    counts["b"]["oldest"] = 3
    losses.look(121)
    assert caplog.messages[2:] == [
        "messages dropped route=a newest=590 total=1200",
        "messages dropped route=b oldest=3 total=3",
    ]


async def test_at_the_end_nothing_is_left_unsaid(caplog):
    counts = {"a": {"oldest": 1}}
    task = asyncio.create_task(Losses(lambda: counts).run())
    await asyncio.sleep(0)
    counts["a"]["oldest"] = 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.messages[-1] == "messages dropped route=a oldest=4 total=5"


def test_what_was_dropped_is_called_by_its_name(caplog):
    Losses(lambda: {"a": {"oldest": 7}}, "dead letters dropped").look(0)
    assert caplog.messages == ["dead letters dropped route=a oldest=7 total=7"]
