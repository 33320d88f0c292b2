"""What a sink is told by the configuration, as its user writes it.

    sinks:
      cloud: {amqp: {url: "${cred:amqp_url}", exchange: plant}}
      lab:   {zeromq: {connect: tcp://10.0.0.5:5556}}

Nothing here imports the library of a sink: a configuration is checked, and its
schema printed, on a machine that has none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from bridge.policy.units import Duration

__all__ = [
    "OPTIONS",
    "AmqpOptions",
    "Binding",
    "Declaration",
    "Exchange",
    "MemoryOptions",
    "Queue",
    "SinkOptions",
    "TlsOptions",
    "ZeromqOptions",
    "describe",
]

# Confirmations come in groups as large as what lies unconfirmed, so a wider window costs a broker
# less per message; past two thousand RabbitMQ gains nothing more and a cut repeats more.
AMQP_WINDOW: Final = 2_000
# Enough for one batch on the wire, one in the receiver's hands and some more in the pipe.
ZEROMQ_WINDOW: Final = 10_000

Name = Annotated[str, Field(min_length=1, max_length=255)]
# The longest wait is one that whoever watches the status would still call a wait.
Patience = Annotated[Duration, Field(ge=0.1, le=3600)]


class _Options(BaseModel):
    # An error repeats its input unless told not to, and an input may hold a password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Queue(_Options):
    """One queue to be there before the first message."""

    name: Name
    type: Literal["classic", "quorum", "stream"] = "classic"
    durable: bool = True
    arguments: dict[str, bool | int | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _durable_where_it_must_be(self) -> Queue:
        if self.type != "classic" and not self.durable:
            raise ValueError(f"a {self.type} queue is always durable; leave 'durable' out")
        if "x-queue-type" in self.arguments:
            raise ValueError(f"write 'type: {self.arguments['x-queue-type']}' instead of x-queue-type")
        return self


class Exchange(_Options):
    """One durable exchange to be there before the first message."""

    name: Name
    type: Name = "topic"
    arguments: dict[str, bool | int | str] = Field(default_factory=dict)


class Binding(_Options):
    """What an exchange hands to a queue."""

    exchange: Name
    queue: Name
    key: Annotated[str, Field(max_length=255)] = "#"


class Declaration(_Options):
    """Exactly one of the three; a list of them is carried out in its order."""

    queue: Queue | None = None
    exchange: Exchange | None = None
    binding: Binding | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Declaration:
        if len(self.model_fields_set) != 1:
            raise ValueError("a declaration is one of: queue, exchange, binding")
        return self


class TlsOptions(_Options):
    """For amqps with an authority of one's own, or with a certificate instead of a password."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsOptions:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("'certificate' and 'key' come together")
        return self


class AmqpOptions(_Options):
    """AMQP 0-9-1, as RabbitMQ speaks it.

    With no `exchange` the default one takes the messages, and the address of a
    route is then the name of a queue; otherwise it is the routing key.
    """

    url: SecretStr
    exchange: Annotated[str, Field(max_length=255)] = ""
    declare: list[Declaration] = Field(default_factory=list)
    tls: TlsOptions | None = None
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 10.0
    open_timeout: Patience = 15.0
    confirm_timeout: Patience = 30.0
    window: Annotated[int, Field(ge=1, le=60_000)] = AMQP_WINDOW

    @field_validator("url")
    @classmethod
    def _amqp(cls, url: SecretStr) -> SecretStr:
        parts = _split(url.get_secret_value())
        if parts is None or parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("must be amqp://user:password@host:5672/vhost, or amqps://…:5671/…")
        return url

    @model_validator(mode="after")
    def _tls_needs_amqps(self) -> AmqpOptions:
        if self.tls is not None and not self.url.get_secret_value().startswith("amqps:"):
            raise ValueError("'tls' is for a url that begins with amqps://")
        return self


class ZeromqOptions(_Options):
    """The acknowledged ZeroMQ protocol: receivers call us (`bind`), or we call one (`connect`)."""

    bind: str | None = None
    connect: str | None = None
    window: Annotated[int, Field(ge=1, le=1_000_000)] = ZEROMQ_WINDOW
    open_timeout: Patience = 15.0
    confirm_timeout: Patience = 30.0

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

    @property
    def endpoint(self) -> str:
        """Whichever of the two was written."""
        return self.bind or self.connect or ""


class MemoryOptions(_Options):
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
            return _describe_amqp(options)
        case ZeromqOptions():
            return f"zeromq {'bind' if options.bind else 'connect'} {options.endpoint}"
        case MemoryOptions():
            return "memory"


def _describe_amqp(options: AmqpOptions) -> str:
    parts = _split(options.url.get_secret_value())
    assert parts is not None  # the model has checked it
    user = f"{parts.username}:***@" if parts.username else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    # The query is left out as a whole: pika takes options there, and they may name keys.
    exchange = f" exchange={options.exchange}" if options.exchange else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}{exchange}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    return parts
