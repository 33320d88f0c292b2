"""Where we and Debian's Mosquitto (2.0.11) differ, and why.

Each explanation is given what one device saw after one step and the other broker's
device did not, on both sides (`Case.ours`, `Case.theirs`), and takes away what it
explains. What is left over in the end is a difference that nobody has explained, and
the test fails. An explanation that `ends` the comparison is one after which the two
brokers are in different states, so that nothing later in the sequence can be compared.

Keep them narrow: an explanation that matches too much hides a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import msgspec

from bridge.mqtt.packet import (
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
)
from bridge.mqtt.reason import ReasonCode
from tests.broker.model import matches, split_share
from tests.broker.sequences import BAD_FILTERS, BEFORE, CLOSED, Step

__all__ = ["EXPLANATIONS", "Case", "Explanation", "ends_after"]

R = ReasonCode


@dataclass
class Case:
    """One step, one device, and what only one of its two selves has seen."""

    step: Step
    who: str
    version: int  # of its connection; 0 when it has none
    ours: list[Packet | str]
    theirs: list[Packet | str]
    before: list[Step] = field(default_factory=list)

    @property
    def what(self) -> str:
        return self.step[0]

    @property
    def acted(self) -> bool:
        """Whether it was this device that took the step."""
        return self.step[1]["name"] == self.who

    def take(self, ours: list[Packet | str], theirs: list[Packet | str]) -> bool:
        """Take these away, if nothing else is there."""
        if self.ours != ours or self.theirs != theirs:
            return False
        self.ours, self.theirs = [], []
        return True

    def only_we_close(self, reason: int, *kinds: type[Packet]) -> bool:
        """We send it away (in MQTT 3 without a word), there it gets packets of these kinds, and messages."""
        said = [Disconnect(reason), CLOSED] if self.version == 5 else [CLOSED]
        answers = [type(each) for each in self.theirs if not isinstance(each, Publish)]
        return answers == list(kinds) and self.take(said, self.theirs)


@dataclass
class Explanation:
    """`matched` counts, so that one which never applies any more is found."""

    name: str
    why: str
    explains: Callable[[Case], bool]
    ends: bool = False
    matched: int = 0


EXPLANATIONS: Final[list[Explanation]] = []


def explanation(why: str, ends: bool = False) -> Callable[[Callable[[Case], bool]], Callable[[Case], bool]]:
    def add(explains: Callable[[Case], bool]) -> Callable[[Case], bool]:
        EXPLANATIONS.append(Explanation(explains.__name__, why, explains, ends))
        return explains

    return add


# ---- reasons ---------------------------------------------------------------------------


@explanation("2.0.11 closes without saying why.")
def taken_over(case: Case) -> bool:
    return case.who.endswith(BEFORE) and case.take([Disconnect(R.SESSION_TAKEN_OVER)], [])


# what, ours, theirs
CLOSING_REASONS: Final = {
    ("subscribe", R.TOPIC_FILTER_INVALID, R.MALFORMED_PACKET),
    ("subscribe", R.PROTOCOL_ERROR, R.MALFORMED_PACKET),
    ("unsubscribe", R.TOPIC_FILTER_INVALID, R.MALFORMED_PACKET),
    ("publish", R.TOPIC_NAME_INVALID, R.PROTOCOL_ERROR),
    ("publish", R.TOPIC_NAME_INVALID, R.MALFORMED_PACKET),  # and the alias is wrong as well
    ("publish", R.TOPIC_NAME_INVALID, R.TOPIC_ALIAS_INVALID),
    ("publish", R.TOPIC_ALIAS_INVALID, R.MALFORMED_PACKET),
    ("SUBSCRIBE with packet identifier 0", R.PROTOCOL_ERROR, R.MALFORMED_PACKET),
    ("type 0", R.MALFORMED_PACKET, R.PROTOCOL_ERROR),
    ("SUBSCRIBE without filters", R.PROTOCOL_ERROR, R.MALFORMED_PACKET),
    ("UNSUBSCRIBE without filters", R.PROTOCOL_ERROR, R.MALFORMED_PACKET),
}


@explanation("Both send it away; of the codes that fit, ours is the one that says more.")
def closing_reason(case: Case) -> bool:
    what = case.step[1]["what"] if case.what == "odd" else case.what
    return case.acted and any(
        what == where and case.take([Disconnect(ours)], [Disconnect(theirs)])
        for where, ours, theirs in CLOSING_REASONS
    )


@explanation("We say 0x92 to a PUBREC or PUBREL of an unknown packet identifier (v5 section 4.3.3).")
def nothing_to_release(case: Case) -> bool:
    if case.version < 5 or len(case.ours) != 1 or not isinstance(case.ours[0], Pubrel | Pubcomp):
        return False
    (packet,) = case.ours
    known = msgspec.structs.replace(packet, reason=0)
    return packet.reason == R.PACKET_IDENTIFIER_NOT_FOUND and case.take([packet], [known])


@explanation("2.0.11 says 0 for every filter that begins with $, whether it was there or not.")
def unsubscribed_from_dollar(case: Case) -> bool:
    if case.what != "unsubscribe" or len(case.ours) != 1 or not isinstance(case.ours[0], Unsuback):
        return False
    (unsuback,) = case.ours
    reasons = tuple(
        0 if topic_filter.startswith("$") else reason
        for reason, topic_filter in zip(unsuback.reasons, case.step[1]["filters"], strict=True)
    )
    return case.take([unsuback], [Unsuback(unsuback.packet_id, reasons)])


# ---- what only we refuse ---------------------------------------------------------------


@explanation("Subscription Identifiers come from servers only [MQTT-3.3.4-6]; 2.0.11 takes them.", ends=True)
def identifier_in_publish(case: Case) -> bool:
    how = case.step[1]
    kinds = ((), (Puback,), (Pubrec, Pubcomp))[how["qos"]] if case.what == "publish" else ()
    return case.acted and how.get("about") == "identifier" and case.only_we_close(R.PROTOCOL_ERROR, *kinds)


@explanation(
    "A shared subscription is $share, a name without wildcards, and a filter [MQTT-4.8.2-1], [MQTT-4.8.2-2]; "
    "2.0.11 takes others for filters.",
    ends=True,
)
def share_without_name(case: Case) -> bool:
    filters = _filters(case)
    bad = any(each in ("$share/", "$share/x", "$share//a", "$share/+/a", "$share/x/") for each in filters)
    return case.acted and bad and case.only_we_close(R.TOPIC_FILTER_INVALID, Suback)


@explanation("A share cannot be No Local [MQTT-3.8.3-4]; 2.0.11 lets it.", ends=True)
def shared_and_no_local(case: Case) -> bool:
    return (
        case.acted
        and case.what == "subscribe"
        and case.version == 5
        and any(
            each["no_local"] and each["topic_filter"].startswith("$share/")
            for each in case.step[1]["filters"]
        )
        and case.only_we_close(R.PROTOCOL_ERROR, Suback)
    )


ODD_THAT_THEY_TAKE: Final = {
    "PINGRESP": (R.PROTOCOL_ERROR, ()),
    "SUBACK": (R.PROTOCOL_ERROR, ()),
    "UNSUBACK": (R.PROTOCOL_ERROR, ()),
    "PINGREQ with a body": (R.MALFORMED_PACKET, (Pingresp,)),
    "PINGREQ with flags": (R.MALFORMED_PACKET, (Pingresp,)),
    "PUBREL with flags 0": (R.MALFORMED_PACKET, (Pubcomp,)),
    "PUBLISH with QoS 0 and DUP": (R.MALFORMED_PACKET, ()),
}


@explanation("Packets that no client sends, or with bits that are reserved; 2.0.11 does not look.", ends=True)
def odd_packets(case: Case) -> bool:
    reason, kinds = ODD_THAT_THEY_TAKE.get(case.step[1].get("what", ""), (0, ()))
    return case.acted and bool(reason) and case.only_we_close(reason, *kinds)


ODD_WITHOUT_A_WORD: Final = {
    "AUTH": R.PROTOCOL_ERROR,
    "CONNACK": R.PROTOCOL_ERROR,
    "SUBACK": R.PROTOCOL_ERROR,
    "UNSUBACK": R.PROTOCOL_ERROR,
    "a second CONNECT": R.PROTOCOL_ERROR,
    "a second CONNECT, of version 5": R.PROTOCOL_ERROR,
    "PUBREL with flags 0": R.MALFORMED_PACKET,
    "a length of five bytes": R.MALFORMED_PACKET,
}


@explanation("Both send it away; 2.0.11 without a word.")
def odd_packets_without_a_word(case: Case) -> bool:
    reason = ODD_WITHOUT_A_WORD.get(case.step[1].get("what", ""))
    return case.acted and reason is not None and case.take([Disconnect(reason)], [])


# ---- QoS 2 -----------------------------------------------------------------------------


@explanation(
    "We deliver a message of QoS 2 when it is stored, 2.0.11 when it is released; both may (section 4.3.3).",
    ends=True,
)
def delivered_before_released(case: Case) -> bool:
    steps = enumerate((*case.before, case.step))
    begun = {(how["topic"], b"%d" % nth) for nth, (what, how) in steps if what == "begin"}
    packets = case.ours + case.theirs
    known = all(isinstance(each, Publish) and (each.topic, each.payload) in begun for each in packets)
    return bool(packets) and known and case.take(case.ours, case.theirs)


# ---- retained messages -----------------------------------------------------------------


@explanation(
    "A new shared subscription gets no retained messages (v5 section 4.8.2); 2.0.11 sends them.", ends=True
)
def retained_for_a_share(case: Case) -> bool:
    shared = any(each.startswith("$share/") for each in _filters(case))
    extra = all(isinstance(each, Publish) and each.retain for each in case.theirs)
    return case.acted and shared and extra and case.take([], case.theirs)


@explanation(
    "Of a filter that stands twice in a SUBSCRIBE we send the retained messages once; 2.0.11 twice.",
    ends=True,
)
def retained_twice(case: Case) -> bool:
    filters = _filters(case)
    extra = all(isinstance(each, Publish) and each.retain for each in case.theirs)
    return case.acted and len(set(filters)) < len(filters) and extra and case.take([], case.theirs)


# ---- wills -----------------------------------------------------------------------------


@explanation(
    "Who sends a second CONNECT has broken the protocol, and its will is published [MQTT-3.1.2-8].", ends=True
)
def will_after_second_connect(case: Case) -> bool:
    wills = all(isinstance(each, Publish) and each.payload.startswith(b"will ") for each in case.ours)
    return _is_second_connect(case.step) and wills and case.take(case.ours, [])


def ends_after(step: Step) -> bool:
    """After these steps the two are in different states, though nobody may have seen that yet.

    2.0.11 reads a second CONNECT into the session before it refuses it, and so forgets its
    will and sometimes the session. And where one filter of several is malformed it has by
    then subscribed to those before it; we take a packet as a whole or not at all.
    """
    what, how = step
    if what in ("subscribe", "unsubscribe"):
        filters = [each["topic_filter"] if what == "subscribe" else each for each in how["filters"]]
        return any(each in BAD_FILTERS for each in filters[1:])
    return _is_second_connect(step)


def _is_second_connect(step: Step) -> bool:
    return bool(step[1].get("what", "").startswith("a second CONNECT"))


# ---- several filters of one device -----------------------------------------------------


@explanation(
    "Overlapping filters make one delivery here, with the highest QoS and all identifiers [MQTT-3.3.4-2]. "
    "2.0.11 sends one for each to MQTT 5 clients, to others one with the QoS of whichever it finds first.",
    ends=True,
)
def overlapping_filters(case: Case) -> bool:
    packets = case.ours + case.theirs
    if not _are_one_message(packets) or len(case.ours) > 1:
        return False
    filters = {each["topic_filter"].format(name=case.who) for each in _subscriptions(case)}
    mine = [each for each in filters if matches(split_share(each)[1], packets[0].topic)]
    shared = any(each.startswith("$share/") for each in mine)
    # Without one of theirs, it is our second copy, for the share, that they leave out in MQTT 3.
    known = bool(case.theirs) or (case.version < 5 and shared)
    return len(mine) > 1 and known and case.take(case.ours, case.theirs)


@explanation(
    "Who subscribes again replaces the options [MQTT-3.8.4-3]; 2.0.11 leaves No Local and Retain As "
    "Published as they were.",
    ends=True,
)
def options_that_stay(case: Case) -> bool:
    packets = case.ours + case.theirs
    if not _are_one_message(packets):
        return False
    options: dict[str, set[tuple[bool, bool]]] = {}
    for each in _subscriptions(case):
        topic_filter = each["topic_filter"].format(name=case.who)
        if matches(split_share(topic_filter)[1], packets[0].topic):
            options.setdefault(topic_filter, set()).add((each["no_local"], each["retain_as_published"]))
    changed = any(len(each) > 1 for each in options.values())
    return changed and case.take(case.ours, case.theirs)


def _are_one_message(packets: list[Packet | str]) -> TypeGuard[list[Publish]]:
    if not packets or not all(isinstance(each, Publish) for each in packets):
        return False
    return len({(each.topic, each.payload) for each in packets}) == 1


def _subscriptions(case: Case) -> list[dict[str, Any]]:
    """Whatever the device has ever subscribed to, in its order."""
    return [
        each
        for what, how in (*case.before, case.step)
        if what == "subscribe" and how["name"] == case.who
        for each in how["filters"]
    ]


# ---- connections that come again -------------------------------------------------------


@explanation("2.0.11 sends more than the new Receive Maximum allows [MQTT-3.3.4-9].", ends=True)
def more_than_receive_maximum(case: Case) -> bool:
    more = all(isinstance(each, Publish) and each.qos for each in case.theirs)
    limited = case.what == "connect" and case.version == 5 and case.step[1]["receive_maximum"] is not None
    return case.acted and limited and more and case.take([], case.theirs)


def _filters(case: Case) -> list[str]:
    """The filters of this SUBSCRIBE."""
    if case.what != "subscribe":
        return []
    return [each["topic_filter"] for each in case.step[1]["filters"]]
