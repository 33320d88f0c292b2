"""Cloud queues we take from. `base` is the contract, `kit` is what every source must pass.

They stand on the sinks: a queue is reached the same way whether messages go there or
come from there. The library behind a source is imported when the first one is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from bridge.errors import ConfigError
from bridge.sinks.amqp_options import AmqpOptions
from bridge.sources.base import Incoming, Reply, Settlement, Source
from bridge.sources.options import PREFETCH, SOURCES, SourceOptions, ZeromqSourceOptions, describe_source

__all__ = [
    "PREFETCH",
    "SOURCES",
    "Incoming",
    "Reply",
    "Settlement",
    "Source",
    "SourceOptions",
    "create",
    "describe_source",
]

# kind -> (module, class, what to install when its library is absent)
_SOURCES: Final = {
    "amqp": ("bridge.sources.amqp", "AmqpSource", "pip install 'edgespool[amqp]'"),
    "zeromq": ("bridge.sources.zeromq", "ZeromqSource", "pip install edgespool"),
    "zeromq plain": ("bridge.sources.zeromq_plain", "PlainZeromqSource", "pip install edgespool"),
    "memory": ("bridge.sources.memory", "MemorySource", "pip install edgespool"),
}


def create(
    kind: str, name: str, options: SourceOptions, broker: AmqpOptions | None, prefetch: int, gateway: str
) -> Source:
    """Make a source, closed; the world is not touched.

    `broker` says how to reach it, where there is one to be reached. Raises ConfigError with the
    line to type when the library of that kind is not installed.
    """
    plain = isinstance(options, ZeromqSourceOptions) and options.confirm == "none"
    module_name, class_name, install = _SOURCES["zeromq plain" if plain else kind]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        # A module of our own that is missing is a broken installation, not a missing extra.
        if error.name is None or error.name.partition(".")[0] == "bridge":
            raise
        raise ConfigError(f"commands.{name}: {kind} needs {error.name}, install it: {install}") from error
    about = (options,) if broker is None else (options, broker)
    return cast(Source, getattr(module, class_name)(name, *about, prefetch, gateway))
