"""Who a CONNECT proves to be, decided before any session is touched.

    certificate ─► its user               (unless the door wants a password as well)
    user name   ─► users there: password  ─► known? at once
                                         └─► rate ─► queue ─► two threads ─► yes or no
                   no users there: a claim, believed or not as the door says
    nothing     ─► anonymous, where the door lets such in

A hash takes 30 ms and 16 MiB on purpose, so it runs beside the loop, two at a time, and
what was verified once is remembered: as an HMAC under a key that this process made and
that leaves with it. 500 devices that come back together then cost next to nothing.

Whoever is not there costs the same hash as whoever is: time tells no names. An address
that was wrong too often is refused without a hash (`rates`), but for what is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.broker.rates import Bucket, Rates
from bridge.mqtt.packet import Connect
from bridge.mqtt.reason import ReasonCode
from bridge.policy.access import ANONYMOUS, Identity
from bridge.policy.password import Password, decoy

if TYPE_CHECKING:
    from bridge.broker.link import Link

__all__ = ["Done", "Logins"]

log = logging.getLogger(__name__)

Done = Callable[[Identity | None, int, str], None]

THREADS: Final = 2
# Eight seconds of hashing: who would wait longer has missed the deadline of CONNECT before. A CONNECT
# of 64 KiB each, that is 32 MiB.
WAITING_MAX: Final = 512
WAITING_OF_ONE_MAX: Final = WAITING_MAX // 2  # address: a crowd from there leaves room for the others
# Not 0x86, which MQTT 3 would hear as 4, "malformed": devices know 5 from Mosquitto, and 0x87 in MQTT 5.
_REFUSED: Final = ReasonCode.NOT_AUTHORIZED
_WRONG: Final = "the user name or the password is wrong"
_TOO_MANY: Final = "too many failed logins from this address"


class _Login:
    """One CONNECT that waits for its hash."""

    __slots__ = ("bucket", "done", "link", "packet", "password", "user")

    def __init__(self, link: Link, packet: Connect, done: Done, bucket: Bucket[_Login]) -> None:
        assert packet.user_name is not None
        assert packet.password is not None
        self.link = link
        self.packet = packet
        self.done = done
        self.bucket = bucket
        self.user = packet.user_name
        self.password = packet.password


class Logins:
    """`failed` counts logins that were wrong, `limited` those refused unheard because earlier ones were.

    With users None there is no password file; with an empty one nobody can log in.
    `now` is a clock in seconds that never goes back.
    """

    def __init__(
        self, users: Mapping[str, Password] | None, failures_max: int, now: Callable[[], float]
    ) -> None:
        self.failed = 0
        self.limited = 0
        self._key = secrets.token_bytes(32)
        self._luck = secrets.token_bytes(32)
        # What each user has proven, as an HMAC: no more of them than there are users.
        self._known: dict[str, tuple[Password, bytes]] = {}
        self._rates: Rates[_Login] = Rates(failures_max, now)
        self._waiting: dict[_Login, None] = {}  # all of them, those in a thread included
        self._ready: deque[_Login] = deque()  # those that the next free thread may take
        self._running = 0
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self.replace(users)

    @property
    def users(self) -> Mapping[str, Password] | None:
        """Whom there is to log in; None where nobody is asked for a password."""
        return self._users

    def replace(self, users: Mapping[str, Password] | None, failures_max: int | None = None) -> None:
        """From now on these users count, also for whoever is being hashed right now."""
        self._users = users
        self._nobody = decoy(users or {}, self._luck)
        self._known = {
            user: known for user, known in self._known.items() if users and users.get(user) == known[0]
        }
        if failures_max is not None:
            self._rates.failures_max = failures_max

    def close(self) -> None:
        """Whoever still waits is refused; no thread begins anything any more."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for login in waiting:
            self._tell(login, None, ReasonCode.SERVER_UNAVAILABLE)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def still_holds(self, link: Link) -> bool:
        """Whether a link would be let in as the same again: users and doors may have changed since."""
        door, identity = link.door, link.identity
        if link.proof is not None:
            return self._users is not None and self._users.get(identity.user) == link.proof
        if link.certificate_user and identity == Identity(link.certificate_user):
            return door.user_from != "password"
        if not identity.verified:
            return self._users is None and door.anonymous and door.unverified_users
        return door.anonymous and not identity.user

    # ---- at once -------------------------------------------------------------------

    def check(self, link: Link, packet: Connect, done: Done) -> None:
        """Call `done` exactly once: with an identity, or with None, a reason code and its text.

        It is called before this returns unless a password has to be hashed. `link.proof`
        is the password that was proven, None for an identity without one.
        """
        door, user, password = link.door, packet.user_name, packet.password
        link.proof = None
        if link.certificate_user and door.user_from != "password":
            done(Identity(link.certificate_user), 0, "")
        elif not user or (self._users is None and door.anonymous and not door.unverified_users):
            if door.anonymous:
                done(ANONYMOUS, 0, "")
            else:
                done(None, ReasonCode.NOT_AUTHORIZED, "a user name is needed here")
        elif self._users is None:
            if door.anonymous:
                done(Identity(user, verified=False), 0, "")
            else:
                done(None, ReasonCode.NOT_AUTHORIZED, "no user can log in here")
        elif password is None:
            done(None, _REFUSED, "a user name needs a password")
        elif self._is_known(user, password):
            link.proof = self._known[user][0]
            done(Identity(user), 0, "")
        else:
            self._queue(link, packet, done)

    def _is_known(self, user: str, password: bytes) -> bool:
        # Made in any case, so that who is known and who is not take the same time.
        proof = self._proof(user, password)
        known = self._known.get(user)
        return known is not None and hmac.compare_digest(known[1], proof)

    def _proof(self, user: str, password: bytes) -> bytes:
        spelled = user.encode()
        return hmac.digest(self._key, len(spelled).to_bytes(4) + spelled + password, "sha256")

    # ---- later ---------------------------------------------------------------------

    def _queue(self, link: Link, packet: Connect, done: Done) -> None:
        if self._closed:
            done(None, ReasonCode.SERVER_UNAVAILABLE, "")
            return
        bucket = self._rates.of(link.address)
        if self._rates.spent(bucket):
            self.limited += 1
            done(None, ReasonCode.CONNECTION_RATE_EXCEEDED, _TOO_MANY)
            return
        if len(self._waiting) >= WAITING_MAX or len(bucket.waiting) >= WAITING_OF_ONE_MAX:
            done(None, ReasonCode.SERVER_BUSY, "too many logins at once")
            return
        login = _Login(link, packet, done, bucket)
        self._waiting[login] = None
        bucket.waiting.append(login)
        self._advance(bucket)
        self._start()

    def _advance(self, bucket: Bucket[_Login]) -> None:
        """Move on who waits at this address, as often as it may still be wrong; then refuse the rest."""
        while (login := self._rates.next(bucket)) is not None:
            self._ready.append(login)
        while bucket.waiting and self._rates.spent(bucket):
            login = bucket.waiting.popleft()
            if login in self._waiting:  # not so after `close`
                del self._waiting[login]
                self.limited += 1
                self._tell(login, None, ReasonCode.CONNECTION_RATE_EXCEEDED, _TOO_MANY)

    def _start(self) -> None:
        """Keep the threads busy. A loop, since each one that is settled may make another ready."""
        while self._ready and self._running < THREADS and not self._closed:
            login = self._ready.popleft()
            if login.link.gone:
                self._settle(login, None, ReasonCode.SERVER_UNAVAILABLE)
            elif self._users is None:
                self._again(login)
            elif self._is_known(login.user, login.password):
                # Somebody proved the same while this one waited: devices often share a user.
                self._settle(login, True)
            else:
                self._running += 1
                self._submit(login)

    def _submit(self, login: _Login) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="login")
        self._threads.submit(self._hash, asyncio.get_running_loop(), login, self._to_prove(login.user))

    def _to_prove(self, user: str) -> Password:
        return (self._users or {}).get(user) or self._nobody

    def _hash(self, loop: asyncio.AbstractEventLoop, login: _Login, password: Password) -> None:
        """In a thread: the only work that is done there."""
        proven: bool | None
        try:
            proven = password.verify(login.password)
        except (MemoryError, ValueError):  # ValueError: OpenSSL's word for no memory
            proven = None
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._hashed, login, password, proven)

    def _hashed(self, login: _Login, password: Password, proven: bool | None) -> None:
        """Back on the loop."""
        self._running -= 1
        if login in self._waiting:  # not so after `close`
            if proven is None:
                log.error("login without memory user=%s", login.user)
                self._settle(login, None, ReasonCode.SERVER_BUSY)
            elif self._users is None or self._to_prove(login.user) != password:
                # The users were replaced meanwhile: what was proven counts no more, nor what was not.
                self._again(login)
            else:
                if proven:
                    self._known[login.user] = (password, self._proof(login.user, login.password))
                self._settle(login, proven)
        self._start()

    def _again(self, login: _Login) -> None:
        """Decide anew, by the users there are now."""
        del self._waiting[login]
        self._rates.tried(login.bucket, failed=False)
        self.check(login.link, login.packet, partial(self._tell, login))
        self._advance(login.bucket)

    def _settle(self, login: _Login, proven: bool | None, reason: int = 0) -> None:
        """One login is decided; `reason` says why when nothing was proven either way."""
        del self._waiting[login]
        self._rates.tried(login.bucket, failed=proven is False)
        if proven:
            login.link.proof = self._known[login.user][0]
            self._tell(login, Identity(login.user))
        elif proven is False:
            self.failed += 1
            self._tell(login, None, _REFUSED, _WRONG)
        else:
            self._tell(login, None, reason)
        self._advance(login.bucket)

    def _tell(self, login: _Login, identity: Identity | None, reason: int = 0, text: str = "") -> None:
        try:
            login.done(identity, reason, text)
        except Exception:
            # As in `Link.data_received`: it costs this device its connection, and nobody else anything.
            log.exception("link failed peer=%s", login.link.peer)
            login.link.close(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)
