"""How often one address may be wrong: a token bucket for each, and a bound on how many there are.

A failed login costs a token, and one comes back each second. Logins under way count as
failed until they turn out well, so that no more can fail at once than there are tokens;
those that come meanwhile wait, and one that turns out well lets the next one try.

Who holds a network of IPv6 has 2⁶⁴ addresses: there the network counts as one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, TypeVar

__all__ = ["Bucket", "Rates"]

T = TypeVar("T")

ADDRESSES_MAX: Final = 4_096  # whoever has more of them is stopped by the bounded pool alone
TRYING_MAX: Final = 4  # of one address at a time: whoever comes from elsewhere waits for no more of them
_PER_SECOND: Final = 1.0


class Bucket(Generic[T]):
    """One address: what it may still get wrong, what is being tried, and what waits to be."""

    __slots__ = ("at", "key", "tokens", "trying", "waiting")

    def __init__(self, key: str, tokens: float, at: float) -> None:
        self.key = key
        self.tokens = tokens
        self.at = at
        self.trying = 0
        self.waiting: deque[T] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not self.trying and not self.waiting


class Rates(Generic[T]):
    """The buckets of all addresses, as long as they say something."""

    def __init__(self, failures_max: int, now: Callable[[], float]) -> None:
        self.failures_max = failures_max
        self._now = now
        self._buckets: dict[str, Bucket[T]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, address: str) -> Bucket[T]:
        """The bucket of an address, with what has flowed back since."""
        key, now = _network(address), self._now()
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            if len(self._buckets) >= ADDRESSES_MAX:
                self._forget_one()
            bucket = Bucket(key, float(self.failures_max), now)
        self._buckets[key] = bucket  # at the end: the first is the one not heard of for longest
        self._refill(bucket, now)
        return bucket

    def next(self, bucket: Bucket[T]) -> T | None:
        """The next that may be tried now, from those that wait; it counts as tried from here on."""
        self._refill(bucket, self._now())
        if not bucket.waiting or bucket.trying >= TRYING_MAX or bucket.trying + 1 > bucket.tokens:
            return None
        bucket.trying += 1
        return bucket.waiting.popleft()

    def spent(self, bucket: Bucket[T]) -> bool:
        """Whether nothing may be tried any more, however that which is under way turns out."""
        return bucket.tokens < 1

    def tried(self, bucket: Bucket[T], *, failed: bool) -> None:
        """One that `next` gave is done with."""
        bucket.trying -= 1
        if failed:
            bucket.tokens = max(0.0, bucket.tokens - 1)
        elif bucket.idle and bucket.tokens >= self.failures_max:
            self._buckets.pop(bucket.key, None)  # it says no more than a new one would

    def _refill(self, bucket: Bucket[T], now: float) -> None:
        bucket.tokens = min(float(self.failures_max), bucket.tokens + max(0.0, now - bucket.at) * _PER_SECOND)
        bucket.at = now

    def _forget_one(self) -> None:
        """Of the idle ones, the one not heard of for longest. Only few can be busy: logins are bounded."""
        key = next((key for key, bucket in self._buckets.items() if bucket.idle), None)
        if key is not None:
            del self._buckets[key]


def _network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a Unix socket, or no address at all
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
