"""Cloud queues we give to. `base` is the contract, `kit` is what every sink must pass.

The library behind a sink is imported when the first sink of its kind is made,
so a gateway that speaks only ZeroMQ does not carry an AMQP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from bridge.errors import ConfigError
from bridge.sinks.base import Outgoing, Refusal, Sink
from bridge.sinks.options import OPTIONS, SinkOptions, describe, located

__all__ = ["OPTIONS", "Outgoing", "Refusal", "Sink", "SinkOptions", "create", "describe", "located"]

# kind -> (module, class, what to install when its library is absent)
_SINKS: Final = {
    "amqp": ("bridge.sinks.amqp", "AmqpSink", "pip install 'edgespool[amqp]'"),
    "zeromq": ("bridge.sinks.zeromq", "ZeromqSink", "pip install edgespool"),
    "memory": ("bridge.sinks.memory", "MemorySink", "pip install edgespool"),
}


def create(kind: str, name: str, options: SinkOptions, gateway: str) -> Sink:
    """Make a sink, closed; the world is not touched.

    Raises ConfigError for a kind that does not exist, and with the line to type
    when the library of that kind is not installed.
    """
    if kind not in _SINKS:
        raise ConfigError(f"sinks.{name}: there is no kind of sink '{kind}'; there are {', '.join(_SINKS)}")
    module_name, class_name, install = _SINKS[kind]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        # A module of our own that is missing is a broken installation, not a missing extra.
        if error.name is None or error.name.partition(".")[0] == "bridge":
            raise
        raise ConfigError(f"sinks.{name}: {kind} needs {error.name}, install it: {install}") from error
    return cast(Sink, getattr(module, class_name)(name, options, gateway))
