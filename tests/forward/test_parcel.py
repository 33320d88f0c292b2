"""Messages as their route sends them, and what becomes of those that cannot be sent."""

import json

import msgspec
import pytest

from bridge.errors import SinkUnavailable
from bridge.forward.letters import DeadLetter
from bridge.forward.parcel import pack_up, send_fit
from bridge.message import Message
from bridge.policy.dress import Dress
from bridge.policy.envelope import decode
from bridge.sinks.base import Refusal
from bridge.store import Entry
from bridge.topic import Pattern
from tests.gateway import until


def dress(address="{topic}", topic_filter="#", **more):
    return Dress([Pattern.parse(topic_filter)], address, gateway="plant-7", **more)


def entries(*payloads):
    messages = [Message("plant/a", payload, 1, False, "press-7", 2 * 10**18) for payload in payloads]
    return [Entry(n * 100, n * 100 + 100, 40 + n, message) for n, message in enumerate(messages)]


def test_a_plain_route_sends_the_payload_itself():
    [sent], unfit = pack_up(dress(), entries(b"x"), "g/1/")
    assert (sent.id, sent.address, sent.payload, sent.headers) == ("g/1/40", "plant/a", b"x", ())
    assert sent.body is None
    assert not unfit


def test_headers_and_a_body_go_along():
    made = dress("{payload.s}.x", headers={"s": "{payload.s}", "n": "{payload.n}"}, body="<{payload.s}>")
    [sent], _ = pack_up(made, entries(b'{"s": "north"}'), "g/1/", replayed=True)
    assert (sent.address, sent.headers, sent.body) == ("north.x", (("s", "north"),), b"<north>")
    assert sent.replayed


def test_an_envelope_holds_the_whole_message():
    made = dress(envelope="json", headers={"by": "{publisher}"})
    sent, _ = pack_up(made, entries(b'{"t": 21.5}', b"\xff\x00"), "g/1/")
    for outgoing, entry in zip(sent, entries(b'{"t": 21.5}', b"\xff\x00"), strict=True):
        assert outgoing.content_type == "application/json"
        assert decode(outgoing.payload).message == entry.message
        assert json.loads(outgoing.payload)["headers"] == {"by": "press-7"}


def test_given_a_payload_without_what_the_address_needs_then_only_that_one_is_unfit():
    by_site = dress("{payload.site}.x")
    fit, unfit = pack_up(by_site, entries(b'{"site": "n"}', b"{}", b'{"site": "s"}', b"no JSON"), "g/1/")
    assert [outgoing.address for outgoing in fit] == ["n.x", "s.x"]
    assert [refusal.index for refusal in unfit] == [1, 3]
    assert unfit[0].reason == "the address needs payload.site, which this message does not have"
    assert unfit[1].reason.endswith("because the payload is not JSON")


def sends(refusals=(), confirmed=None):
    async def send(batch):
        if confirmed is not None:
            raise SinkUnavailable("broke", confirmed)
        return list(refusals)

    return send


async def test_refusals_are_told_by_their_places_in_the_whole_batch():
    unfit = [Refusal(1, "unfit", final=True), Refusal(3, "unfit", final=True)]
    fit = ["0", "2", "4"]
    refused = await send_fit(sends([Refusal(1, "no"), Refusal(2, "never", final=True)]), fit, unfit)
    assert refused == [
        Refusal(1, "unfit", final=True),
        Refusal(2, "no"),
        Refusal(3, "unfit", final=True),
        Refusal(4, "never", final=True),
    ]
    assert await send_fit(sends([Refusal(0, "never asked")]), [], unfit) == unfit


@pytest.mark.parametrize(("confirmed", "of_all"), [(0, 0), (1, 1), (2, 2), (3, 2)])
async def test_given_a_link_that_breaks_then_what_is_confirmed_ends_before_the_first_unfit(confirmed, of_all):
    with pytest.raises(SinkUnavailable) as caught:
        await send_fit(sends(confirmed=confirmed), ["0", "1", "3"], [Refusal(2, "unfit")])
    assert caught.value.confirmed == of_all


async def test_what_cannot_be_addressed_lies_whole_among_the_dead_and_the_rest_arrives(hall):
    route = hall.route(address="{payload.site}.x", headers={"site": "{payload.site}"})
    hall.run()
    await hall.append('{"site": "n"}', "{}", '{"site": "s"}', "no JSON")
    await hall.drained(route)
    assert [each.address for each in hall.sink.received] == ["n.x", "s.x"]
    assert [each.headers for each in hall.sink.received] == [(("site", "n"),), (("site", "s"),)]
    await until(lambda: len(hall.spool.dead.read(0, 10)) == 2)
    buried = hall.spool.dead.read(0, 10)
    assert [each.message.payload for each in buried] == [b"{}", b"no JSON"]
    letters = [msgspec.json.decode(each.note, type=DeadLetter) for each in buried]
    assert all("payload.site" in letter.reason for letter in letters)
