"""Topic Name → who subscribed to it.

Not a tree. In a tree of filters the walk follows `+` and the literal side by side,
and a thousand filters that agree on their first hundred levels only by wildcards
cost a hundred thousand steps for one topic. Here every distinct filter is one bit,
and a step asks all filters at once:

    standing := every filter of the block
    for each level of the topic:
        settled  |= standing & ends in # here
        standing &= has this word here | has + here
    settled |= standing & (ends here | ends in # here)

That is two dictionary look-ups and a few operations on integers per level, whatever
the filters are. Filters lie in blocks of BLOCK_FILTERS, so that masks stay short
and memory grows with the number of filters, not with its square. Filters without
wildcards are most of them in practice, and need no more than one dictionary.

Owners and subscriptions are whatever the caller takes for them; an owner has at
most one subscription for one filter, v5 [MQTT-3.8.4-3].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from bridge.topic import LEVELS_ANY, check_topic_filter

__all__ = ["Matches", "SharedGroup", "Subscriptions", "split_share"]

O = TypeVar("O", bound=Hashable)  # noqa: E741 - an owner
S = TypeVar("S")

BLOCK_FILTERS: Final = 1024  # masks of 128 bytes: one integer operation costs hardly more than with 8
_SHARE: Final = "$share/"


def split_share(topic_filter: str) -> tuple[str | None, str]:
    """Split `$share/group/filter` into (group, filter); any other filter has no group.

    Raises ValueError: a share name has at least one character and none of `/ + #`
    [MQTT-4.8.2-1, MQTT-4.8.2-2], and a filter must follow.
    """
    if not topic_filter.startswith(_SHARE):
        if topic_filter == "$share":
            raise ValueError("a shared subscription is $share/group/filter")
        return None, topic_filter
    group, slash, rest = topic_filter[len(_SHARE) :].partition("/")
    if not group or not slash or not rest:
        raise ValueError("a shared subscription is $share/group/filter")
    if "+" in group or "#" in group:
        raise ValueError("a share name must not contain the wildcards + and #")
    return group, rest


class SharedGroup(Generic[O, S]):
    """The sessions that share one subscription: each message goes to one of them."""

    __slots__ = ("_turn", "members", "name", "topic_filter")

    def __init__(self, name: str, topic_filter: str) -> None:
        self.name = name
        self.topic_filter = topic_filter  # without the $share/name/ before it
        self.members: dict[O, S] = {}
        self._turn = 0

    def choose(self, usable: Callable[[O], bool] | None = None) -> tuple[O, S] | None:
        """Return the next member in turn that is `usable`, or None when no member is."""
        order = list(self.members)
        for step in range(len(order)):
            at = (self._turn + step) % len(order)
            if usable is None or usable(order[at]):
                self._turn = at + 1
                return order[at], self.members[order[at]]
        return None


class Matches(Generic[O, S]):
    """Who wants a topic.

    `owners` has every matching subscription of each owner: one session with
    overlapping filters gets one message, with the highest QoS and all Subscription
    Identifiers [MQTT-3.3.4-2, MQTT-3.3.4-3]. `groups` each want it once.
    """

    __slots__ = ("groups", "owners")

    def __init__(self) -> None:
        self.owners: dict[O, tuple[S, ...]] = {}
        self.groups: list[SharedGroup[O, S]] = []

    def __bool__(self) -> bool:
        return bool(self.owners or self.groups)


class _Filter(Generic[O, S]):
    """One distinct filter and everyone who subscribed with it."""

    __slots__ = ("groups", "owners")

    def __init__(self) -> None:
        self.owners: dict[O, tuple[S]] = {}  # already as `Matches` wants it, to be shared and not made anew
        self.groups: dict[str, SharedGroup[O, S]] = {}

    def empty(self) -> bool:
        return not self.owners and not self.groups


class _Level:
    """For one depth: which filters of the block have what there, as masks."""

    __slots__ = ("ends", "hash", "plus", "words")

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.plus = 0
        self.hash = 0  # # stands at this depth
        self.ends = 0  # the level before this depth was the last one

    def empty(self) -> bool:
        return not (self.words or self.plus or self.hash or self.ends)


class _Block(Generic[O, S]):
    """Up to BLOCK_FILTERS filters with wildcards, bit by bit."""

    __slots__ = ("_levels", "_wild_first", "filters", "used")

    def __init__(self) -> None:
        self.filters: dict[int, _Filter[O, S]] = {}  # by bit
        self.used = 0
        self._levels: list[_Level] = []
        self._wild_first = 0

    def add(self, topic_filter: str, entry: _Filter[O, S]) -> int:
        """Give the filter a bit, and return its number."""
        mask = ~self.used & (self.used + 1)  # the lowest bit that is free
        bit = mask.bit_length() - 1
        self.used |= mask
        self.filters[bit] = entry
        words = topic_filter.split("/")
        while len(self._levels) <= len(words):
            self._levels.append(_Level())
        if words[0] in ("+", "#"):
            self._wild_first |= mask
        for level, word in zip(self._levels, words, strict=False):
            if word == "+":
                level.plus |= mask
            elif word == "#":
                level.hash |= mask
            else:
                level.words[word] = level.words.get(word, 0) | mask
        if words[-1] != "#":
            self._levels[len(words)].ends |= mask
        return bit

    def remove(self, topic_filter: str, bit: int) -> None:
        """Free the bit, and let go of every level and word that nobody needs any more."""
        keep = ~(1 << bit)
        self.used &= keep
        self._wild_first &= keep
        del self.filters[bit]
        words = topic_filter.split("/")
        for level, word in zip(self._levels, words, strict=False):
            if word not in ("+", "#"):
                level.words[word] &= keep
                if not level.words[word]:
                    del level.words[word]
            level.plus &= keep
            level.hash &= keep
        if words[-1] != "#":
            self._levels[len(words)].ends &= keep
        while self._levels and self._levels[-1].empty():
            self._levels.pop()

    def match(self, words: list[str], dollar: bool) -> int:
        """Return the mask of the filters that match."""
        # A wildcard in the first level does not match a topic that begins with $ [MQTT-4.7.2-1].
        standing = self.used & ~self._wild_first if dollar else self.used
        settled = 0
        levels = self._levels
        for depth, word in enumerate(words):
            if depth >= len(levels):
                return settled
            level = levels[depth]
            settled |= standing & level.hash
            standing &= level.words.get(word, 0) | level.plus
            if not standing:
                return settled
        if len(words) < len(levels):
            level = levels[len(words)]
            settled |= standing & (level.ends | level.hash)  # sport/# also matches sport
        return settled


class Subscriptions(Generic[O, S]):
    """All subscriptions of all owners. `generation` changes whenever they do, for callers that cache."""

    __slots__ = ("_blocks", "_exact", "_owned", "_wild", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self._exact: dict[str, _Filter[O, S]] = {}  # filters without wildcards
        self._wild: dict[str, tuple[_Filter[O, S], _Block[O, S], int]] = {}
        self._blocks: list[_Block[O, S]] = []
        self._owned: dict[O, dict[str, S]] = {}  # as the owner wrote the filter, $share included

    def __len__(self) -> int:
        return sum(len(owned) for owned in self._owned.values())

    def of(self, owner: O) -> dict[str, S]:
        """Return what one owner subscribed to: filter, `$share` included → subscription."""
        return dict(self._owned.get(owner, ()))

    def group(self, topic_filter: str) -> SharedGroup[O, S] | None:
        """Who shares `$share/group/filter`; None where nobody does (any more)."""
        name, rest = split_share(topic_filter)
        entry = self._exact.get(rest) or self._wild.get(rest, (None,))[0]
        return entry.groups.get(name) if entry is not None and name is not None else None

    def add(self, topic_filter: str, owner: O, subscription: S) -> bool:
        """Subscribe; the owner's earlier subscription with the same filter is replaced.

        Returns whether it is new. Raises ValueError for a filter that is not valid.
        """
        group, rest = split_share(topic_filter)
        if wrong := check_topic_filter(rest, LEVELS_ANY):  # how many are too many was asked before
            raise ValueError(wrong)
        entry = self._filter(rest)
        if group is None:
            entry.owners[owner] = (subscription,)
        else:
            if group not in entry.groups:
                entry.groups[group] = SharedGroup(group, rest)
            entry.groups[group].members[owner] = subscription
        owned = self._owned.setdefault(owner, {})
        new = topic_filter not in owned
        owned[topic_filter] = subscription
        self.generation += 1
        return new

    def remove(self, topic_filter: str, owner: O) -> bool:
        """Unsubscribe. Returns whether there was anything to remove."""
        owned = self._owned.get(owner, {})
        if topic_filter not in owned:
            return False
        del owned[topic_filter]
        if not owned:
            del self._owned[owner]
        self._take_out(topic_filter, owner)
        self.generation += 1
        return True

    def remove_owner(self, owner: O) -> int:
        """Remove everything that one owner subscribed to; return how many that were."""
        owned = self._owned.pop(owner, {})
        for topic_filter in owned:
            self._take_out(topic_filter, owner)
        if owned:
            self.generation += 1
        return len(owned)

    def match(self, topic: str) -> Matches[O, S]:
        """Return who wants a (valid) topic. Takes time in proportion to its levels and to what matches."""
        matched: list[_Filter[O, S]] = []
        if (exact := self._exact.get(topic)) is not None:
            matched.append(exact)
        if self._blocks:
            words = topic.split("/")
            dollar = topic.startswith("$")
            for block in self._blocks:
                if mask := block.match(words, dollar):
                    # A string of binary digits finds its ones faster than arithmetic on a long integer does.
                    digits = bin(mask)[::-1]
                    filters = block.filters
                    at = digits.find("1")
                    while at >= 0:
                        matched.append(filters[at])
                        at = digits.find("1", at + 1)
        return _merge(matched)

    def _filter(self, topic_filter: str) -> _Filter[O, S]:
        """The entry of one filter, made when it is the first subscription with it."""
        if "+" not in topic_filter and "#" not in topic_filter:
            if topic_filter not in self._exact:
                self._exact[topic_filter] = _Filter()
            return self._exact[topic_filter]
        if topic_filter in self._wild:
            return self._wild[topic_filter][0]
        entry: _Filter[O, S] = _Filter()
        for block in self._blocks:
            if len(block.filters) < BLOCK_FILTERS:
                break
        else:
            block = _Block()
            self._blocks.append(block)
        self._wild[topic_filter] = (entry, block, block.add(topic_filter, entry))
        return entry

    def _take_out(self, topic_filter: str, owner: O) -> None:
        group, rest = split_share(topic_filter)
        entry = self._exact[rest] if rest in self._exact else self._wild[rest][0]
        if group is None:
            del entry.owners[owner]
        else:
            members = entry.groups[group].members
            del members[owner]
            if not members:
                del entry.groups[group]
        if not entry.empty():
            return
        if rest in self._exact:
            del self._exact[rest]
            return
        _, block, bit = self._wild.pop(rest)
        block.remove(rest, bit)
        if not block.filters:
            self._blocks.remove(block)


def _merge(matched: list[_Filter[O, S]]) -> Matches[O, S]:
    found: Matches[O, S] = Matches()
    owners = found.owners
    subscriptions = 0
    for entry in matched:
        owners.update(entry.owners)
        subscriptions += len(entry.owners)
        if entry.groups:
            found.groups.extend(entry.groups.values())
    if len(owners) != subscriptions:  # somebody has overlapping filters, and only the last of them was kept
        owners.clear()
        for entry in matched:
            for owner, subscription in entry.owners.items():
                owners[owner] = owners.get(owner, ()) + subscription
    return found
