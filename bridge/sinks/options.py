"""What a sink is told by the configuration, as its user writes it.

    sinks:
      cloud: {amqp: {url: "${cred:amqp_url}", exchange: plant}}
      lab:   {zeromq: {connect: tcp://10.0.0.5:5556}}
      hall:  {zeromq: {bind: "tcp://*:5556", curve: {secret_key: /etc/edgespool/hall.key, clients: …}}}

Nothing here imports the library of a sink: a configuration is checked, and its
schema printed, on a machine that has none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from bridge.policy.loopback import is_loopback
from bridge.policy.units import Duration
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
    confirm_timeout: Annotated[
        Patience, Field(description="a link that confirms nothing for so long is opened anew")
    ] = CONFIRM_TIMEOUT_S
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


class CurveOptions(_Options):
    """Encryption, and keys for both ends; `edgespool keygen FILE` makes them."""

    secret_key: Annotated[KeyFile, Field(description="the file with our own secret key")]
    server_key: Annotated[
        KeyFile | None, Field(description="for connect: the file with the receiver's public key")
    ] = None
    clients: Annotated[
        KeyFile | None,
        Field(description="for bind: whose public keys are let in; a file, one a line, or a folder of *.pub"),
    ] = None


class ZeromqOptions(_Options):
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
            keys = " with curve" if options.curve else ""
            return f"zeromq {'bind' if options.bind else 'connect'} {options.endpoint}{keys}"
        case MemoryOptions():
            return "memory"


def _is_local(endpoint: str) -> bool:
    transport, _, place = endpoint.partition("://")
    return transport == "ipc" or is_loopback(place.rpartition(":")[0].strip("[]"))


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
