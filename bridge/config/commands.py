"""The routes of commands in a configuration: what they say about the rest, and the rules they become.

As with routes, mistakes across parts are looked for on plain values, before and
independent of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.config.command import Command
from bridge.config.model import Config
from bridge.config.problem import Path
from bridge.policy.command_route import CommandRoute
from bridge.policy.command_topic import CommandTopic
from bridge.policy.spelling import did_you_mean
from bridge.policy.template import TemplateError, split_template
from bridge.sinks.amqp_options import AmqpOptions
from bridge.sources.options import PREFETCH, AmqpSourceOptions
from bridge.topic import check_topic_name

__all__ = ["broker_of", "build_command", "check_commands", "command_warnings", "prefetch_of"]


def build_command(config: Config, name: str) -> CommandRoute:
    """The rule of one route of commands. Raises TemplateError that `check_commands` would have found."""
    model, limits = config.commands[name], config.broker_limits
    return CommandRoute(
        name,
        model.to,
        gateway=config.gateway,
        qos=model.qos,
        retain=model.retain,
        receipt=model.receipt,
        max_age_s=model.max_age,
        expiry_s=model.expiry,
        answer_timeout_s=model.answer_timeout,
        levels_max=limits.topic_levels_max,
        packet_bytes_max=limits.packet_bytes_max,
    )


def broker_of(config: Config, model: Command) -> AmqpOptions | None:
    """How to reach the RabbitMQ that commands come from, with whole paths; None for other kinds."""
    options = model.from_.options
    if not isinstance(options, AmqpSourceOptions):
        return None
    sink = config.sinks[options.sink].amqp if options.sink is not None else None
    return options.broker(sink).located(config.locate)


def prefetch_of(model: Command) -> int:
    """How many messages may be out and not settled."""
    return model.from_.options.prefetch or PREFETCH[model.receipt]


def command_warnings(config: Config) -> list[str]:
    """What is allowed and may cost commands, one sentence each."""
    found = []
    for name, model in config.commands.items():
        options = model.from_.zeromq
        if options is not None and options.confirm == "none":
            behind = "the sender waits" if options.socket == "pull" else "the newest are let go"
            found.append(
                f"commands.{name}: may lose commands: with `confirm: none` nobody hears what became of them; "
                f"behind {options.waiting_max:,} that wait here {behind}"
            )
    return found


def check_commands(data: Any) -> Iterator[tuple[Path, str, int]]:
    """Yield (path, what is wrong, column within the value), as `check_routes` does."""
    if not isinstance(data, dict) or not isinstance(commands := data.get("commands", {}), dict):
        return
    sinks = data.get("sinks", {})
    for name, command in commands.items():
        if not isinstance(command, dict):
            continue
        path: Path = ("commands", name)
        source = command.get("from")
        amqp = source.get("amqp") if isinstance(source, dict) else None
        sink = amqp.get("sink") if isinstance(amqp, dict) else None
        if isinstance(sink, str) and isinstance(sinks, dict) and (wrong := _wrong_sink(sink, sinks)):
            yield (*path, "from", "amqp", "sink"), wrong, 0
        if isinstance(to := command.get("to"), str):
            try:
                CommandTopic.compile(to)
            except TemplateError as error:
                yield (*path, "to"), str(error), error.column
                continue
            # Whatever is filled in, what stands there already has to be fit for a topic.
            sample = "".join(part if column is None else "x" for part, column in split_template(to))
            if unfit := check_topic_name(sample):
                yield (*path, "to"), unfit, 0
            elif sample.startswith(("$SYS", "$share/")):
                yield (*path, "to"), "topics under $SYS and $share are the gateway's own", 0


def _wrong_sink(sink: str, sinks: dict[Any, Any]) -> str:
    if sink not in sinks:
        known = f"; there are {', '.join(map(str, list(sinks)[:20]))}" if sinks else "; the file has no sinks"
        return f"there is no sink {sink[:64]!r}{known}{did_you_mean(sink, list(sinks))}"
    entry = sinks[sink]
    if isinstance(entry, dict) and "amqp" not in entry:
        return f"the sink {sink[:64]!r} is no RabbitMQ; name one that is, or write 'url: amqp://…'"
    return ""
