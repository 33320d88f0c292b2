"""Who may publish, subscribe and receive what.

    rules → rights of one identity and one Client Identifier → yes or no for a topic

Every rule that fits a device counts, in any order: what one of them denies is
forbidden, what one of them allows and none denies is allowed, and everything else
is forbidden. Without any rules at all everything is allowed; with an empty list of
them nothing is.

`{user}` and `{client}` in a filter stand for the name itself. They are filled in
after the filter was taken apart into levels, so a user called `#` or `a/b` gets a
level that is called so: it never becomes a wildcard or a second level, and since no
topic has such a level it matches nothing. One called `$SYS` is not allowed the topics
of the broker either: `{user}/#` was not written for those. Whoever has no user name
gets nothing from filters with `{user}`.

A subscription is allowed when a filter of a rule covers it, which means that every
topic it could bring is allowed by that same filter.

Nothing here is a regular expression: the time to decide grows with the number of
rules and the length of the topic, whatever either of them holds. What was decided
is remembered, as long as the rules last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from bridge.topic import check_topic_filter

__all__ = [
    "ANONYMOUS",
    "EVERYTHING",
    "Access",
    "Identity",
    "Rights",
    "Rule",
    "check_rule_filter",
    "fill",
    "fits",
]

# Answers of one kind for one device: it may make up topics without end, and of any length.
_REMEMBERED_MAX: Final = 512
_REMEMBERED_CHARS_MAX: Final = 256
_PLACEHOLDERS: Final = ("{user}", "{client}")


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Who a device has shown to be. A `user` that is empty: nobody in particular.

    `verified` is False for a name that was only claimed: such a one is never the same
    as the user of that name who has proven it.
    """

    user: str = ""
    verified: bool = True


ANONYMOUS: Final = Identity()


class Rule(msgspec.Struct, frozen=True):
    """For whom (None: everyone), and which topic filters are allowed and denied."""

    user: str | None = None
    client: str | None = None
    anonymous: bool = False
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    receive: tuple[str, ...] = ()
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()
    deny_receive: tuple[str, ...] = ()


def check_rule_filter(text: str) -> str | None:
    """Return what is wrong with a filter of a rule, or None when nothing is."""
    plain = text
    for placeholder in _PLACEHOLDERS:
        plain = plain.replace(placeholder, "x")
    if "{" in plain or "}" in plain:
        return f"{text!r}: known are {{user}} and {{client}}, each the name itself"
    return check_topic_filter(plain)


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern in which `*` is any text and `?` any one character."""
    at = here = 0
    star = back = -1
    while at < len(name):
        if here < len(pattern) and pattern[here] == "*":
            star, back = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", name[at]):
            here += 1
            at += 1
        elif star >= 0:
            # The last star takes one character more; the ones before it need not move again.
            back += 1
            here, at = star + 1, back
        else:
            return False
    return all(rest == "*" for rest in pattern[here:])


# A level of a filter: the wildcards are these objects, so that no text can be one of them.
_Level: TypeAlias = str | None
_PLUS: Final = None
_Filter: TypeAlias = tuple[tuple[_Level, ...], bool]  # levels, and whether # follows


def _compile(text: str, identity: Identity, client_id: str, *, allows: bool) -> _Filter | None:
    """One filter for one device, or None where it can never match, or must not."""
    if "{user}" in text and not identity.user:
        return None
    levels: list[_Level] = []
    for level in text.split("/"):
        if level == "#":
            # `+/#` and `#` bring the same topics, so a rule with one counts for the other.
            return (() if levels == [_PLUS] else tuple(levels)), True
        if level == "+":
            levels.append(_PLUS)
            continue
        filled = fill(level, identity.user, client_id)
        if allows and not levels and filled.startswith("$") and not level.startswith("$"):
            return None
        levels.append(filled)
    return tuple(levels), False


def fill(text: str, user: str, client_id: str) -> str:
    """The text with both names in their places; a name that looks like a placeholder stays what it is."""
    parts = text.split("{user}")
    return user.join(part.replace("{client}", client_id) for part in parts)


def _covers(rule: _Filter, words: list[str], dollar: bool) -> bool:
    """Whether a filter of a rule allows all that a topic, or another filter, stands for."""
    levels, open_ended = rule
    if open_ended:
        # `sport/#` also stands for `sport` itself.
        if len(words) < len(levels) or (not levels and dollar):
            return False
    elif len(words) != len(levels):
        return False
    for level, word in zip(levels, words, strict=False):
        if word == "#":
            return False
        if level is _PLUS:
            if dollar and level is levels[0] and word is words[0]:
                return False  # a wildcard in the first level does not match a $ [MQTT-4.7.2-1]
        elif level != word or word == "+":
            return False
    return True


class _Right:
    """One kind of right of one device: what is allowed, less what is denied."""

    __slots__ = ("_allow", "_deny", "_known")

    def __init__(self, allow: list[_Filter], deny: list[_Filter]) -> None:
        self._allow = allow
        self._deny = deny
        self._known: dict[str, bool] = {}

    def __call__(self, topic: str) -> bool:
        answer = self._known.get(topic)
        if answer is None:
            words, dollar = topic.split("/"), topic.startswith("$")
            answer = any(_covers(each, words, dollar) for each in self._allow) and not any(
                _covers(each, words, dollar) for each in self._deny
            )
            if len(topic) <= _REMEMBERED_CHARS_MAX:
                if len(self._known) >= _REMEMBERED_MAX:
                    self._known.clear()
                self._known[topic] = answer
        return answer


class Rights:
    """What one device may do. `limited` is False when there are no rules: then every answer is yes."""

    __slots__ = ("limited", "may_publish", "may_receive", "may_subscribe")

    def __init__(self, publish: _Right | None, subscribe: _Right | None, receive: _Right | None) -> None:
        self.limited = publish is not None
        self.may_publish = publish or _yes
        self.may_subscribe = subscribe or _yes  # takes a Topic Filter without $share/name/ before it
        self.may_receive = receive or _yes


def _yes(topic: str) -> bool:
    return True


EVERYTHING: Final = Rights(None, None, None)


class Access:
    """The rules of a house. None: there are none, and everyone may do everything."""

    def __init__(self, rules: Sequence[Rule] | None) -> None:
        self._rules = rules

    def rights(self, identity: Identity, client_id: str) -> Rights:
        """What this device may do."""
        if self._rules is None:
            return EVERYTHING
        rules = [rule for rule in self._rules if _is_for(rule, identity, client_id)]

        def compiled(kind: str, *, allows: bool) -> list[_Filter]:
            filters = {text: None for rule in rules for text in getattr(rule, kind)}
            found = (_compile(text, identity, client_id, allows=allows) for text in filters)
            return [each for each in found if each is not None]

        return Rights(
            *(
                _Right(compiled(kind, allows=True), compiled(f"deny_{kind}", allows=False))
                for kind in ("publish", "subscribe", "receive")
            )
        )


def _is_for(rule: Rule, identity: Identity, client_id: str) -> bool:
    if rule.anonymous and identity.user:
        return False
    if rule.user is not None and not (identity.user and fits(rule.user, identity.user)):
        return False
    return rule.client is None or fits(rule.client, client_id)
