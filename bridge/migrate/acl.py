"""A Mosquitto ACL file as rules of ours.

    topic [read|write|readwrite|deny] FILTER     for who has no name, or for the `user` above
    user NAME
    pattern [read|write|readwrite|deny] FILTER   for everyone; %u and %c are the user and the client

Mosquitto lets everyone subscribe to everything and looks at `read` when it delivers.
So one rule allows every subscription and no message, and each `read` becomes a
`receive`. An ACL file without a line allows nothing, there and here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bridge.errors import ConfigError
from bridge.migrate.conf import Setting, read_lines
from bridge.policy.access import check_rule_filter
from bridge.topic import check_topic_filter

__all__ = ["Acl", "read_acl"]

_ACCESS: Final = ("read", "write", "readwrite", "deny")
# `#` does not stand for topics that begin with $; of those, people subscribe to $SYS.
_EVERYONE: Final[dict[str, Any]] = {"subscribe": ["#", "$SYS/#"], "receive": []}


class Acl:
    """What an ACL file says: the rules, and what of it they do not say."""

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = [dict(_EVERYONE)]
        self.notes: list[tuple[str, str, str]] = []  # where, what stands there, what happens instead


class _Section:
    """The filters of one user, of everyone or of those without a name."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.publish: list[str] = []
        self.receive: list[str] = []
        self.deny: list[str] = []

    def add(self, access: str, topic_filter: str) -> None:
        for kind, words in (
            (self.publish, ("write", "readwrite")),
            (self.receive, ("read", "readwrite")),
            (self.deny, ("deny",)),
        ):
            if access in words and topic_filter not in kind:
                kind.append(topic_filter)

    def rule(self) -> dict[str, Any]:
        rule = dict(self.head)
        if self.publish:
            rule["publish"] = self.publish
        if self.receive:
            rule["receive"] = self.receive
        if self.deny:
            rule["deny"] = {"publish": self.deny, "receive": self.deny}
        return rule


def read_acl(path: Path, owner: Setting) -> Acl:
    """Read the file that a setting names. Raises ConfigError with the file and the line."""
    acl = Acl()
    nobody = _Section({"anonymous": True})
    everyone = _Section({})
    users: dict[str, _Section] = {}
    current = nobody
    denied_by_pattern = ""
    for number, line in read_lines(path, owner):
        where = f"{path}:{number}"
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "user":
            if not rest:
                raise ConfigError(f"{where} user: has no name; write 'user NAME'")
            if "*" in rest or "?" in rest:
                # As a pattern it would fit other users too, and without it they would get what it denies.
                raise ConfigError(f"{where} user: {rest!r}: * and ? stand for other characters in our rules")
            current = users.setdefault(rest, _Section({"user": rest}))
        elif word in ("topic", "pattern"):
            access, topic_filter = _take_apart(where, word, rest)
            if word == "pattern":
                topic_filter = _placeholders(where, line, topic_filter)
                if access == "deny":
                    denied_by_pattern = denied_by_pattern or where
            elif "{" in topic_filter or "}" in topic_filter:
                raise ConfigError(
                    f"{where} {line}: a rule cannot say {{ or }} but for {{user}} and {{client}}"
                )
            (everyone if word == "pattern" else current).add(access, topic_filter)
        else:
            raise ConfigError(f"{where}: {word[:64]!r} is not known; lines begin with user, topic or pattern")
    sections = [
        section for section in (everyone, nobody, *users.values()) if len(section.rule()) > len(section.head)
    ]
    acl.rules += [section.rule() for section in sections]
    if denied_by_pattern and any(section.publish or section.receive for section in users.values()):
        acl.notes.append(
            (
                denied_by_pattern,
                "pattern deny",
                "here it goes before every permission; Mosquitto lets the topics of a user go before it",
            )
        )
    return acl


def _take_apart(where: str, word: str, rest: str) -> tuple[str, str]:
    first, _, after = rest.partition(" ")
    after = after.strip()
    access, topic_filter = (first, after) if after else ("readwrite", first)
    if access not in _ACCESS:
        raise ConfigError(f"{where} {word}: {access[:64]!r} must be one of {', '.join(_ACCESS)}")
    if wrong := check_topic_filter(topic_filter):
        raise ConfigError(f"{where} {word}: {topic_filter[:64]!r}: {wrong}")
    return access, topic_filter


def _placeholders(where: str, line: str, topic_filter: str) -> str:
    if "{" in topic_filter or "}" in topic_filter:
        raise ConfigError(f"{where} {line}: a rule cannot say {{ or }} but for {{user}} and {{client}}")
    named = topic_filter.replace("%u", "{user}").replace("%c", "{client}")
    if wrong := check_rule_filter(named):
        raise ConfigError(f"{where} {line}: {wrong}")
    return named
