"""What a source is told by the configuration, as its user writes it.

    commands:
      setpoints:
        from: {amqp: {sink: cloud, queue: plant-7.commands}}
      recipes:
        from: {amqp: {url: "${cred:amqp_url}", queue: plant-7.recipes, prefetch: 500}}

      doors:
        from: {zeromq: {bind: "tcp://127.0.0.1:5557"}}
      lamps:
        from: {zeromq: {connect: tcp://10.0.0.5:5558, socket: sub, subscribe: [lamps.], confirm: none}}

With `sink` a source uses what that sink says of its broker, over a connection of its own.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator

from bridge.policy.units import Duration
from bridge.sinks.amqp_options import AmqpOptions, Declaration, Name, Options, Patience, TlsOptions
from bridge.sinks.options import ZeromqOptions, describe

__all__ = [
    "HIGH_WATER_MARK",
    "PREFETCH",
    "SOURCES",
    "AmqpSourceOptions",
    "MemorySourceOptions",
    "SourceOptions",
    "ZeromqSourceOptions",
    "describe_source",
]

# By receipt. With `device` a command stays out until its device has answered, which may sleep: those for
# others have to find room beside it.
PREFETCH: Final = {"stored": 1_000, "device": 10_000}
HIGH_WATER_MARK: Final = 1_000  # ZeroMQ's own
PREFETCH_MAX: Final = 65_535  # a short integer of AMQP

_OF_A_BROKER: Final = frozenset({"url", "urls", "sasl", "tls", "heartbeat", "open_timeout"})

Prefetch = Annotated[
    int | None,
    Field(ge=1, le=PREFETCH_MAX, description="how many may be out and not settled; 1000, for devices 10000"),
]


class AmqpSourceOptions(Options):
    """One queue of a RabbitMQ: that of a sink, or one of its own."""

    queue: Name
    sink: Annotated[str | None, Field(description="the sink whose broker this is")] = None
    prefetch: Prefetch = None
    declare: list[Declaration] = Field(default_factory=list)
    url: SecretStr | None = None
    urls: list[SecretStr] | None = None
    sasl: Literal["plain", "external"] = "plain"
    tls: TlsOptions | None = None
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 10.0
    open_timeout: Patience = 15.0

    @model_validator(mode="after")
    def _one_broker(self) -> AmqpSourceOptions:
        own = self.model_fields_set & _OF_A_BROKER
        if self.sink is not None and own:
            raise ValueError(f"with 'sink' its broker is used as it says there; leave '{min(own)}' out")
        if self.sink is None and self.url is None and self.urls is None:
            raise ValueError("write 'sink: NAME' to use that sink's broker, or 'url: amqp://…' for another")
        if self.sink is None:
            self.broker(None)
        return self

    def broker(self, sink: AmqpOptions | None) -> AmqpOptions:
        """How to reach the broker. Raises ValueError for what is wrong with an address of its own."""
        if sink is not None:
            return sink
        own = {name: getattr(self, name) for name in self.model_fields_set & _OF_A_BROKER}
        try:
            return AmqpOptions(**own)
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["ctx"]["error"])) from None


class ZeromqSourceOptions(ZeromqOptions):
    """The acknowledged ZeroMQ protocol with the roles exchanged: senders call us, or we call one.

    With `confirm: none` it is a plain PULL or SUB instead, which may lose commands.
    """

    prefetch: Prefetch = None
    confirm: Annotated[
        Literal["batch", "none"],
        Field(description="none: a plain socket, which acknowledges nothing and may lose commands"),
    ] = "batch"
    socket: Annotated[Literal["pull", "sub"] | None, Field(description="with confirm: none")] = None
    subscribe: Annotated[
        list[str] | None,
        Field(min_length=1, description="with socket: sub, how addresses begin; all of them without it"),
    ] = None
    high_water_mark: Annotated[
        int | None,
        Field(ge=1, le=1_000_000, description="with confirm: none, messages that may wait here; 1000"),
    ] = None

    @model_validator(mode="after")
    def _no_words_of_a_sink(self) -> ZeromqSourceOptions:
        if words := self.model_fields_set & {"window", "confirm_timeout"}:
            raise ValueError(f"{min(words)!r} is for sinks; how much may be out is 'prefetch' here")
        return self

    @model_validator(mode="after")
    def _lossy_on_purpose(self) -> ZeromqSourceOptions:
        if self.confirm == "none" and self.socket is None:
            raise ValueError(
                "with 'confirm: none' write 'socket: pull' or 'socket: sub'; both may lose commands"
            )
        if self.confirm != "none" and self.socket is not None:
            raise ValueError(
                f"'socket: {self.socket}' acknowledges nothing and may lose commands; "
                "write 'confirm: none' with it if that is all right, or leave it out"
            )
        if self.confirm != "none" and self.high_water_mark is not None:
            raise ValueError(
                "'high_water_mark' is for 'confirm: none'; how much may be out is 'prefetch' here"
            )
        if self.subscribe is not None and self.socket != "sub":
            raise ValueError("'subscribe' is for 'socket: sub'; others get everything")
        return self

    @property
    def waiting_max(self) -> int:
        """The high-water mark of a plain socket, in messages."""
        return self.high_water_mark or HIGH_WATER_MARK


class MemorySourceOptions(Options):
    """A source inside this process: for tests, and to try a configuration out."""

    prefetch: Prefetch = None


SourceOptions = AmqpSourceOptions | ZeromqSourceOptions | MemorySourceOptions

SOURCES: Final[dict[str, type[SourceOptions]]] = {
    "amqp": AmqpSourceOptions,
    "zeromq": ZeromqSourceOptions,
    "memory": MemorySourceOptions,
}
"""The kinds of sources as the configuration names them."""


def describe_source(options: SourceOptions, sink: AmqpOptions | None) -> str:
    """Where commands come from, for a status page or a log line: never with a password."""
    match options:
        case AmqpSourceOptions():
            where = options.broker(sink).describe().partition(" exchange=")[0]
            return f"{where} queue={options.queue}"
        case ZeromqSourceOptions():
            if options.socket is None:
                return describe(options)
            plain = describe(options).replace("zeromq", f"zeromq {options.socket}", 1)
            return f"{plain} (may lose commands; high-water mark {options.waiting_max:,})"
        case MemorySourceOptions():
            return "memory"
