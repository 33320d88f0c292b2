"""Legal packets of both versions, for Hypothesis."""

from hypothesis import strategies as st

from bridge.message import Properties
from bridge.mqtt import packet as p
from bridge.mqtt import reason
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.property import TABLE, Kind

strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=12)
topic_filters = st.lists(st.sampled_from(["a", "b1", "+", "", "ä"]), min_size=2, max_size=4).map("/".join)
binaries = st.binary(max_size=12)
packet_ids = st.integers(1, 65_535)
VALUES = {
    Kind.FLAG: st.integers(0, 1),
    Kind.U16: st.integers(1, 65_535),
    Kind.U32: st.integers(1, 2**32 - 1),
    Kind.LENGTH: st.integers(1, 268_435_455),
    Kind.STRING: strings,
    Kind.BINARY: binaries,
    Kind.PAIR: st.tuples(strings, strings),
}


@st.composite
def properties_of(draw, packet: P) -> Properties:
    fields = {}
    rows = [row for row in TABLE.values() if packet in row.packets]
    for row in draw(st.lists(st.sampled_from(rows), max_size=4, unique_by=lambda row: row.field)):
        value = topics if row.field == "response_topic" else VALUES[row.kind]
        if row.field in ("user_properties", "subscription_identifiers"):
            most = 3 if packet in row.repeats else 1
            fields[row.field] = tuple(draw(st.lists(value, min_size=1, max_size=most)))
        else:
            fields[row.field] = draw(value)
    if "authentication_data" in fields:
        fields.setdefault("authentication_method", "m")
    return Properties(**fields)


def maybe(packet: P, version: int) -> st.SearchStrategy[Properties | None]:
    if version < 5:
        return st.none()
    return st.none() | properties_of(packet).map(lambda found: None if found == Properties() else found)


@st.composite
def publishes(draw, version: int) -> p.Publish:
    qos = draw(st.integers(0, 2))
    dup = draw(st.booleans()) if qos else False
    packet_id = draw(packet_ids) if qos else 0
    payload = draw(st.binary(max_size=12) | st.binary(min_size=120, max_size=140))
    properties = draw(maybe(P.PUBLISH, version))
    topic = draw(topics | st.sampled_from(["a", "a/b", "plant/1"]))
    return p.Publish(topic, payload, qos, draw(st.booleans()), dup, packet_id, properties)


@st.composite
def connects(draw, version: int) -> p.Connect:
    will = None
    if draw(st.booleans()):
        will = p.Will(
            draw(topics),
            draw(binaries),
            draw(st.integers(0, 2)),
            draw(st.booleans()),
            draw(maybe(P.WILL, version)),
        )
    user_name = draw(st.none() | strings)
    password = draw(st.none() | binaries) if version == 5 or user_name is not None else None
    return p.Connect(
        draw(strings.filter(bool)), version, draw(st.booleans()), draw(st.integers(0, 65_535)),
        user_name, password, will, draw(maybe(P.CONNECT, version)),
    )  # fmt: skip


@st.composite
def subscribes(draw, version: int) -> p.Subscribe:
    properties = draw(maybe(P.SUBSCRIBE, version))
    identifiers = properties.subscription_identifiers if properties is not None else ()
    flags = st.booleans() if version == 5 else st.just(False)
    subscription = st.builds(
        p.Subscription,
        topic_filters,
        st.integers(0, 2),
        flags,
        flags,
        st.integers(0, 2) if version == 5 else st.just(0),
        st.just(identifiers[0] if identifiers else None),
    )
    return p.Subscribe(
        draw(packet_ids), tuple(draw(st.lists(subscription, min_size=1, max_size=4))), properties
    )


def packets(version: int) -> st.SearchStrategy[p.Packet]:
    """Every packet that `version` can say, from clients and from servers."""

    def reasons(known: frozenset[int]) -> st.SearchStrategy[int]:
        return st.sampled_from(sorted(known)) if version == 5 else st.just(0)

    def many(known: frozenset[int]) -> st.SearchStrategy[tuple[int, ...]]:
        return st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4).map(tuple)

    acks = [
        st.builds(kind, packet_ids, reasons(known), maybe(kind.TYPE, version))
        for kind, known in [
            (p.Puback, reason.PUBACK_REASONS),
            (p.Pubrec, reason.PUBACK_REASONS),
            (p.Pubrel, reason.PUBREL_REASONS),
            (p.Pubcomp, reason.PUBREL_REASONS),
        ]
    ]
    refusals = reason.CONNACK_REASONS if version == 5 else {0x84, 0x85, 0x86, 0x87, 0x88}
    subacks = reason.SUBACK_REASONS if version == 5 else frozenset({0, 1, 2, 0x80})
    both = [
        connects(version),
        st.builds(
            p.Connack, st.booleans() if version > 3 else st.just(False), st.just(0), maybe(P.CONNACK, version)
        ),
        st.builds(p.Connack, st.just(False), st.sampled_from(sorted(refusals)), maybe(P.CONNACK, version)),
        publishes(version),
        *acks,
        subscribes(version),
        st.builds(p.Suback, packet_ids, many(subacks), maybe(P.SUBACK, version)),
        st.builds(
            p.Unsubscribe,
            packet_ids,
            st.lists(topic_filters, min_size=1, max_size=4).map(tuple),
            maybe(P.UNSUBSCRIBE, version),
        ),
        st.builds(
            p.Unsuback,
            packet_ids,
            many(reason.UNSUBACK_REASONS) if version == 5 else st.just(()),
            maybe(P.UNSUBACK, version),
        ),
        st.sampled_from([p.PINGREQ, p.PINGRESP]),
        st.builds(p.Disconnect, reasons(reason.DISCONNECT_REASONS), maybe(P.DISCONNECT, version)),
    ]
    if version == 5:
        both.append(st.builds(p.Auth, reasons(reason.AUTH_REASONS), maybe(P.AUTH, version)))
    return st.one_of(both)


versioned = st.sampled_from([3, 4, 5]).flatmap(lambda version: st.tuples(st.just(version), packets(version)))
streams = st.sampled_from([3, 4, 5]).flatmap(
    lambda version: st.tuples(st.just(version), st.lists(packets(version), max_size=6))
)
