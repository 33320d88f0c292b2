"""Topic Names and Topic Filters: check, match, split, and levels with names.

A filter in a route may name a level: `plant/{line}/+/#`. To MQTT that is the
filter `plant/+/+/#`; to the route it also says that level 1 is called `line`.

Nothing here recurses and nothing is a regular expression, so the time to match
grows only with the length of the topic.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = [
    "LEVELS_ANY",
    "LEVELS_MAX",
    "TOPIC_BYTES_MAX",
    "Pattern",
    "check_topic_filter",
    "check_topic_name",
    "has_control",
    "matches",
]

LEVELS_MAX: Final = 200  # a topic of 65,535 slashes has crashed other brokers; nobody needs more than this
LEVELS_ANY: Final = 65_536  # as many as a topic of 65,535 bytes can have
TOPIC_BYTES_MAX: Final = 65_535  # [MQTT-4.7.3-3]
_CONTROL: Final = re.compile(r"[\x01-\x1f\x7f-\x9f]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_topic_name(topic: str, levels_max: int = LEVELS_MAX) -> str | None:
    """Return what is wrong with a Topic Name, or None when nothing is.

    At least one character [MQTT-4.7.3-1], no U+0000 [MQTT-4.7.3-2], no wildcard
    [MQTT-3.3.2-2], at most 65,535 bytes and `levels_max` levels.
    """
    if not topic:
        return "a topic must have at least one character"
    if "+" in topic or "#" in topic:
        return "a topic must not contain the wildcards + and #"
    return _check_common(topic, levels_max)


def check_topic_filter(topic_filter: str, levels_max: int = LEVELS_MAX) -> str | None:
    """Return what is wrong with a Topic Filter, or None when nothing is.

    `#` stands alone in the last level v5 [MQTT-4.7.1-1], v3 [MQTT-4.7.1-2], `+` stands
    alone in its level v5 [MQTT-4.7.1-2], v3 [MQTT-4.7.1-3]. `$share/…` is not unwrapped here.
    """
    if not topic_filter:
        return "a topic filter must have at least one character"
    hash_at = topic_filter.find("#")
    if hash_at >= 0 and (hash_at != len(topic_filter) - 1 or topic_filter[-2:] not in ("#", "/#")):
        return "# must be the whole of the last level"
    if "+" in topic_filter:
        # With a slash of its own on both sides of every level they can be counted at once: a walk
        # over the levels of a thousand long filters would take milliseconds.
        apart = "/" + topic_filter.replace("/", "//") + "/"
        if apart.count("/+/") != topic_filter.count("+"):
            return "+ must be the whole of its level"
    return _check_common(topic_filter, levels_max)


def _check_common(text: str, levels_max: int) -> str | None:
    if "\0" in text:
        return "a topic must not contain U+0000"
    if text.count("/") >= levels_max:
        return f"a topic may have at most {levels_max} levels"
    if len(text) > TOPIC_BYTES_MAX // 4 and len(text.encode("utf-8", "surrogatepass")) > TOPIC_BYTES_MAX:
        return f"a topic may have at most {TOPIC_BYTES_MAX} bytes"
    return None


def has_control(text: str) -> bool:
    """Whether there is a control character in it. MQTT lets a receiver refuse such text; we let it pass."""
    return _CONTROL.search(text) is not None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a (valid) filter matches a (valid) topic.

    A wildcard in the first level does not match a topic that begins with `$`
    [MQTT-4.7.2-1]; `sport/#` also matches `sport` itself.
    """
    if topic.startswith("$") and topic_filter[:1] in ("#", "+"):
        return False
    wanted = topic_filter.split("/")
    have = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(have) < len(wanted):
            return False
    elif len(have) != len(wanted):
        return False
    return all(level in ("+", actual) for level, actual in zip(wanted, have, strict=False))


class Pattern(msgspec.Struct, frozen=True):
    """A route's filter: `topic_filter` as MQTT knows it, and the depth of each named level."""

    topic_filter: str
    names: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse `plant/{line}/+/#`. Raises ValueError that says what to write instead."""
        levels = text.split("/")
        names: dict[str, int] = {}
        for depth, level in enumerate(levels):
            if "{" not in level and "}" not in level:
                continue
            name = level[1:-1]
            if level[:1] != "{" or level[-1:] != "}" or not _NAME.match(name):
                raise ValueError(f"a named level is one whole level such as {{line}}, not {level!r}")
            if name in names:
                raise ValueError(f"the level name {name!r} stands twice; give each level its own name")
            names[name] = depth
            levels[depth] = "+"
        topic_filter = "/".join(levels)
        if wrong := check_topic_filter(topic_filter):
            raise ValueError(wrong)
        return cls(topic_filter, names)

    def matches(self, topic: str) -> bool:
        """Whether this pattern takes `topic`."""
        return matches(self.topic_filter, topic)

    def levels(self, topic: str) -> dict[str, str]:
        """The named levels of a topic that matches."""
        if not self.names:
            return {}
        parts = topic.split("/")
        return {name: parts[depth] for name, depth in self.names.items()}
