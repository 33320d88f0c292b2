"""The house as a whole: started from the ground up, stopped from the roof down.

    store → sinks and their keepers → forwarders → broker → listeners → web → commands

A stop goes the other way and keeps the promise to the end: nobody new is taken
in, the last commit is made and its PUBACKs are sent, batches under way get a
moment to be confirmed, the cursors are saved and synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, cast

from bridge import __version__
from bridge.broker.broker import Broker
from bridge.broker.crowd import allow_descriptors
from bridge.broker.listener import Listener
from bridge.broker.sys_topics import SysTopics
from bridge.broker.tls import build_context
from bridge.clock import Clock
from bridge.config.commands import broker_of, build_command, prefetch_of
from bridge.config.doors import build_door, build_place
from bridge.config.model import Config
from bridge.config.rights import load_access
from bridge.config.routes import build_routes
from bridge.errors import BridgeError, ConfigError
from bridge.forward.fallback import Fallback
from bridge.forward.forwarder import Forwarder
from bridge.forward.intake import Intake
from bridge.forward.keeper import Keeper
from bridge.forward.letters import Letters
from bridge.forward.losses import Losses
from bridge.forward.mover import Mover
from bridge.forward.orders import letter_desk, replay_desk
from bridge.forward.redelivery import Redelivery
from bridge.forward.replay import Replays
from bridge.forward.room import Room
from bridge.observe import notify
from bridge.observe.status import Status
from bridge.observe.view import View
from bridge.policy.access import Access, fill
from bridge.policy.route import Route
from bridge.sinks import Sink, create, describe, located
from bridge.sources import create as create_source
from bridge.sources import describe_source
from bridge.store import Spool, cursor_names
from bridge.store.files import OS_FILES, Files, Unsynced
from bridge.store.passing import Passing

__all__ = ["Gateway", "run"]

log = logging.getLogger(__name__)

DRAIN_WAIT_S: Final = 2.0  # what batches under way get at a stop; the whole stop stays under 5 s
RESTART_WAIT_S: Final = 5.0
HISTORY_EVERY_S: Final = 60.0
_STANDING: Final = (
    "gateway",
    "store",
    "sinks",
    "routes",
    "commands",
    "web",
    "sys",
)  # what a reload does not change


class Gateway:
    """One running gateway. `start` and `stop` belong to one event loop.

    `files` is the disk under the store; a test may hand in one that fails.
    """

    def __init__(self, config: Config, files: Files = OS_FILES) -> None:
        self.config = config
        self._files = files
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.listeners: list[Listener] = []
        self.keepers: dict[str, Keeper] = {}
        self.forwarders: list[Forwarder] = []
        self.intakes: list[Intake] = []
        self.clock = Clock()

    async def start(self) -> None:
        """Afterwards devices can connect. Raises ConfigError or StoreError, with everything undone."""
        config = self.config
        async with AsyncExitStack() as stack:
            store = config.store
            files = Unsynced() if store.durability == "write" else self._files
            self.spool = Spool.open(str(store.path), store.max_bytes, files, store.keep or 0.0)
            self.spool.uplink.history.age_s = self.clock.age_s
            stack.push_async_callback(self.spool.close)
            stack.push_async_callback(self._stop_tasks)
            for name, sink in config.sinks.items():
                options = located(sink.options, config.locate)
                self.keepers[name] = Keeper(create(sink.kind, name, options, config.gateway))
            ends = {name: (sink.kind, describe(sink.options)) for name, sink in config.sinks.items()}
            routes = build_routes(config, cursor_names(self.spool.uplink))
            self.letters = Letters(self.spool)
            self.forwarders = [
                Forwarder(
                    route,
                    self._keeper_of(route),
                    Passing() if route.durability == "memory" else self.spool.uplink,
                    self.letters,
                    self.spool.committer,
                    config.gateway,
                    self.clock,
                )
                for route in routes
            ]
            on_disk = [one for one in self.forwarders if one.route.durability == "disk"]
            for name in cursor_names(self.spool.uplink) & {one.route.name for one in self.forwarders}:
                if name not in self.spool.uplink.cursors:
                    log.warning("route in memory now route=%s; what the disk has for it stays there", name)
            for name, keeper in self.keepers.items():
                self._last(f"sink {name}", keeper.run)
            for forwarder in self.forwarders:
                # The count first: it has to stay ahead of what is sent and let go.
                self._last(f"count {forwarder.route.name}", forwarder.count_backlog)
                self._last(f"route {forwarder.route.name}", forwarder.run)
            self._last("mover", Mover(self.spool.uplink, on_disk, self.spool.committer).run)
            await asyncio.sleep(0)  # one turn, in which a sink finds out that its port is taken
            if self.failed.done():
                self.failed.result()
            room = Room(self.spool.uplink, on_disk)
            users, rules = load_access(config)
            self.broker = Broker(
                self.spool,
                routes,
                {forwarder.route.name: forwarder.account for forwarder in self.forwarders},
                room.make,
                config.broker_limits,
                users=users,
                access=Access(rules),
                response_topic=_response_topic(config),
                clock=self.clock,
            )
            self.view = View(
                config.gateway,
                store.durability,
                self.spool,
                self.broker,
                self.keepers,
                ends,
                self.forwarders,
                self.letters,
            )
            stack.push_async_callback(self.broker.stop)
            self._last("history", self._let_history_go)
            desk = replay_desk(self.spool.path, self._files)
            replays = Replays(desk, on_disk, self.keepers, self.spool.uplink, config.gateway)
            self._last("replays", replays.run)
            self._last("letters", self.letters.run)
            deliveries = Redelivery(
                letter_desk(self.spool.path, self._files), self.letters, self.forwarders, self.keepers
            )
            self._last("letter orders", deliveries.run)
            self._last("letters lost", Losses(self.letters.dropped, "dead letters dropped").run)
            allow_descriptors(config.broker_limits.connections_max)
            for model in config.listeners:
                door, place = build_door(config, model), build_place(config, model)
                listener = Listener(self.broker, door, place)
                await listener.start()
                stack.push_async_callback(listener.stop)
                self.listeners.append(listener)
                self.view.listeners.append(listener.url)
            if config.web is not None:
                await self._start_web(stack, config.web.host, config.web.port)
            self._last("broker", self.broker.run)
            self._last("losses", Losses(self.view.dropped).run)
            if config.sys is not None:
                topics = SysTopics(self.broker, __version__, self.view.facts)
                self._last("sys", partial(topics.run, config.sys.interval))
            self._open_commands()
            if interval_s := notify.watchdog_interval_s():
                self._last("watchdog", lambda: _beat(interval_s))
            self._stack = stack.pop_all()
        notify.ready()

    def reload(self, config: Config) -> None:
        """Users, rules, certificates and limits are from now on those of `config`.

        Raises ConfigError with everything as it was. What else has changed needs a
        restart; the log says so.
        """
        users, rules = load_access(config)
        there = {model.url: model for model in config.listeners}
        doors = []
        for listener in self.listeners:
            if (model := there.pop(listener.door.url, None)) is not None:
                place = build_place(config, model)
                if place.tls is not None:
                    build_context(place.tls)  # all of them, before the first is changed
                doors.append((listener, build_door(config, model), place))
        for listener, door, place in doors:
            listener.reload(place)
            listener.door.become(door)
        later = [name for name in _STANDING if getattr(config, name) != getattr(self.config, name)]
        if there or len(doors) < len(self.listeners):
            later.append("listeners")
        self.broker.limits = self.broker.retained.limits = config.broker_limits
        self.broker.response_topic = _response_topic(config)
        self.broker.reload(users, Access(rules))
        if later:
            log.warning("changed and needs a restart parts=%s", ",".join(later))
        log.info("reloaded users=%d rules=%d", len(users or ()), len(rules or ()))

    async def stop(self) -> None:
        """Afterwards all is saved and closed. Takes less than 5 s."""
        notify.stopping()
        await self._stack.aclose()

    def _open_commands(self) -> None:
        """Last of all, when the devices can be there that the commands are for."""
        config = self.config
        for name, model in config.commands.items():
            kind, options, broker = model.from_.kind, model.from_.options, broker_of(config, model)
            prefetch = prefetch_of(model)
            source = create_source(kind, name, options, broker, prefetch, config.gateway)
            keeper = Keeper(cast(Sink, source), "source")  # of which it asks only what both have
            route = build_command(config, name)
            intake = Intake(route, keeper, source, self.broker.commands, self.clock, prefetch)
            self.intakes.append(intake)
            self.view.intakes.append((intake, kind, describe_source(options, broker)))
            self._last(f"source {name}", keeper.run)
            self._last(f"commands {name}", intake.run)

    def _keeper_of(self, route: Route) -> Keeper | Fallback:
        keeper = self.keepers[route.sink]
        if route.fallback is None:
            return keeper
        to, after_s = route.fallback
        return Fallback(route.name, keeper, self.keepers[to], after_s)

    async def _start_web(self, stack: AsyncExitStack, host: str, port: int) -> None:
        from bridge.web.app import create_app
        from bridge.web.server import WebServer

        server = WebServer(create_app(self.status))
        try:
            await server.start(host, port)
        except OSError as error:
            raise ConfigError(
                f"web port {port} on {host} cannot be used: {error.strerror or error}; "
                "choose another with --web HOST:PORT, or --web off"
            ) from None
        stack.push_async_callback(server.stop)

    # ---- tasks ---------------------------------------------------------------------

    def _last(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._keep_going(what, work), name=what))

    async def _keep_going(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` for as long as the house stands. A mistake of ours in one room closes no other."""
        while True:
            try:
                await work()
                return
            except ConfigError as error:
                if not self.failed.done():
                    self.failed.set_exception(error)
                return
            except Exception:
                log.exception("task failed task=%s; it starts again in %d s", what, RESTART_WAIT_S)
                await asyncio.sleep(RESTART_WAIT_S)

    async def _let_history_go(self) -> None:
        """What is older than `store.keep` goes also while nothing is delivered."""
        while True:
            self.spool.uplink.trim()
            await asyncio.sleep(HISTORY_EVERY_S)

    async def _stop_tasks(self) -> None:
        for forwarder in self.forwarders:
            forwarder.stop()
        for intake in self.intakes:
            intake.settle_now()
        # Only routes whose far end is there can still hear from it.
        sending = {f"route {each.route.name}" for each in self.forwarders if each.keeper.up}
        if routes := [task for task in self._tasks if task.get_name() in sending]:
            await asyncio.wait(routes, timeout=DRAIN_WAIT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def status(self) -> Status:
        """One snapshot of everything; waits for nothing."""
        return self.view.status()


def run(
    config: Config,
    started: Callable[[Gateway], None] = lambda gateway: None,
    read_again: Callable[[], Config] | None = None,
) -> int:
    """Run a gateway until SIGTERM or SIGINT; return the exit code.

    `started` is called once devices can connect; `read_again` gives the configuration
    anew, for SIGHUP. Raises ConfigError and StoreError when it cannot start, and
    ConfigError when a sink finds out later.
    """
    with contextlib.suppress(ImportError):
        import uvloop

        code: int = uvloop.run(_run(config, started, read_again))
        return code
    return asyncio.run(_run(config, started, read_again))


def _reload(gateway: Gateway, read_again: Callable[[], Config]) -> None:
    """SIGHUP: a mistake in the files leaves everything as it is, and says so."""
    try:
        gateway.reload(read_again())
    except (BridgeError, OSError) as error:
        for line in str(error).splitlines():
            log.error("not reloaded reason=%s", line)


async def _run(
    config: Config, started: Callable[[Gateway], None], read_again: Callable[[], Config] | None
) -> int:
    gateway = Gateway(config)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Before the start is over a SIGHUP asks for nothing that is not being done anyway.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await gateway.start()
    if read_again is not None:
        loop.add_signal_handler(signal.SIGHUP, _reload, gateway, read_again)
    try:
        started(gateway)
        waiting = asyncio.ensure_future(stop.wait())
        await asyncio.wait((waiting, gateway.failed), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        log.info("stopping")
    finally:
        await gateway.stop()
    if gateway.failed.done():
        gateway.failed.result()
    return 0


def _response_topic(config: Config) -> Callable[[str, str], str] | None:
    text = config.access.response_topic
    return None if text is None else partial(fill, text)


async def _beat(interval_s: float) -> None:
    while True:
        notify.watchdog()
        await asyncio.sleep(interval_s)
