"""Mosquitto's bridges as routes to fill in: where to is not to be guessed.

A bridge carries messages to another MQTT broker; a route carries them to a queue or
to a receiver. What both know is which topics go, and what they are called there. So
each `topic … out` becomes a route in a comment: whoever takes the signs away and
names a sink has a configuration that can be used.
"""

from __future__ import annotations

import re
from typing import Any, Final

from bridge.migrate.conf import Setting
from bridge.migrate.mosquitto import BridgeTo
from bridge.migrate.notes import Notes
from bridge.topic import check_topic_filter

__all__ = ["skeleton"]

_HAPPENS: Final = {
    "in": "nothing is fetched from another broker",
    "out": "a route at the end, in a comment: name its sink and take the signs away",
    "both": "a route at the end, in a comment, to name a sink in; nothing is fetched from another broker",
}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")


def skeleton(bridges: list[BridgeTo], notes: Notes) -> dict[str, Any]:
    """`sinks` and `routes` as they could be; empty when nothing goes out."""
    sinks: dict[str, Any] = {}
    routes: dict[str, Any] = {}
    for bridge in bridges:
        name = _unused(_NOT_IN_NAMES.sub("-", bridge.name)[:40] or "bridge", sinks)
        outgoing = []
        for setting in bridge.topics:
            direction, topic_filter, address = _read_topic(setting)
            if direction != "in":
                outgoing.append({"from": topic_filter, "to": name, "address": address})
            notes.add(setting, _HAPPENS[direction])
        if outgoing:
            sinks[name] = {"amqp": {"url": "amqp://USER:PASSWORD@HOST/"}}
            routes |= {f"{name}-{number}": route for number, route in enumerate(outgoing, 1)}
        peer = bridge.get("address", "addresses")
        assert peer is not None
        notes.add(
            bridge.where, f"a route needs a queue or a receiver (sinks) in place of the broker {peer.value}"
        )
        for setting in bridge.settings.values():
            if setting is not peer:
                # Not the value: it may be a password.
                notes.say(setting.where, setting.name, "is about the other broker; see 'sinks'")
    return {"sinks": sinks, "routes": routes} if routes else {}


def _unused(name: str, taken: dict[str, Any]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _read_topic(setting: Setting) -> tuple[str, str, str]:
    """The direction, the local filter, and the address template that spells the remote topic."""
    text = setting.text()
    if text.startswith('"') and not text.startswith('""'):
        pattern, quote, rest = text[1:].partition('"')
        if not quote:
            raise setting.wrong("the closing quote is missing")
    else:
        pattern, _, rest = text.partition(" ")
    words = rest.split()
    for index, word in enumerate(words):
        if word.startswith("#"):
            words = words[:index]
            break
    pattern = "" if pattern == '""' else pattern
    direction = words[0].lower() if words else "out"
    if direction not in ("in", "out", "both"):
        raise setting.wrong(f"{direction[:64]!r} must be one of out, in, both")
    if len(words) > 1 and words[1] not in ("0", "1", "2"):
        raise setting.wrong(f"the QoS {words[1][:64]!r} must be 0, 1 or 2")
    local, remote = ("" if len(words) <= at or words[at] == '""' else words[at] for at in (2, 3))
    topic_filter = local + pattern
    if wrong := check_topic_filter(topic_filter):
        raise setting.wrong(f"{topic_filter[:64]!r}: {wrong}")
    if "{" in topic_filter or "}" in topic_filter:
        raise setting.wrong("{ and } name levels of topics in routes")
    return direction, topic_filter, _address(local, remote, pattern)


def _address(local: str, remote: str, pattern: str) -> str:
    """The remote topic: the local one without its prefix, behind the other."""
    before = remote.replace("{", "{{").replace("}", "}}")
    if not local:
        return before + "{topic}"
    if pattern.endswith("#") or not (local.endswith("/") or not pattern):
        return before + "{topic}"  # what the prefix leaves has no name: the address says the whole topic
    depth = local.count("/")
    levels = pattern.split("/") if pattern else []
    return before + "/".join(
        f"{{topic[{depth + at}]}}" if level == "+" else level for at, level in enumerate(levels)
    )
