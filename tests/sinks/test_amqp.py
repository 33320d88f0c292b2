"""What the AMQP sink does beyond the ten promises, in front of a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.errors import ConfigError, SinkUnavailable
from bridge.forward.packing import Packer
from bridge.policy.envelope import rfc3339
from bridge.policy.pack import Compression, Format, Pack, pack_id, unpack
from bridge.sinks.amqp import AmqpSink
from bridge.sinks.base import Outgoing
from bridge.sinks.kit import outgoing
from bridge.sinks.options import AmqpOptions
from tests.servers import RabbitMQ, TcpProxy, free_port
from tests.sinks.queues import channel_to, take_all

Opens = Callable[..., Awaitable[AmqpSink]]


@pytest.fixture
async def opened(rabbitmq: RabbitMQ) -> AsyncIterator[Opens]:
    made: list[AmqpSink] = []

    async def open_one(**options: Any) -> AmqpSink:
        made.append(
            AmqpSink("cloud", AmqpOptions.model_validate({"url": rabbitmq.url, **options}), "plant-7")
        )
        await made[-1].open()
        return made[-1]

    yield open_one
    for sink in made:
        await sink.close()


def fresh_queue(server: RabbitMQ, name: str, **arguments: Any) -> str:
    with channel_to(server.url) as channel:
        channel.queue_delete(name)
        channel.queue_declare(
            name, durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()}
        )
    return name


def batch_to(queue: str, count: int, payload: bytes = b"x") -> list[Outgoing]:
    return [outgoing(queue, queue, n, payload) for n in range(count)]


async def test_an_address_too_long_for_amqp_or_empty_is_refused_alone(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    """A template may make one of what a device wrote."""
    queue = fresh_queue(rabbitmq, "long addresses")
    sink = await opened()
    batch = [outgoing(address, "n", n) for n, address in enumerate([queue, "ü" * 128, queue, "", queue])]
    refusals = await sink.send_batch(batch)
    assert [(each.index, each.final) for each in refusals] == [(1, True), (3, False)]
    assert "the routing key has 256 bytes; AMQP allows 255" in refusals[0].reason
    assert "no queue takes it" in refusals[1].reason
    assert [properties.message_id for properties, _ in take_all(rabbitmq.url, queue)] == [
        f"kit/n/{n}" for n in (0, 2, 4)
    ]


async def test_what_is_declared_is_there(rabbitmq: RabbitMQ, opened: Opens) -> None:
    sink = await opened(
        exchange="plant",
        declare=[
            {"exchange": {"name": "plant", "type": "topic"}},
            {"queue": {"name": "declared", "type": "quorum", "arguments": {"x-max-length": 1000}}},
            {"queue": {"name": "history", "type": "stream"}},
            {"binding": {"exchange": "plant", "queue": "declared", "key": "*.telemetry"}},
        ],
    )
    assert await sink.send_batch([outgoing("press.telemetry", "d", 1)]) == []
    refusals = await sink.send_batch([outgoing("press.other", "d", 2)])
    assert (
        "no queue takes it: exchange 'plant', routing key 'press.other' (312 NO_ROUTE)" in refusals[0].reason
    )
    [(properties, _)] = take_all(rabbitmq.url, "declared")
    assert properties.message_id == "kit/d/1"
    assert properties.delivery_mode == 2


async def test_given_a_declared_queue_that_is_gone_then_nothing_is_refused_and_the_next_link_has_it(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    with channel_to(rabbitmq.url) as channel:
        channel.queue_delete("again")
    sink = await opened(declare=[{"queue": {"name": "again"}}])
    batch = batch_to("again", 10)
    assert await sink.send_batch(batch[:3]) == []
    with channel_to(rabbitmq.url) as channel:
        channel.queue_delete("again")
    with pytest.raises(SinkUnavailable, match=r"declared is gone.*no queue 'again'") as raised:
        await sink.send_batch(batch[3:])
    assert raised.value.confirmed == 0
    await sink.close()
    await sink.open()
    assert await sink.send_batch(batch[3:]) == []
    ids = [properties.message_id for properties, _ in take_all(rabbitmq.url, "again")]
    assert ids == [message.id for message in batch[3:]]


async def test_given_one_id_for_two_addresses_then_the_one_without_a_queue_is_refused_and_not_the_other(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    # Two routes that lead to one sink send the same messages, under the same ids, and somebody has
    # the second replayed. What lives in memory is confirmed together with what no queue takes.
    with channel_to(rabbitmq.url) as channel:
        channel.queue_declare("first", durable=False)
    sink = await opened()
    first = [outgoing("first", "shared", n) for n in range(300)]
    batch = [
        msgspec.structs.replace(each, address=address)
        for each in first
        for address in ("first", "nowhere", "nowhere")
    ]
    refusals = await sink.send_batch(batch)
    assert [batch[refusal.index].address for refusal in refusals] == ["nowhere"] * 600
    with channel_to(rabbitmq.url) as channel:
        assert channel.queue_delete("first").method.message_count == 300


async def test_given_all_that_was_declared_then_what_no_queue_takes_is_refused_and_the_link_stays(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    sink = await opened(declare=[{"queue": {"name": "there"}}])
    batch = [outgoing("there" if n % 2 else "nowhere", "mixed", n) for n in range(500)]
    for share in (batch[:250], batch[250:]):  # the second without asking once more
        refusals = await sink.send_batch(share)
        assert [share[each.index].address for each in refusals] == ["nowhere"] * 125
    assert len(take_all(rabbitmq.url, "there")) == 250


@pytest.mark.parametrize("compress", [None, "zlib", "zstd"])
@pytest.mark.parametrize("pack", ["ndjson", "json", "length_prefixed"])
async def test_a_pack_lies_in_the_queue_with_what_a_consumer_must_know(
    rabbitmq: RabbitMQ, opened: Opens, pack: Format, compress: Compression | None
) -> None:
    sink, queue = await opened(), fresh_queue(rabbitmq, "packed-here")
    batch = batch_to(queue, 300, b"\xff packed")
    assert await Packer(Pack(pack, compress)).over(sink.send_batch)(batch) == []
    [(properties, body)] = take_all(rabbitmq.url, queue)
    assert properties.content_type == Pack(pack).content_type
    assert properties.content_encoding == {None: None, "zlib": "deflate", "zstd": "zstd"}[compress]
    assert properties.message_id == pack_id([each.id for each in batch])
    assert properties.headers == {
        "pack": pack,
        "pack_count": "300",
        "pack_first": batch[0].id,
        "pack_last": batch[-1].id,
        "received_at": rfc3339(batch[0].message.received_ns),
    }
    told = unpack(body, pack, properties.content_encoding or "")
    assert [one.envelope.id for one in told] == [each.id for each in batch]
    assert {one.payload for one in told} == {b"\xff packed"}


async def test_of_packs_that_no_queue_takes_every_message_is_refused_by_itself_and_others_arrive(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    sink, queue = await opened(), fresh_queue(rabbitmq, "packed-here")
    batch = batch_to(queue, 10)
    batch[3] = msgspec.structs.replace(batch[3], address="nobody")
    batch[7] = msgspec.structs.replace(batch[7], address="nobody")
    refusals = await Packer(Pack("ndjson")).over(sink.send_batch)(batch)
    assert [each.index for each in refusals] == [3, 7]
    assert "routing key 'nobody'" in refusals[0].reason
    [(properties, _)] = take_all(rabbitmq.url, queue)
    assert properties.headers["pack_count"] == "8"


async def test_what_amqp_cannot_say_is_refused_and_its_neighbours_arrive(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    sink = await opened()
    batch = batch_to(fresh_queue(rabbitmq, "say"), 3)
    batch[1] = msgspec.structs.replace(batch[1], address="k" * 256)
    refusals = await sink.send_batch(batch)
    assert [refusal.index for refusal in refusals] == [1]
    assert len(take_all(rabbitmq.url, "say")) == 2


async def test_given_a_full_queue_then_nothing_is_refused_and_each_try_makes_progress(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    # A batch of 25 and a queue with room for 10: if the caller did not learn what was
    # confirmed, the first ten would be delivered again and again.
    queue = fresh_queue(rabbitmq, "full", x_max_length=10, x_overflow="reject-publish")
    sink = await opened()
    batch, taken, reasons = batch_to(queue, 25), [], []
    whole = batch
    while True:
        assert len(reasons) < 20
        try:
            assert await sink.send_batch(batch) == []
            break
        except SinkUnavailable as error:
            reasons.append(str(error))
            batch = batch[error.confirmed :]
        await sink.close()
        taken += await asyncio.to_thread(take_all, rabbitmq.url, queue)
        await sink.open()
    taken += await asyncio.to_thread(take_all, rabbitmq.url, queue)
    ids = [properties.message_id for properties, _ in taken]
    assert ids == [message.id for message in whole]
    assert all("basic.nack" in reason for reason in reasons)


async def test_given_one_message_the_broker_will_not_have_then_it_alone_is_refused(
    rabbitmq: RabbitMQ, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broker closes the channel over it and does not say over which.
    from bridge.sinks import amqp_link

    real = amqp_link.publish_frames

    def poisoned(message: Outgoing, exchange: str, frame_max: int) -> list[bytes]:
        frames = real(message, exchange, frame_max)
        if message.id == "kit/poison/13":  # an expiration that is none: 406 PRECONDITION_FAILED
            frames[1] = frames[1].replace(b"\x0560000", b"\x05never")
        return frames

    monkeypatch.setattr(amqp_link, "publish_frames", poisoned)
    queue = fresh_queue(rabbitmq, "poison")
    sink = await opened()
    expiring = msgspec.structs.replace(outgoing(queue, "poison", 13).message, properties=_sixty_seconds())
    batch = batch_to(queue, 30)
    batch[13] = msgspec.structs.replace(batch[13], message=expiring)
    whole, refusals, reasons = batch, [], []
    for _ in range(4):
        try:
            refusals = await sink.send_batch(batch)
            break
        except SinkUnavailable as error:
            reasons.append(str(error))
            batch = batch[error.confirmed :]
        await sink.close()
        await sink.open()
    assert [batch[refusal.index].id for refusal in refusals] == ["kit/poison/13"]
    assert all("PRECONDITION_FAILED" in reason for reason in (*reasons, refusals[0].reason))
    seen = {properties.message_id for properties, _ in await asyncio.to_thread(take_all, rabbitmq.url, queue)}
    assert seen == {message.id for message in whole} - {"kit/poison/13"}


async def test_given_a_pack_the_broker_will_not_have_then_the_message_that_spoils_it_alone_is_refused(
    rabbitmq: RabbitMQ, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.sinks import amqp_link

    real = amqp_link.publish_frames

    def spoilt(message: Outgoing, exchange: str, frame_max: int) -> list[bytes]:
        if b'"kit/poison/13"' not in message.payload:
            return real(message, exchange, frame_max)
        expiring = msgspec.structs.replace(message.message, properties=_sixty_seconds())
        frames = real(msgspec.structs.replace(message, message=expiring), exchange, frame_max)
        return [frame.replace(b"\x0560000", b"\x05never") for frame in frames]

    monkeypatch.setattr(amqp_link, "publish_frames", spoilt)
    queue = fresh_queue(rabbitmq, "spoilt")
    sink = await opened()
    send = Packer(Pack("ndjson")).over(sink.send_batch)
    whole = [outgoing(queue, "poison", n) for n in range(30)]
    batch, refused = whole, []
    for _ in range(8):
        try:
            refused = [batch[each.index].id for each in await send(batch)]
            break
        except SinkUnavailable as error:
            batch = batch[error.confirmed :]
        await sink.close()
        await sink.open()
    assert refused == ["kit/poison/13"]
    taken = await asyncio.to_thread(take_all, rabbitmq.url, queue)
    seen = {one.envelope.id for _, body in taken for one in unpack(body, "ndjson")}
    assert seen == {message.id for message in whole} - {"kit/poison/13"}


def _sixty_seconds() -> Any:
    from bridge.message import Properties

    return Properties(message_expiry_interval_s=60)


async def test_an_exchange_that_is_not_there_is_found_when_opening(opened: Opens) -> None:
    with pytest.raises(SinkUnavailable, match="404 NOT_FOUND - no exchange 'nowhere'"):
        await opened(exchange="nowhere")


async def test_given_an_exchange_deleted_under_way_then_nothing_is_refused(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    with channel_to(rabbitmq.url) as channel:
        channel.exchange_declare("gone", "topic")
    sink = await opened(exchange="gone")
    with channel_to(rabbitmq.url) as channel:
        channel.exchange_delete("gone")
    with pytest.raises(SinkUnavailable, match="404 NOT_FOUND"):
        await sink.send_batch(batch_to("k", 3))
    assert "404" in await asyncio.wait_for(sink.lost(), 5)


async def test_reasons_are_for_people(rabbitmq: RabbitMQ, opened: Opens) -> None:
    port = free_port()
    for url, said in (
        (f"amqp://guest:guest@127.0.0.1:{port}", f"amqp://guest:\\*\\*\\*@127.0.0.1:{port}: .*refused"),
        (rabbitmq.url.replace("guest:guest", "guest:wrong-word"), "refuses the user name or the password"),
        (rabbitmq.url.replace("%2F", "other"), "refuses access to the virtual host"),
        ("amqp://guest:guest@no-such-host.invalid", "host name is not known"),
    ):
        with pytest.raises(SinkUnavailable, match=said) as raised:
            await opened(url=url, open_timeout="5s")
        assert "wrong-word" not in str(raised.value)


async def test_a_listener_that_says_nothing_ends_in_time(opened: Opens) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(SinkUnavailable, match="no answer"):
        await opened(url=f"amqp://guest:guest@127.0.0.1:{port}", open_timeout="300ms")
    silent.close()


async def test_a_key_that_everyone_can_read_is_refused(opened: Opens, tmp_path: Path) -> None:
    pem = tmp_path / "both.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    pem.chmod(0o644)
    with pytest.raises(ConfigError, match=rf"sinks\.cloud\.amqp\.tls: .*chmod 600 {pem}"):
        await opened(url="amqps://h", tls={"certificate": str(pem), "key": str(pem)})


async def test_a_certificate_that_cannot_be_read_is_the_operators_to_solve(opened: Opens) -> None:
    with pytest.raises(ConfigError, match=r"sinks\.cloud\.amqp\.tls"):
        await opened(url="amqps://h", tls={"ca": "/does/not/exist.pem"})


async def test_given_a_blocked_broker_then_the_sink_waits_beyond_its_timeout_and_says_why(
    rabbitmq: RabbitMQ, opened: Opens
) -> None:
    queue = fresh_queue(rabbitmq, "blocked")
    sink = await opened(confirm_timeout="500ms")
    await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_disk_free_limit", "100000GB")
    try:
        async with asyncio.timeout(20):
            sending = [asyncio.ensure_future(sink.send_batch(batch_to(queue, 1)))]
            while not sink.waiting:  # the broker says so after the first publish
                await asyncio.sleep(0.01)
            assert "blocked publishers" in sink.waiting
            sending.append(asyncio.ensure_future(sink.send_batch([outgoing(queue, "blocked", 1)])))
            done, _ = await asyncio.wait(sending, timeout=1.2)
            assert not done
    finally:
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_disk_free_limit", "10MB")
    assert await asyncio.wait_for(asyncio.gather(*sending), 30) == [[], []]
    assert sink.waiting == ""
    assert len(take_all(rabbitmq.url, queue)) == 2


async def test_a_large_body_travels(rabbitmq: RabbitMQ, opened: Opens) -> None:
    queue = fresh_queue(rabbitmq, "large")
    sink = await opened()
    payload = bytes(range(256)) * (1 << 15)
    assert await sink.send_batch([outgoing(queue, "large", 0, payload)]) == []
    [(_, body)] = take_all(rabbitmq.url, queue)
    assert body == payload


async def test_given_ten_cuts_under_way_then_all_arrive_and_little_arrives_twice(rabbitmq: RabbitMQ) -> None:
    queue = fresh_queue(rabbitmq, "cuts")
    proxy = TcpProxy(rabbitmq.port)
    await proxy.start()
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"
    sink = AmqpSink("cloud", AmqpOptions.model_validate({"url": url, "window": 100}), "plant-7")
    sent: list[str] = []
    try:
        async with asyncio.timeout(60):
            await sink.open()
            for turn in range(40):
                batch = [outgoing(queue, f"t{turn}", n) for n in range(50)]
                sent += [message.id for message in batch]
                while True:
                    sending = asyncio.ensure_future(sink.send_batch(batch))
                    if turn % 4 == 0 and proxy.cuts <= turn // 4:
                        await asyncio.sleep(0)
                        await proxy.cut()
                    try:
                        assert await sending == []
                        break
                    except SinkUnavailable:
                        await sink.close()
                        await sink.open()
    finally:
        await sink.close()
        await proxy.stop()
    ids = [properties.message_id for properties, _ in await asyncio.to_thread(take_all, rabbitmq.url, queue)]
    assert list(dict.fromkeys(ids)) == sent
    assert len(ids) - len(sent) <= 10 * 100
