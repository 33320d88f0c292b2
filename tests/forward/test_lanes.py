"""One route to several sinks, in a whole gateway: each sink gets everything once, whatever the list was."""

import asyncio
import contextlib

from tests.gateway import port_of, running, sink_of, until
from tests.house.device import Device

SINKS = {"a": {"memory": {}}, "b": {"memory": {}}}


class Life:
    """The gateway between two starts, with a route to `to`."""

    def __init__(self, folder, to):
        self.parts = {"sinks": SINKS, "routes": {"all": {"from": "#", "to": to}}}
        self.folder = folder

    @contextlib.asynccontextmanager
    async def __call__(self, *away):
        async with running(self.folder, **self.parts) as self.gateway:
            for name in away:
                sink_of(self.gateway, name).go_away()
                await until(lambda name=name: not self.gateway.keepers[name].up)
            yield self

    async def publish(self, name, count):
        await asyncio.wait_for(Device(name, port_of(self.gateway), count, 20_000).run(), 20)

    async def settle(self, *lanes):
        """Wait until these have nothing left to deliver; return what every sink has got."""
        for lane in lanes:
            await until(lambda lane=lane: self.routes()[lane].backlog_messages == 0)
        return [self.received("a"), self.received("b")]

    def received(self, name):
        return [each.message.payload.decode() for each in sink_of(self.gateway, name).received]

    def routes(self):
        return self.gateway.status().routes


def numbered(name, count):
    return [f"{name}:{number}" for number in range(count)]


async def test_a_second_sink_neither_loses_nor_repeats_the_backlog_of_the_first(tmp_path):
    async with Life(tmp_path, "a")("a") as life:
        await life.publish("x", 100)
    async with Life(tmp_path, ["a", "b"])() as life:
        assert await life.settle("all", "all.b") == [numbered("x", 100), []]
        await life.publish("y", 50)
        assert await life.settle("all", "all.b") == [
            numbered("x", 100) + numbered("y", 50),
            numbered("y", 50),
        ]
        routes = life.routes()
        assert (routes["all"].sink, routes["all"].delivered) == ("a", 150)
        assert (routes["all.b"].sink, routes["all.b"].delivered) == ("b", 50)


async def test_each_sink_has_its_own_backlog_whatever_order_they_stand_in(tmp_path):
    async with Life(tmp_path, ["a", "b"])("b") as life:
        await life.publish("x", 30)
        await life.settle("all")
        assert life.received("a") == numbered("x", 30)
        assert life.routes()["all.b"].backlog_messages == 30
    async with Life(tmp_path, ["b", "a"])() as life:
        assert await life.settle("all", "all.b") == [[], numbered("x", 30)]
        await life.publish("y", 20)
        assert await life.settle("all", "all.b") == [numbered("y", 20), numbered("x", 30) + numbered("y", 20)]
        assert (life.routes()["all"].sink, life.routes()["all.b"].sink) == ("a", "b")


async def test_a_sink_that_is_away_does_not_hold_up_the_other(tmp_path):
    async with Life(tmp_path, ["a", "b"])("a") as life:
        await life.publish("x", 200)
        await life.settle("all.b")
        assert (life.received("a"), life.received("b")) == ([], numbered("x", 200))


async def test_a_fallback_shows_which_sink_has_its_turn(tmp_path):
    life = Life(tmp_path, "a")
    life.parts["routes"]["all"]["fallback"] = {"to": "b", "after": "1s"}
    async with life("a"):
        await life.publish("x", 20)
        assert await life.settle("all") == [[], numbered("x", 20)]
        assert life.routes()["all"].sink == "b"
