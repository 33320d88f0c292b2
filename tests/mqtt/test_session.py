import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedPacket
from bridge.message import Message, Properties
from bridge.mqtt.packet import Pubcomp, Publish, Pubrel, Will
from bridge.mqtt.session import EXPIRY_NEVER_S, NO_TOKEN, Arrival, Session

SECOND = 1_000_000_000
TODAY_S = 1_800_000_000


def message(token: int, **fields) -> Message:
    return Message("t", b"%d" % token, **fields)


def ids(packets) -> list[int]:
    return [packet.packet_id for packet in packets]


def filled(count: int, qos: int = 1, **limits) -> Session:
    """A session with deliveries 0, 1, 2… on offer, connected."""
    session = Session("c", **limits)
    session.reconnect(0)
    for token in range(count):
        assert session.offer(token, qos, message=message(token))
    return session


# ---- from the client ----


def test_a_qos_2_publish_is_stored_once_and_answered_when_stored():
    session = Session("c")
    assert session.arrive(7) is Arrival.NEW
    assert session.arrive(7) is Arrival.STORING
    session.stored([7])
    assert session.arrive(7) is Arrival.STORED
    assert session.pubrel(7) == Pubcomp(7)
    assert session.arrive(7) is Arrival.NEW


def test_the_same_identifier_two_thousand_times_is_held_once():
    session = Session("c")
    assert [session.arrive(1) for _ in range(2_000)].count(Arrival.NEW) == 1
    assert len(session.inbound) == 1


def test_identifiers_never_released_are_bounded():
    session = Session("c", inbound_max=10)
    for packet_id in range(1, 11):
        session.arrive(packet_id)
    with pytest.raises(MalformedPacket) as caught:
        session.arrive(11)
    assert caught.value.reason == 0x93
    assert session.arrive(10) is Arrival.STORING


def test_an_unknown_pubrel_is_answered_0x92():
    assert Session("c").pubrel(7) == Pubcomp(7, 0x92)


def test_after_a_refusal_the_next_copy_is_a_new_message():
    session = Session("c")
    session.arrive(7)
    session.forget(7)
    assert session.arrive(7) is Arrival.NEW
    session.stored([8])
    assert session.arrive(8) is Arrival.NEW


def test_identifiers_survive_the_connection():
    session = Session("c")
    session.arrive(7)
    session.stored([7])
    session.disconnect(5)
    session.reconnect(0)
    assert session.arrive(7) is Arrival.STORED


# ---- to the client ----


def test_the_window_holds_back_what_the_client_did_not_grant():
    session = filled(5, window_max=10)
    session.reconnect(0, receive_maximum=2)
    packets = session.take(0)
    assert packets == [Publish("t", b"0", 1, packet_id=1), Publish("t", b"1", 1, packet_id=2)]
    assert session.take(0) == []
    assert session.puback(1)
    assert ids(session.take(0)) == [3]
    assert session.queued == 2


def test_our_limit_holds_when_the_client_grants_more():
    assert len(filled(5, window_max=3).take(0)) == 3


def test_the_queue_is_bounded():
    session = filled(3, queue_max=3)
    assert session.room == 0
    assert not session.offer(3, 1)


def test_qos_2_walks_through_its_stages():
    session = filled(1, qos=2)
    assert session.take(0) == [Publish("t", b"0", 2, packet_id=1)]
    assert not session.puback(1)
    assert not session.pubcomp(1)
    assert session.pubrec(1) == Pubrel(1)
    assert session.pubrec(1) == Pubrel(1)
    assert session.pubcomp(1)
    assert not session.pubcomp(1)


def test_a_refusing_pubrec_settles():
    session = filled(1, qos=2)
    session.take(0)
    assert session.pubrec(1, 0x97) is None
    assert session.in_flight == {}


def test_a_refusing_puback_settles():
    session = filled(1)
    session.take(0)
    assert session.puback(1, 0x87)
    assert session.oldest() is None


def test_unknown_answers_settle_nothing():
    session = filled(1)
    session.take(0)
    assert not session.puback(9)
    assert not session.pubcomp(9)
    assert session.pubrec(9) == Pubrel(9, 0x92)
    assert session.pubrec(9, 0x80) is None
    assert session.pubrec(1) == Pubrel(1, 0x92)  # it was QoS 1
    assert session.oldest() == 0


def test_token_0_is_a_token_and_no_token_is_none():
    session = Session("c")
    session.reconnect(0)
    session.offer(NO_TOKEN, 1, message=message(1))
    session.offer(NO_TOKEN, 0, message=message(2))
    assert session.oldest() is None
    assert len(session.take(0)) == 2
    assert session.puback(1)
    session.offer(0, 1, message=message(0))
    assert session.oldest() == 0
    session.take(0)
    assert (session.oldest(), session.taken) == (0, 0)
    assert session.puback(2)
    assert session.oldest() is None


def test_messages_are_loaded_when_there_is_room():
    session = Session("c", window_max=2)
    session.reconnect(0)
    for token in range(10):
        session.offer(token, 1)
    asked: list[int] = []

    def load(token: int) -> Message | None:
        asked.append(token)
        return None if token == 1 else message(token)

    packets = session.take(0, load)
    assert [packet.payload for packet in packets] == [b"0", b"2"]
    assert (session.taken, asked) == (2, [0, 1, 2])


def test_qos_0_passes_and_is_settled_at_once():
    session = filled(3, qos=0, window_max=1)
    assert ids(session.take(0)) == [0, 0, 0]
    assert session.oldest() is None


def test_qos_0_does_not_overtake():
    session = filled(2, qos=1, window_max=1)
    session.offer(2, 0, message=message(2))
    assert [packet.payload for packet in session.take(0)] == [b"0"]
    session.puback(1)
    assert [packet.payload for packet in session.take(0)] == [b"1", b"2"]


def test_what_does_not_fit_the_client_is_let_go():
    session = filled(1)
    session.take(0)
    session.let_go(1)
    assert session.oldest() is None
    session.let_go(1)


def test_retain_and_subscription_identifiers_travel():
    session = Session("c")
    session.reconnect(0)
    content = Properties(content_type="a")
    session.offer(1, 1, True, (5, 9), message(1, properties=content))
    session.offer(2, 1, False, (5,), message(2))
    one, two = session.take(0)
    assert one.retain
    assert one.properties == Properties(content_type="a", subscription_identifiers=(5, 9))
    assert two.properties == Properties(subscription_identifiers=(5,))


def test_what_the_client_may_not_have_any_more_is_let_go_when_its_turn_comes():
    session = filled(3, window_max=2)
    session.take(0)
    session.admit = lambda topic: False
    assert session.reconnect(0) == []
    assert session.take(0) == []
    assert session.oldest() is None


def test_the_queue_is_bounded_in_bytes_but_takes_one_that_is_larger_than_all_of_it():
    session = Session("c", bytes_max=10)
    assert session.offer(0, 1, size=100)
    assert not session.offer(1, 1, size=1)
    assert session.drop_before(1) == 1
    assert session.offer(2, 1, size=6)
    assert not session.offer(3, 1, size=5)
    assert session.offer(4, 1, size=4)
    assert (session.queued_bytes, session.oldest()) == (10, 2)


# ---- packet identifiers ----


def test_identifiers_wrap_around_and_skip_those_in_use():
    session = filled(4, next_packet_id=65_534)
    assert ids(session.take(0)) == [65_534, 65_535, 1, 2]
    session.puback(65_535)
    session.next_packet_id = 65_534
    session.offer(4, 1, message=message(4))
    session.offer(5, 1, message=message(5))
    assert ids(session.take(0)) == [65_535, 3]


@given(st.lists(st.integers(0, 3), max_size=60))
def test_an_identifier_is_never_used_twice_at_once(answers):
    session = Session("c", window_max=3, next_packet_id=65_530)
    session.reconnect(0)
    flying: set[int] = set()
    for token, answer in enumerate(answers):
        session.offer(token, 1, message=message(token))
        fresh = ids(session.take(0))
        assert not flying & set(fresh)
        assert 0 not in fresh
        flying |= set(fresh)
        assert len(flying) <= 3
        for packet_id in sorted(flying)[:answer]:
            assert session.puback(packet_id)
            flying.remove(packet_id)


# ---- again on a new connection ----


def test_what_was_not_answered_is_repeated_in_order_with_dup():
    session = filled(3)
    session.take(0)
    session.puback(2)
    session.disconnect(0)
    assert session.reconnect(0) == [
        Publish("t", b"0", 1, dup=True, packet_id=1),
        Publish("t", b"2", 1, dup=True, packet_id=3),
    ]
    assert session.take(0) == []
    assert session.puback(3)


def test_after_pubrec_only_pubrel_is_repeated_in_the_order_of_pubrecs():
    session = filled(3, qos=2)
    session.take(0)
    session.pubrec(3)
    session.pubrec(1)
    packets = session.reconnect(0)
    assert packets == [Publish("t", b"1", 2, dup=True, packet_id=2), Pubrel(3), Pubrel(1)]


def test_a_smaller_receive_maximum_is_kept_while_repeating():
    session = filled(5, window_max=4)
    session.take(0)
    assert ids(session.reconnect(0, receive_maximum=2)) == [1, 2]
    assert session.take(0) == []
    assert session.puback(1)
    packets = session.take(0)
    assert (ids(packets), packets[0].dup) == ([3], True)
    session.puback(2)
    session.puback(3)
    packets = session.take(0)
    assert [(packet.packet_id, packet.dup) for packet in packets] == [(4, True), (5, False)]


def test_an_answer_to_what_was_not_repeated_yet_counts():
    session = filled(3, window_max=3)
    session.take(0)
    session.reconnect(0, receive_maximum=1)
    assert session.puback(3)
    assert session.puback(1)
    assert ids(session.take(0)) == [2]
    assert session.puback(2)
    session.offer(9, 1, message=message(9))
    assert ids(session.take(0)) == [4]


def test_repeated_messages_are_loaded_again_and_let_go_when_gone():
    session = Session("c")
    session.reconnect(0)
    session.offer(10, 1)
    session.offer(11, 2)
    session.take(0, message)
    packets = session.reconnect(0, load=lambda token: message(token) if token == 11 else None)
    assert [packet.payload for packet in packets] == [b"11"]
    assert session.oldest() == 11


@given(
    st.lists(st.sampled_from(["offer1", "offer2", "take", "answer", "reconnect"]), max_size=50),
    st.integers(1, 3),
)
def test_every_token_is_settled_once_and_the_window_is_never_exceeded(steps, receive_maximum):
    """Against a client that answers whatever it got last, in order."""
    session = Session("c", window_max=4)
    session.reconnect(0, receive_maximum)
    offered, settled, unanswered = 0, 0, []
    for step in [*steps, *["take", "answer"] * 200]:
        sent: list[Publish | Pubrel] = []
        if step.startswith("offer"):
            session.offer(offered, int(step[-1]), message=message(offered))
            offered += 1
        elif step == "take":
            sent = session.take(0)
        elif step == "reconnect":
            unanswered = []
            sent = session.reconnect(0, receive_maximum)
        elif unanswered:
            packet = unanswered.pop(0)
            if type(packet) is Pubrel:
                settled += session.pubcomp(packet.packet_id)
            elif packet.qos == 1:
                settled += session.puback(packet.packet_id)
            else:
                unanswered.append(session.pubrec(packet.packet_id))
        unanswered += sent
        assert sum(type(packet) is Publish for packet in unanswered) <= receive_maximum
    assert settled == offered
    assert session.taken == offered - 1
    assert session.oldest() is None


# ---- time ----


def expiring(seconds: int) -> Message:
    return message(
        1, received_ns=(TODAY_S + 100) * SECOND, properties=Properties(message_expiry_interval_s=seconds)
    )


@pytest.mark.parametrize(
    ("now_s", "left_s"),
    [(100, 10), (100.5, 10), (101, 9), (110, 0), (50, 10)],
)
def test_the_expiry_interval_tells_what_is_left(now_s, left_s):
    session = Session("c")
    session.reconnect(0)
    session.offer(1, 1, message=expiring(10))
    (packet,) = session.take(int((TODAY_S + now_s) * SECOND))
    assert packet.properties == Properties(message_expiry_interval_s=left_s)


def test_what_has_expired_is_settled_and_not_sent():
    session = Session("c")
    session.reconnect(0)
    session.offer(1, 1, message=expiring(10))
    assert session.take((TODAY_S + 110) * SECOND + 1) == []
    assert (session.taken, session.oldest()) == (1, None)


def test_what_has_expired_has_spent_its_identifier():
    session = Session("c")
    session.reconnect(0)
    session.offer(1, 1, message=expiring(1))
    session.offer(2, 0, message=expiring(1))
    session.offer(3, 1, message=message(3))
    assert ids(session.take((TODAY_S + 105) * SECOND)) == [2]


def test_what_was_begun_is_repeated_even_when_it_has_expired():
    session = Session("c")
    session.reconnect(0)
    session.offer(1, 1, message=expiring(10))
    session.take((TODAY_S + 100) * SECOND)
    (packet,) = session.reconnect((TODAY_S + 500) * SECOND)
    assert packet.properties.message_expiry_interval_s == 0


@pytest.mark.parametrize(
    ("expiry_s", "delay_s", "ends", "due"),
    [
        (0, 0, 100, 100),
        (60, 0, 160, 100),
        (60, 10, 160, 110),
        (60, 90, 160, 160),
        (EXPIRY_NEVER_S, 90, None, 190),
    ],
)
def test_when_the_session_ends_and_its_will_is_due(expiry_s, delay_s, ends, due):
    session = Session("c", expiry_interval_s=expiry_s)
    session.will = Will("t", b"", properties=Properties(will_delay_interval_s=delay_s))
    assert (session.ends_at(), session.will_due_at()) == (None, None)
    session.disconnect(100)
    assert (session.ends_at(), session.will_due_at()) == (ends, due)
    session.reconnect(0)
    assert (session.ends_at(), session.will_due_at()) == (None, None)


def test_without_a_will_nothing_is_due():
    session = Session("c")
    session.disconnect(100)
    assert session.will_due_at() is None
