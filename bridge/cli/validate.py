"""`edgespool validate`: every mistake with its place, or what the file amounts to.

Nothing is opened: no port, no spool, no far end. What can be known without them
includes whether the library of each sink is installed, and what the files say that
`access` and `curve` name.
"""

from __future__ import annotations

import sys
from collections.abc import Sized
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bridge.config.commands import broker_of, command_warnings
from bridge.config.doors import check_places
from bridge.config.load import load
from bridge.config.rights import load_access
from bridge.config.routes import warnings
from bridge.config.users import users_warnings
from bridge.errors import ConfigError
from bridge.sinks.options import AmqpOptions, SinkOptions, ZeromqOptions, describe, located
from bridge.sources.options import describe_source

__all__ = ["validate_file"]

# kind → the library it needs and the extra that brings it; the others are always there.
LIBRARIES: Final = {"amqp": ("pika", "amqp")}


def validate_file(path: Path) -> int:
    """Print `ok` and a summary, or the mistakes on stderr; return the exit code."""
    try:
        config = load(path, trials=True)
        users, rules = load_access(config)
        for name, sink in config.sinks.items():
            _check_library(path, f"sinks.{name}", sink.kind)
            _check_files(path, f"sinks.{name}", located(sink.options, config.locate))
        for name, command in config.commands.items():
            _check_library(path, f"commands.{name}", command.from_.kind)
            if (broker := broker_of(config, command)) is not None:
                _check_files(path, f"commands.{name}.from", broker)
            elif command.from_.zeromq is not None:
                _check_files(path, f"commands.{name}.from", command.from_.zeromq)
        check_places(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ConfigError.EXIT_CODE
    print(f"ok: {path}")
    print(f"  gateway   {config.gateway}")
    print(f"  listens   {', '.join(listener.url for listener in config.listeners)}")
    if users is not None or rules is not None:
        print(f"  access    {_counted(users, 'user')}, {_counted(rules, 'rule')}")
    print(f"  spool     {config.store.path}")
    for name, sink in config.sinks.items():
        print(f"  sink      {name}: {describe(sink.options)}")
    for name, route in config.routes.items():
        to = ", ".join(route.to)
        print(f"  route     {name}: {', '.join(route.from_)} -> {to}, address {route.address}")
    for name, command in config.commands.items():
        source = describe_source(command.from_.options, broker_of(config, command))
        print(f"  command   {name}: {source} -> {command.to}, receipt {command.receipt}")
    if config.tests:
        print(f"  tests     {_counted(config.tests, 'message')} tried, all as expected")
    print(f"  status    {config.web.listen if config.web else 'off'}")
    for warning in warnings(config) + command_warnings(config) + users_warnings(users):
        print(f"  warning   {warning}")
    return 0


def _check_library(path: Path, where: str, kind: str) -> None:
    library, extra = LIBRARIES.get(kind, ("", ""))
    if library and find_spec(library) is None:
        raise ConfigError(f"{path} {where}: {library} is missing; pip install 'edgespool[{extra}]'")


def _check_files(path: Path, where: str, options: SinkOptions) -> None:
    """Find what would keep a far end from ever connecting, without connecting."""
    if isinstance(options, ZeromqOptions) and options.curve is not None:
        from bridge.sinks.curve import from_options

        try:
            from_options(options.curve)
        except ConfigError as error:
            raise ConfigError(f"{path} {where}.zeromq.curve.{error}") from None
    if isinstance(options, AmqpOptions) and options.tls is not None:
        from bridge.sinks.amqp_tls import client_context

        try:
            client_context(options.tls)
        except ConfigError as error:
            raise ConfigError(f"{path} {where}.amqp.tls: {error}") from None


def _counted(things: Sized | None, what: str) -> str:
    if things is None:
        return f"no {what}s, so everyone who is let in may do everything" if what == "rule" else f"no {what}s"
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
