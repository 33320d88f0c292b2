"""What a route of commands may say, key by key: a part of `bridge.config.model`.

A value is judged here by itself; what it says about its sink, and which fields its topic
may use, is judged in `commands`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from bridge.config.words import Section
from bridge.policy.command_route import Receipt
from bridge.policy.units import Duration
from bridge.sources.options import (
    SOURCES,
    AmqpSourceOptions,
    MemorySourceOptions,
    SourceOptions,
    ZeromqSourceOptions,
)

__all__ = ["Command", "CommandSource"]


class CommandSource(Section):
    """Where commands come from: exactly one kind, with its options."""

    amqp: AmqpSourceOptions | None = None
    zeromq: ZeromqSourceOptions | None = None
    memory: MemorySourceOptions | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> CommandSource:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"needs exactly one of {', '.join(SOURCES)}")
        return self

    @property
    def kind(self) -> str:
        """A key of `bridge.sources.options.SOURCES`."""
        return next(iter(self.model_fields_set))

    @property
    def options(self) -> SourceOptions:
        """The options of that kind."""
        options = self.amqp or self.zeromq or self.memory
        assert options is not None
        return options


class Command(Section):
    """Which messages of a cloud queue go to which devices, and what the queue is told."""

    from_: Annotated[CommandSource, Field(alias="from", description="the queue that commands come from")]
    to: Annotated[
        str,
        Field(description="topic, as a template of {routing_key[N]}, {header.NAME}, {payload.NAME}"),
    ]
    qos: Annotated[int, Field(ge=0, le=2)] = 1
    retain: bool = False
    receipt: Annotated[
        Receipt, Field(description="stored: done when it is safe here; device: when the device has it")
    ] = "stored"
    max_age: Annotated[
        Duration | None,
        Field(ge=1, description="how long it may wait here for its device; later it is not delivered"),
    ] = None
    expiry: Annotated[
        Duration | None, Field(ge=1, description="Message Expiry Interval, where the message has no shorter")
    ] = None

    answer_timeout: Annotated[
        Duration | None,
        Field(ge=1, le=3600, description="how long a device may take to answer to who named a reply_to"),
    ] = None

    @model_validator(mode="after")
    def _receipt_needs_an_answer(self) -> Command:
        if self.receipt == "device" and not self.qos:
            raise ValueError(
                "with 'qos: 0' no device acknowledges anything; write 'qos: 1' or 'receipt: stored'"
            )
        if self.receipt == "device" and self.from_.kind == "zeromq":
            # Its sender waits for whole batches, and takes us for dead while a device sleeps.
            raise ValueError("ZeroMQ answers for whole batches, and at once; write 'receipt: stored'")
        if self.answer_timeout is not None and self.receipt != "device":
            raise ValueError("'answer_timeout' waits for the device; write 'receipt: device' with it")
        return self
