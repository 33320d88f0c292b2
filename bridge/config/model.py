"""What a configuration may say, key by key; the types are also the JSON Schema.

    version  gateway  listeners  access  store  sinks  routes  commands  web  sys  limits

A value is judged here by itself. What one part says about another, such as a route
about its sink, is judged in `routes`; where a mistake stands, only `load` knows.

Read strictly: `"5"` is not a number and `yes` not a truth. One way to say each thing.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from bridge.broker.limits import Limits
from bridge.config.access import Access
from bridge.config.command import Command
from bridge.config.limits import HouseLimits, resolve_limits
from bridge.config.listeners import Listener
from bridge.config.problem import Path as DocumentPath
from bridge.config.route import Route
from bridge.config.secrets import MASK, mask_url
from bridge.config.trials import Trial
from bridge.config.words import HostPort, Name, Section, split_host_port
from bridge.policy.units import Duration, Size
from bridge.sinks.options import OPTIONS, AmqpOptions, MemoryOptions, SinkOptions, ZeromqOptions
from bridge.sources.options import AmqpSourceOptions

__all__ = ["Config", "SinkEntry", "default_config"]

_GATEWAY_CHARS_MAX: Final = 64  # it begins every message id, and an AMQP message id has 255 bytes
_PYDANTIC_MASK: Final = "*" * 10  # how a SecretStr prints
_MACHINE_ID: Final = Path("/etc/machine-id")


def default_gateway() -> str:
    """The machine-id, shortened, or else the host's name: what stays the same for this box."""
    try:
        machine_id = _MACHINE_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        machine_id = ""
    if len(machine_id) >= 12 and machine_id.isalnum():
        return machine_id[:12]
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:_GATEWAY_CHARS_MAX] or "gateway"


def default_store_path() -> Path:
    """Where systemd says ($STATE_DIRECTORY), or in the user's state folder."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])  # systemd lists several, ours first
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative path there is invalid and to be ignored, says the XDG specification.
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return base / "edgespool"


def _check_gateway(gateway: str) -> str:
    if not gateway or len(gateway) > _GATEWAY_CHARS_MAX:
        raise ValueError(f"must have 1 to {_GATEWAY_CHARS_MAX} characters")
    if found := re.search(r"[/+#\s\x00-\x1f\x7f]", gateway):
        raise ValueError(
            f"must not contain {found[0]!r}: it becomes a level of topics and part of message ids"
        )
    return gateway


def _check_store_path(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if not path.is_absolute():
        raise ValueError(
            f"'{path}' is relative; a service starts in another folder than you do, so begin it with /"
        )
    return path


def _web_or_off(value: object) -> object:
    return _or_off(value, "{listen: HOST:PORT}")


def _sys_or_off(value: object) -> object:
    return _or_off(value, "{interval: 10s}")


def _or_off(value: object, otherwise: str) -> object:
    if value == "off":
        return None
    if value is None or isinstance(value, str):
        raise ValueError(f"must be {otherwise} or off")
    return value


class Store(Section):
    """Where messages lie until the cloud has them."""

    path: Annotated[Path, AfterValidator(_check_store_path), Field(default_factory=default_store_path)]
    max_bytes: Annotated[Size, Field(ge=1 << 20, description="all that may lie on the disk")] = 1 << 30
    durability: Annotated[
        Literal["fsync", "write"],
        Field(description="what an acknowledged message survives: fsync a power cut, write a kill"),
    ] = "fsync"
    keep: Annotated[
        Duration | None,
        Field(ge=1, description="how long what was delivered is kept, where nobody else wants the room"),
    ] = None


class SinkEntry(Section):
    """One far end: exactly one kind, with its options."""

    amqp: AmqpOptions | None = None
    zeromq: ZeromqOptions | None = None
    memory: MemoryOptions | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SinkEntry:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"needs exactly one of {', '.join(OPTIONS)}")
        return self

    @property
    def kind(self) -> str:
        """`amqp`, `zeromq`, …: a key of `bridge.sinks.options.OPTIONS`."""
        return next(iter(self.model_fields_set))

    @property
    def options(self) -> SinkOptions:
        """The options of that kind."""
        options = self.amqp or self.zeromq or self.memory
        assert options is not None
        return options


class Web(Section):
    """Status, metrics and probes over HTTP."""

    listen: HostPort = "127.0.0.1:8080"

    @property
    def host(self) -> str:
        """The host alone, without the brackets of IPv6."""
        return split_host_port(self.listen)[0]

    @property
    def port(self) -> int:
        """The port alone."""
        return split_host_port(self.listen)[1]


class Sys(Section):
    """The topics under `$SYS`: how often they are brought up to date."""

    interval: Annotated[Duration, Field(ge=1, le=86_400)] = 10.0


class Config(Section):
    """The whole configuration. Made by `load` or `default_config`; never changes."""

    version: Literal[1]
    gateway: Annotated[
        str,
        AfterValidator(_check_gateway),
        Field(default_factory=default_gateway, description="the name of this box; default: its machine-id"),
    ]
    listeners: Annotated[
        list[Listener],
        Field(min_length=1, default_factory=lambda: [Listener(mqtt="127.0.0.1:1883")]),
    ]
    store: Annotated[Store, Field(default_factory=Store)]
    sinks: Annotated[dict[Name, SinkEntry], Field(default_factory=dict)]
    routes: Annotated[dict[Name, Route], Field(default_factory=dict)]
    commands: Annotated[dict[Name, Command], Field(default_factory=dict)]
    web: Annotated[Web | None, BeforeValidator(_web_or_off), Field(default_factory=Web)]
    sys: Annotated[Sys | None, BeforeValidator(_sys_or_off), Field(default_factory=Sys)]
    access: Annotated[Access, Field(default_factory=Access)]
    limits: Annotated[HouseLimits, Field(default_factory=HouseLimits)]
    tests: Annotated[
        list[Trial], Field(default_factory=list, description="messages to try the routes with, by `validate`")
    ]

    _secrets: frozenset[DocumentPath] = PrivateAttr(default=frozenset())
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _exposed: bool = PrivateAttr(default=False)

    @property
    def broker_limits(self) -> Limits:
        """The limits of the whole house; what no key names keeps its default."""
        return resolve_limits(self.limits)

    def limits_of(self, listener: Listener) -> Limits:
        """The limits of one listener's devices."""
        return resolve_limits(self.limits, listener.limits)

    def anonymous_at(self, listener: Listener) -> bool:
        """Whether a listener lets in who shows no name: as it says, or else where there are no users."""
        return self.access.users is None if listener.anonymous is None else listener.anonymous

    def locate(self, path: Path) -> Path:
        """The file that a relative path means: it is relative to the folder of the configuration."""
        return self._folder / path.expanduser()

    def keep_folder(self, folder: Path, *, exposed: bool = False) -> None:
        """Remember where the configuration lies, and whether everyone on this machine can read it."""
        self._folder = folder.absolute()
        self._exposed = exposed

    def exposed_passwords(self) -> list[str]:
        """Whose password stands in a file that everyone on this machine can read: `sinks.NAME`, …"""
        if not self._exposed:
            return []
        sections: dict[DocumentPath, AmqpOptions | AmqpSourceOptions | None] = {
            ("sinks", name, "amqp"): entry.amqp for name, entry in self.sinks.items()
        }
        for name, command in self.commands.items():
            sections["commands", name, "from", "amqp"] = command.from_.amqp
        return [
            f"{section[0]}.{section[1]}"
            for section, options in sections.items()
            if options is not None
            and any(
                path not in self._secrets and urlsplit(url.get_secret_value()).password
                for path, url in _urls_of(section, options)
            )
        ]

    def keep_secret(self, paths: frozenset[DocumentPath]) -> None:
        """Remember which values `describe` must not show."""
        self._secrets = paths

    def describe(self) -> dict[str, Any]:
        """Return every value as it is in force, as one would write it, with secrets as `***`."""
        described = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        described["sinks"] = {
            name: {entry.kind: described["sinks"][name][entry.kind]} for name, entry in self.sinks.items()
        }
        described.setdefault("web", "off")
        described.setdefault("sys", "off")
        masked: dict[str, Any] = _mask_urls(described)
        for path in self._secrets:
            _mask_at(masked, path)
        return masked

    def __repr__(self) -> str:
        # pydantic would print every value, and one of them may be a password.
        return f"Config(gateway={self.gateway!r}, sinks={list(self.sinks)}, routes={list(self.routes)})"

    __str__ = __repr__


def _urls_of(
    path: DocumentPath, options: AmqpOptions | AmqpSourceOptions
) -> Iterator[tuple[DocumentPath, SecretStr]]:
    """Where each url of a broker stands in the document, and what it is."""
    if options.url is not None:
        yield (*path, "url"), options.url
    for index, url in enumerate(options.urls or ()):
        yield (*path, "urls", index), url


def default_config() -> Config:
    """What runs with no file at all: everything to one receiver on this machine."""
    return Config.model_validate(DEFAULT)


DEFAULT: Final[dict[str, Any]] = {
    "version": 1,
    "sinks": {"local": {"zeromq": {"bind": "tcp://127.0.0.1:5556"}}},
    "routes": {"default": {"from": "#", "to": "local"}},
}


def _mask_urls(value: Any) -> Any:
    """The same with passwords in URLs masked everywhere; it goes no deeper than the model does."""
    if isinstance(value, str):
        return MASK if value == _PYDANTIC_MASK else mask_url(value)
    if isinstance(value, dict):
        return {key: _mask_urls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mask_urls(inner) for inner in value]
    return value


def _mask_at(value: Any, path: DocumentPath) -> None:
    try:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]]  # only what is there is masked
        value[path[-1]] = MASK
    except (IndexError, KeyError, TypeError):
        return  # a text that became a list of one, say: it was masked as a whole
