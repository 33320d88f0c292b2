"""What is asked of the running gateway, as files: the desk between a command and it.

    STATE/replays/NAME.ask     the command asks; written under another name, then renamed
                  NAME.run     the gateway has it: .ask renamed at one stroke, so that either
                               it was taken or the command can still take it back
                  NAME.now     the order with what has been decided about it; counts instead
                  NAME.cur     how far it has got, as any cursor
                  NAME.done    what became of it; the command reads it and removes it

and the same in STATE/letters for what is to become of dead letters, without a .cur.

The gateway holds the store's lock, and ids, cursors and sinks are its own, so only it can
do that. It is asked through its folder and not through the web: the folder is 0700,
so who may ask is whom the operating system lets in there already, the gateway's user
and root. Nothing new listens on any port, it works with `web: off`, and a replay
that is under way goes on after a restart. Nothing here is synced: after a power cut an
order may begin anew or be forgotten, and can be given again.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final, Generic, Literal, TypeVar

import msgspec

from bridge.forward.letters import Selection
from bridge.store import Cursor
from bridge.store.files import OS_FILES, Files

__all__ = [
    "Desk",
    "LetterOrder",
    "LetterOutcome",
    "Order",
    "OrderT",
    "Outcome",
    "OutcomeT",
    "letter_desk",
    "replay_desk",
]

ORDER_BYTES_MAX: Final = 64 * 1024
OUTCOMES_MAX: Final = 100  # of commands that did not wait


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """Send again what `route` wants and arrived from `since_ns` on and before `until_ns`.

    `to` is a sink, and empty for that of the route. `end` is where in the log it stops; the
    gateway sets it when it takes the order.
    """

    route: str
    since_ns: int
    until_ns: int
    to: str = ""
    end: int | None = None


class Outcome(msgspec.Struct):
    """What became of a replay. `first` and `last` are arrivals, `missed_bytes` went before it came there."""

    sent: int = 0
    refused: int = 0
    first: str = ""
    last: str = ""
    kept_since: str = ""  # arrival of the oldest message that is kept at all
    missed_bytes: int = 0
    resumed: bool = False  # the gateway was started again meanwhile: the counts begin there
    error: str = ""


class LetterOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Drop the dead letters that are meant, or send them again: to a sink, or each by its route.

    `end` is where in their log it stops; the gateway sets it when it takes the order.
    """

    what: Literal["replay", "drop"]
    selection: Selection
    to: str = ""
    end: int | None = None


class LetterOutcome(msgspec.Struct):
    """What became of it: `settled` letters were dropped or sent, `refused` ones stay where they are."""

    settled: int = 0
    refused: int = 0
    reason: str = ""  # of the first refusal
    stranded: int = 0  # their route is not in the configuration any more, and no sink was named
    resumed: bool = False  # the gateway was started again meanwhile: the counts begin there
    error: str = ""

    def refuse(self, reason: str) -> None:
        """Count one that cannot be sent."""
        self.refused += 1
        self.reason = self.reason or reason


OrderT = TypeVar("OrderT", bound=Order | LetterOrder)
OutcomeT = TypeVar("OutcomeT", bound=Outcome | LetterOutcome)


class Desk(Generic[OrderT, OutcomeT]):
    """One folder of orders in the store at `path`. Made by `replay_desk` and `letter_desk`."""

    def __init__(
        self, path: str, folder: str, order: type[OrderT], outcome: type[OutcomeT], files: Files
    ) -> None:
        self.folder = os.path.join(path, folder)
        self._outcome_type = outcome
        self._order_type = order
        self._files = files

    def _path(self, name: str, suffix: str) -> str:
        return os.path.join(self.folder, name + suffix)

    def _write(self, path: str, content: bytes) -> None:
        new = path + ".new"
        self._files.unlink(new)
        fd = self._files.create(new)
        try:
            self._files.write(fd, content, 0)
        finally:
            self._files.close(fd)
        self._files.rename(new, path)

    def _read(self, path: str) -> bytes:
        fd = self._files.open(path)
        try:
            return self._files.read(fd, ORDER_BYTES_MAX, 0)
        finally:
            self._files.close(fd)

    def _names(self, suffix: str) -> list[str]:
        return [name[: -len(suffix)] for name in self._files.names(self.folder) if name.endswith(suffix)]

    # ---- the command's side --------------------------------------------------------

    def ask(self, order: OrderT) -> str:
        """Put an order on the desk; return its name. Raises OSError, also when no gateway ever ran here."""
        now_ns = time.time_ns()
        second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_ns // 1_000_000_000))
        name = f"{second}.{now_ns % 1_000_000_000:09d}Z-{os.getpid()}"
        path = self._path(name, ".ask")
        draft = path + ".draft"
        self._write(draft, msgspec.json.encode(order))
        owner = os.stat(self.folder)
        if owner.st_uid != os.geteuid():  # root asks, and the gateway is somebody else
            os.chown(draft, owner.st_uid, owner.st_gid)
        self._files.rename(draft, path)
        return name

    def is_waiting(self, name: str) -> bool:
        """Whether no gateway has taken the order yet."""
        return name in self._names(".ask")

    def take_back(self, name: str) -> None:
        """Afterwards it is not begun, or stops soon."""
        for suffix in (".ask", ".run"):
            self._files.unlink(self._path(name, suffix))

    def outcome(self, name: str) -> OutcomeT | None:
        """What became of it, once and only once; None before that."""
        path = self._path(name, ".done")
        try:
            outcome = msgspec.json.decode(self._read(path), type=self._outcome_type)
        except FileNotFoundError:
            return None
        self._files.unlink(path)
        return outcome

    # ---- the gateway's side --------------------------------------------------------

    def open(self) -> None:
        """Afterwards orders can be put on the desk."""
        self._files.make_folder(self.folder)

    def taken(self) -> list[str]:
        """Take every order that lies here; return the names of all that are taken and not done."""
        for name in self._names(".ask"):
            with contextlib.suppress(FileNotFoundError):  # taken back at this moment
                self._files.rename(self._path(name, ".ask"), self._path(name, ".run"))
        return self._names(".run")

    def order(self, name: str) -> OrderT:
        """The order of that name. Raises ValueError when it is none, OSError as it comes."""
        try:
            text = self._read(self._path(name, ".now"))
        except FileNotFoundError:
            text = self._read(self._path(name, ".run"))
        return msgspec.json.decode(text, type=self._order_type)

    def change(self, name: str, order: OrderT) -> None:
        """Write down what has been decided about an order.

        Not in its own file: whoever takes it back at this moment removes that, and it has to stay so.
        """
        self._write(self._path(name, ".now"), msgspec.json.encode(order))

    def cursor(self, name: str) -> Cursor:
        """How far the replay has got; it holds back nothing in the log."""
        return Cursor(self._files, self._path(name, ".cur"), name)

    def finish(self, name: str, outcome: OutcomeT) -> None:
        """Afterwards the order is done, and whoever asked can see what became of it."""
        self._write(self._path(name, ".done"), msgspec.json.encode(outcome))
        self.forget(name)
        for old in self._names(".done")[:-OUTCOMES_MAX]:
            self._files.unlink(self._path(old, ".done"))

    def failure(self, error: str) -> OutcomeT:
        """What to write of an order that could not be carried out."""
        return self._outcome_type(error=error)

    def forget(self, name: str) -> None:
        """Nothing of the order is left but what became of it."""
        for suffix in (".run", ".cur", ".now"):
            self._files.unlink(self._path(name, suffix))


def replay_desk(path: str, files: Files = OS_FILES) -> Desk[Order, Outcome]:
    """Where replays of kept history are asked for."""
    return Desk(path, "replays", Order, Outcome, files)


def letter_desk(path: str, files: Files = OS_FILES) -> Desk[LetterOrder, LetterOutcome]:
    """Where it is asked that dead letters be sent again or dropped."""
    return Desk(path, "letters", LetterOrder, LetterOutcome, files)
