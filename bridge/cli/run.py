"""`edgespool run`: flags over a file over defaults, then the gateway until a signal.

A wrong configuration leaves with 78, and a service manager should not try again:
it stays wrong. A port in use, a disk that cannot be written or a library that is
missing leaves with 1, and trying again is right: the port may be free in a moment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.config.commands import broker_of, command_warnings
from bridge.config.load import load
from bridge.config.problem import ConfigProblems
from bridge.config.routes import warnings
from bridge.config.users import users_warnings
from bridge.errors import BridgeError, ConfigError
from bridge.observe import logs

if TYPE_CHECKING:
    from bridge.app import Gateway
    from bridge.config.model import Config

__all__ = ["run_gateway"]


def run_gateway(
    path: Path | None, *, mqtt: str | None, zeromq: str | None, web: str | None, state: Path | None
) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""

    def read() -> Config:
        return load(path, _overrides(path, mqtt=mqtt, zeromq=zeromq, web=web, state=state))

    try:
        config = read()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ConfigError.EXIT_CODE

    logs.setup()
    from bridge import app  # brings the store, the broker and every sink

    def started(gateway: Gateway) -> None:
        notes = warnings(config) + command_warnings(config) + users_warnings(gateway.broker.logins.users)
        banner = _banner(config, [listener.url for listener in gateway.listeners], notes)
        print(banner, file=sys.stderr, flush=True)

    try:
        return app.run(config, started, read)
    except ConfigProblems as error:  # in a file that the configuration names
        print(error, file=sys.stderr)
        return ConfigError.EXIT_CODE
    except (BridgeError, OSError) as error:
        print(f"edgespool: {error}", file=sys.stderr)
        return 1


def _overrides(
    path: Path | None, *, mqtt: str | None, zeromq: str | None, web: str | None, state: Path | None
) -> dict[str, Any]:
    """The flags as values by their path. Raises ConfigError for one that has nothing to override."""
    values: dict[str, Any] = {}
    if web is not None:
        values["web" if web == "off" else "web.listen"] = web
    if state is not None:
        values["store.path"] = str(state.absolute())
    if mqtt is None and zeromq is None:
        return values
    # What these two change depends on what is there: the flag moves a listener
    # and a sink to another address, and leaves everything else they say alone.
    there = load(path, values)
    if mqtt is not None:
        first, *others = (one.model_dump(mode="json", exclude_unset=True) for one in there.listeners)
        if there.listeners[0].kind != "mqtt":
            raise ConfigError("--mqtt moves a plain MQTT listener; the first one of the file is none")
        values["listeners"] = [first | {"mqtt": mqtt}, *others]
    if zeromq is not None:
        name, way = _zeromq_sink(there)
        values[f"sinks.{name}.zeromq.{way}"] = zeromq
    return values


def _zeromq_sink(config: Config) -> tuple[str, str]:
    """The only ZeroMQ sink, and whether it binds or connects."""
    found = [(name, sink.zeromq) for name, sink in config.sinks.items() if sink.zeromq is not None]
    if len(found) != 1:
        names = ", ".join(name for name, _ in found)
        raise ConfigError(
            f"--zeromq cannot tell which sink is meant: there are {names}; write it in the file"
            if found
            else "--zeromq has nothing to change: the configuration has no ZeroMQ sink"
        )
    name, options = found[0]
    return name, "bind" if options.bind is not None else "connect"


def _banner(config: Config, listeners: list[str], notes: list[str]) -> str:
    """What a person wants to know once it runs: where it listens, where it keeps, where it sends."""
    from bridge.sinks.options import describe
    from bridge.sources.options import describe_source

    lines = [f"edgespool is ready: gateway {config.gateway}"]
    lines += [f"  devices  {url}" for url in listeners]
    lines.append(f"  spool    {config.store.path}")
    for name, route in config.routes.items():
        to = ", ".join(f"{sink} ({describe(config.sinks[sink].options)})" for sink in route.to)
        doubt = " (in memory: may lose messages)" if route.durability == "memory" else ""
        lines.append(f"  route    {name}: {', '.join(route.from_)} -> {to}{doubt}")
    for name, command in config.commands.items():
        source = describe_source(command.from_.options, broker_of(config, command))
        lines.append(f"  command  {name}: {source} -> {command.to}")
    lines.append(f"  status   {f'http://{config.web.listen}' if config.web else 'off'}")
    lines += [f"  note     {note}" for note in notes]
    return "\n".join(lines)
