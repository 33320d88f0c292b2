"""What a sink is told by the configuration, as its user writes it.

    sinks:
      cloud: {amqp: {url: "${cred:amqp_url}", exchange: plant}}
      lab:   {zeromq: {connect: tcp://10.0.0.5:5556}}
      hall:  {zeromq: {bind: "tcp://*:5556", curve: {secret_key: /etc/edgespool/hall.key, clients: …}}}

Nothing here imports the library of a sink: a configuration is checked, and its
schema printed, on a machine that has none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from bridge.policy.loopback import is_loopback
from bridge.sinks.amqp_options import (
    AmqpOptions,
    Binding,
    Declaration,
    Exchange,
    Options,
    Patience,
    Queue,
    TlsOptions,
)
from bridge.sinks.base import CONFIRM_TIMEOUT_S

__all__ = [
    "OPTIONS",
    "AmqpOptions",
    "Binding",
    "CurveOptions",
    "Declaration",
    "Exchange",
    "MemoryOptions",
    "Queue",
    "SinkOptions",
    "TlsOptions",
    "ZeromqOptions",
    "describe",
    "located",
]

# Enough for one batch on the wire, one in the receiver's hands and some more in the pipe.
ZEROMQ_WINDOW: Final = 10_000


def _absolute(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if not path.is_absolute():
        raise ValueError(
            f"'{path}' is relative; a service starts in another folder than you do, so begin it with /"
        )
    return path


# Always files: a key as text may begin with # or hold ${, which YAML and shells read in ways of their own.
KeyFile = Annotated[Path, AfterValidator(_absolute)]


class CurveOptions(Options):
    """Encryption, and keys for both ends; `edgespool keygen FILE` makes them."""

    secret_key: Annotated[KeyFile, Field(description="the file with our own secret key")]
    server_key: Annotated[
        KeyFile | None, Field(description="for connect: the file with the receiver's public key")
    ] = None
    clients: Annotated[
        KeyFile | None,
        Field(description="for bind: whose public keys are let in; a file, one a line, or a folder of *.pub"),
    ] = None


class ZeromqOptions(Options):
    """The acknowledged ZeroMQ protocol: receivers call us (`bind`), or we call one (`connect`)."""

    bind: str | None = None
    connect: str | None = None
    curve: CurveOptions | None = None
    anonymous: Annotated[bool, Field(description="let every receiver in that can reach `bind`")] = False
    window: Annotated[int, Field(ge=1, le=1_000_000)] = ZEROMQ_WINDOW
    open_timeout: Patience = 15.0
    confirm_timeout: Annotated[
        Patience, Field(description="a link that confirms nothing for so long is opened anew")
    ] = CONFIRM_TIMEOUT_S

    @field_validator("bind", "connect")
    @classmethod
    def _endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        transport, _, place = endpoint.partition("://")
        if transport == "ipc" and place:
            return endpoint
        host, _, port = place.rpartition(":")
        # No `*` for the port: a receiver must know where to call.
        if transport == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
            return endpoint
        raise ValueError("must be tcp://host:port or ipc:///path/of/a/socket")

    @model_validator(mode="after")
    def _exactly_one(self) -> ZeromqOptions:
        if (self.bind is None) == (self.connect is None):
            raise ValueError("write exactly one of 'bind' (receivers call us) and 'connect' (we call one)")
        return self

    @model_validator(mode="after")
    def _keys_of_this_end(self) -> ZeromqOptions:
        if self.curve is None:
            return self
        if self.bind is not None and (self.curve.clients is None or self.curve.server_key is not None):
            raise ValueError(
                "with 'bind', curve is {secret_key: FILE, clients: FILE}: the keys of those let in"
            )
        if self.connect is not None and (self.curve.server_key is None or self.curve.clients is not None):
            raise ValueError(
                "with 'connect', curve is {secret_key: FILE, server_key: FILE}: the key of that end"
            )
        if self.anonymous:
            raise ValueError("'anonymous' lets everyone in and 'curve' does not; write one of them")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> ZeromqOptions:
        if self.anonymous and self.connect is not None:
            raise ValueError("'anonymous' is for 'bind'; whom we call, we know")
        if self.bind is not None and not (self.curve or self.anonymous or _is_local(self.bind)):
            raise ValueError(
                f"{self.bind} can be reached from outside; write curve: {{secret_key: FILE, clients: FILE}} "
                "('edgespool keygen FILE' makes a key), or anonymous: true if all who can may take messages"
            )
        return self

    @property
    def endpoint(self) -> str:
        """Whichever of the two was written."""
        return self.bind or self.connect or ""


class MemoryOptions(Options):
    """A sink that keeps everything in this process: for trying out routes, and for tests."""

    messages_max: Annotated[int, Field(ge=1)] = 1_000_000


SinkOptions = AmqpOptions | ZeromqOptions | MemoryOptions

OPTIONS: Final[dict[str, type[SinkOptions]]] = {
    "amqp": AmqpOptions,
    "zeromq": ZeromqOptions,
    "memory": MemoryOptions,
}
"""The kinds of sinks as the configuration names them."""


def describe(options: SinkOptions) -> str:
    """Where the sink leads, for a status page or a log line: never with a password."""
    match options:
        case AmqpOptions():
            return options.describe()
        case ZeromqOptions():
            keys = " with curve" if options.curve else ""
            return f"zeromq {'bind' if options.bind else 'connect'} {options.endpoint}{keys}"
        case MemoryOptions():
            return "memory"


def located(options: SinkOptions, locate: Callable[[Path], Path]) -> SinkOptions:
    """The same with the whole path of every file; `locate` knows the folder that a relative one starts in."""
    return options.located(locate) if isinstance(options, AmqpOptions) else options


def _is_local(endpoint: str) -> bool:
    transport, _, place = endpoint.partition("://")
    return transport == "ipc" or is_loopback(place.rpartition(":")[0].strip("[]"))
