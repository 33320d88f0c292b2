"""`edgespool tail`: a consumer that prints before it acknowledges.

Printed, flushed, acknowledged, in this order: whatever happens in between, a
message may be printed again and is never lost.

A batch is answered for as a whole, so taking exactly N messages means that no
batch may reach past the N-th. As long as many are wanted, batches of any size
are taken; the first one that would go too far is left unanswered, and the rest
is asked for anew with a window of one message. What was left comes again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import zmq

from bridge.cli.lines import for_people, for_programs
from bridge.errors import ConfigError, SinkUnavailable
from bridge.observe.escape import printable
from bridge.sinks.curve import Client
from bridge.sinks.keys import read_key_pair, read_public_key
from bridge.sinks.receiver import Batch, Receiver

__all__ = ["print_messages"]

WINDOW: Final = 10_000
# Up to here one message at a time costs less than asking anew.
ONE_BY_ONE_MAX: Final = 256
HINT_AFTER_S: Final = 2.0
HELD_S: Final = 1


class _Leave(BaseException):
    """SIGINT or SIGTERM: not an Exception, so that nothing on the way takes it for a mistake."""


class _Signals:
    """SIGINT and SIGTERM raise _Leave, but not between a line on the screen and its acknowledgement.

    What a person has seen is then not sent again. The wait is short, and a second
    signal ends it: the first may have found us writing to a pipe that nobody reads.
    """

    def __init__(self) -> None:
        self._holding = False
        self._held = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._holding or self._held:
            raise _Leave
        self._held = True
        signal.alarm(HELD_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, one signal waits until the end."""
        self._holding = True
        yield
        self._holding = False
        signal.alarm(0)
        if self._held:
            raise _Leave


def print_messages(
    endpoint: str,
    count: int | None,
    as_json: bool,
    server_key: Path | None = None,
    secret_key: Path | None = None,
) -> int:
    """Print and acknowledge `count` messages, or for ever; return the exit code.

    The keys come together or not at all.
    """
    signals = _Signals()
    try:
        curve = None
        if server_key is not None and secret_key is not None:
            curve = Client(read_key_pair(secret_key), read_public_key(server_key))
        _Tail(endpoint, count, as_json, signals, curve).run()
    except _Leave:
        _abandon_stdout()
        return 0 if count is None else 1
    except BrokenPipeError:
        # Whoever read us has seen enough; what it did not read is not acknowledged.
        _abandon_stdout()
        return 0
    except ConfigError as error:
        print(f"edgespool: {printable(str(error))}", file=sys.stderr)
        return ConfigError.EXIT_CODE
    except (SinkUnavailable, zmq.ZMQError) as error:
        print(f"edgespool: {printable(endpoint)}: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _abandon_stdout() -> None:
    """Let the flush at exit go nowhere: it would block on a full pipe, or complain about a broken one."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Tail:
    def __init__(
        self, endpoint: str, count: int | None, as_json: bool, signals: _Signals, curve: Client | None
    ) -> None:
        self._signals = signals
        self._curve = curve
        self._endpoint = endpoint
        self._left = count
        self._as_json = as_json
        self._waiting_since: float | None = time.monotonic()  # None once the hint was given

    def run(self) -> None:
        """Return when `count` messages are acknowledged."""
        window = 1 if self._left is not None and self._left <= ONE_BY_ONE_MAX else WINDOW
        while self._left is None or self._left > 0:
            name = f"edgespool tail {os.getpid()}"
            with Receiver(self._endpoint, window=window, name=name, curve=self._curve) as receiver:
                self._take(receiver)
            window = 1

    def _take(self, receiver: Receiver) -> None:
        """Take batches until nothing is wanted, or until one goes past what is."""
        while self._left is None or self._left > 0:
            batch = receiver.receive(timeout_s=0.5)
            if batch is None:
                self._hint(receiver)
                continue
            self._waiting_since = None
            if self._left is not None and len(batch) > self._left:
                if batch.one_by_one():  # a pack of more than are wanted
                    continue
                return
            with self._signals.held():
                self._print(batch)
                batch.acknowledge()
            if self._left is not None:
                self._left -= len(batch)

    def _print(self, batch: Batch) -> None:
        # One write for all: a signal then finds either nothing or whole lines printed.
        now_ns = time.time_ns()
        lines = [for_programs(one) if self._as_json else for_people(one, now_ns) for one in batch]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def _hint(self, receiver: Receiver) -> None:
        """Say once why nothing comes, for whoever is looking at an empty screen."""
        if self._waiting_since is None or time.monotonic() - self._waiting_since < HINT_AFTER_S:
            return
        self._waiting_since = None
        where = printable(self._endpoint)
        if receiver.role == "standby":
            print(f"edgespool: another receiver is active at {where}; standing by", file=sys.stderr)
        elif receiver.trouble:
            print(f"edgespool: {where}: {receiver.trouble}", file=sys.stderr)
        elif not receiver.role:
            print(f"edgespool: nobody at {where} yet; waiting (--endpoint names another)", file=sys.stderr)
