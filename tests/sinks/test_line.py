"""A slow line is told from one on which nothing moves, by what the kernel knows of real TCP."""

import contextlib
import socket
import sys

import pytest

from bridge.sinks.line import Movement

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's own counts")

MUCH = b"x" * (1 << 20)


@pytest.fixture
def ends():
    """Two ends of one connection over loopback, ours first; the other one has little room."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        theirs = stack.enter_context(listener.accept()[0])
        theirs.settimeout(5)
        ours.setblocking(False)
        yield ours, theirs


def fill(ours):
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(MUCH)


def take(theirs, size):
    while size > 0:
        size -= len(theirs.recv(size))


def test_a_slow_line_moves_for_as_long_as_there_is_something_on_it(ends):
    ours, theirs = ends
    movement = Movement()
    fill(ours)
    movement.look([ours.fileno()])
    for _ in range(3):
        take(theirs, 100_000)
        assert movement.look([ours.fileno()])


def test_a_far_end_that_takes_nothing_does_not_move(ends):
    ours, _ = ends
    movement = Movement()
    fill(ours)
    movement.look([ours.fileno()])
    assert not any(movement.look([ours.fileno()]) for _ in range(3))


def test_a_heartbeat_that_is_taken_at_once_is_no_movement(ends):
    ours, theirs = ends
    movement = Movement()
    movement.look([ours.fileno()])
    for _ in range(3):
        ours.send(b"ping")
        take(theirs, 4)
        assert not movement.look([ours.fileno()])


def test_heartbeats_that_are_still_on_their_way_are_no_movement_either(monkeypatch):
    """A look right behind a heartbeat once took it for a message, and patience never ended."""
    counts = iter([(100, 0), (130, 30), (190, 60), (1000, 5000), (2000, 4000)])
    monkeypatch.setattr("bridge.sinks.line._counts", lambda fd: next(counts))
    movement = Movement()
    assert [movement.look([1]) for _ in range(5)] == [False, False, False, True, True]


def test_what_is_no_connection_or_is_gone_does_not_move(ends, tmp_path):
    ours, _ = ends
    left, right = socket.socketpair()
    movement = Movement()
    with left, right, (tmp_path / "file").open("wb") as file:
        number = ours.fileno()
        ours.close()
        for _ in range(2):
            assert not movement.look([left.fileno(), file.fileno(), number])
    assert not movement.look([])
