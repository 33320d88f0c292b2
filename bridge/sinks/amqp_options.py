"""What a RabbitMQ is told by the configuration, as its user writes it.

    cloud:
      amqp:
        urls: ["amqps://a.example/plant", "amqps://b.example/plant"]    # or one: url
        sasl: external
        tls: {ca: cloud.pem, certificate: gateway.pem, key: gateway.key}
        exchange: plant
        declare:
          - queue: {name: telemetry, type: quorum}

There is no word to leave out the check of a certificate or of its name, and no mixture
of `amqp://` and `amqps://` in one list: that would be a way back to plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from bridge.policy.units import Duration
from bridge.sinks.base import CONFIRM_TIMEOUT_S

__all__ = [
    "AMQP_WINDOW",
    "Address",
    "AmqpOptions",
    "Binding",
    "Declaration",
    "Exchange",
    "Name",
    "Options",
    "Patience",
    "Queue",
    "TlsOptions",
]

# Confirmations come in groups as large as what lies unconfirmed, so a wider window costs a broker
# less per message; past two thousand RabbitMQ gains nothing more and a cut repeats more.
AMQP_WINDOW: Final = 2_000
HOSTS_MAX: Final = 16
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_TLS_FILES: Final = ("ca", "certificate", "key", "crl")

Name = Annotated[str, Field(min_length=1, max_length=255)]
# The longest wait is one that whoever watches the status would still call a wait.
Patience = Annotated[Duration, Field(ge=0.1, le=3600)]


class Options(BaseModel):
    """What every section about a far end has in common."""

    # An error repeats its input unless told not to, and an input may hold a password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Queue(Options):
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


class Exchange(Options):
    """One durable exchange to be there before the first message."""

    name: Name
    type: Name = "topic"
    arguments: dict[str, bool | int | str] = Field(default_factory=dict)


class Binding(Options):
    """What an exchange hands to a queue."""

    exchange: Name
    queue: Name
    key: Annotated[str, Field(max_length=255)] = "#"


class Declaration(Options):
    """Exactly one of the three; a list of them is carried out in its order."""

    queue: Queue | None = None
    exchange: Exchange | None = None
    binding: Binding | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Declaration:
        if len(self.model_fields_set) != 1:
            raise ValueError("a declaration is one of: queue, exchange, binding")
        return self


class TlsOptions(Options):
    """For amqps with an authority of one's own, or with a certificate of our own. Files are read at each
    connection, so a renewed one counts from the next."""

    ca: Annotated[Path | None, Field(description="PEM file; whom it names is believed, and nobody else")] = (
        None
    )
    certificate: Annotated[Path | None, Field(description="PEM file with our certificate and its chain")] = (
        None
    )
    key: Annotated[Path | None, Field(description="PEM file with its private key")] = None
    crl: Annotated[Path | None, Field(description="PEM file with revocation lists of the authorities")] = None
    server_name: Annotated[
        Name | None,
        Field(description="what the broker's certificate has to name; default: the host of the url"),
    ] = None
    tls_min: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsOptions:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("'certificate' and 'key' come together")
        return self


class Address(msgspec.Struct, frozen=True):
    """One host of a sink, as its url says it; never to be shown as a whole."""

    tls: bool
    host: str
    port: int
    user: str
    password: str
    virtual_host: str


class AmqpOptions(Options):
    """AMQP 0-9-1, as RabbitMQ speaks it.

    With no `exchange` the default one takes the messages, and the address of a
    route is then the name of a queue; otherwise it is the routing key.
    """

    url: Annotated[SecretStr | None, Field(description="the broker: amqps://user:password@host/vhost")] = None
    urls: Annotated[
        list[SecretStr] | None,
        Field(min_length=1, max_length=HOSTS_MAX, description="nodes of one cluster, tried in turn"),
    ] = None
    sasl: Annotated[
        Literal["plain", "external"],
        Field(description="plain: by the name in the url; external: by our certificate"),
    ] = "plain"
    exchange: Annotated[str, Field(max_length=255)] = ""
    declare: list[Declaration] = Field(default_factory=list)
    tls: TlsOptions | None = None
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 10.0
    open_timeout: Patience = 15.0
    confirm_timeout: Patience = CONFIRM_TIMEOUT_S
    window: Annotated[int, Field(ge=1, le=60_000)] = AMQP_WINDOW

    @field_validator("url")
    @classmethod
    def _amqp(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _check(url.get_secret_value())
        return url

    @field_validator("urls")
    @classmethod
    def _all_amqp(cls, urls: list[SecretStr] | None) -> list[SecretStr] | None:
        for url in urls or ():
            _check(url.get_secret_value())
        schemes = {urlsplit(url.get_secret_value()).scheme for url in urls or ()}
        if len(schemes) > 1:
            raise ValueError(
                "all begin with amqps:// or all with amqp://; one that does not would be a way around TLS"
            )
        return urls

    @model_validator(mode="after")
    def _consistent(self) -> AmqpOptions:
        if (self.url is None) == (self.urls is None):
            raise ValueError(
                "'url' is missing; write 'url: amqps://…' for one host or 'urls: [amqps://…, …]'"
            )
        secure = self.addresses[0].tls
        if self.tls is not None and not secure:
            raise ValueError("'tls' is for a url that begins with amqps://")
        if self.sasl == "external":
            if self.tls is None or self.tls.certificate is None:
                raise ValueError("'sasl: external' shows a certificate; write tls: {certificate: …, key: …}")
            if any(urlsplit(url).username for url in self._urls):
                raise ValueError(
                    "with 'sasl: external' the certificate says who we are; leave user:password@ out"
                )
        return self

    @property
    def _urls(self) -> list[str]:
        return [url.get_secret_value() for url in (self.url, *(self.urls or ())) if url is not None]

    @property
    def addresses(self) -> list[Address]:
        """The hosts in the order in which they are tried, passwords in the clear."""
        return [_address(urlsplit(url)) for url in self._urls]

    def located(self, locate: Callable[[Path], Path]) -> AmqpOptions:
        """The same with the whole path of every file."""
        if self.tls is None:
            return self
        found = {name: locate(path) for name in _TLS_FILES if (path := getattr(self.tls, name)) is not None}
        return self.model_copy(update={"tls": self.tls.model_copy(update=found)})

    def describe(self) -> str:
        """Where it leads: never with a password."""
        first, *others = [_shown(urlsplit(url)) for url in self._urls]
        more = "".join(f", {shown.partition('://')[2].rpartition('@')[2]}" for shown in others)
        exchange = f" exchange={self.exchange}" if self.exchange else ""
        return f"{first}{more}{exchange}"


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must be amqp://user:password@host:5672/vhost, or amqps://…:5671/…")
    if parts.query or parts.fragment:
        # Other clients read `verify=verify_none` there. What is not read must not look as if it were.
        raise ValueError(
            "ends with the virtual host; what may follow '?' elsewhere are keys here: tls, heartbeat, …"
        )
    if "/" in parts.path[1:]:
        raise ValueError("has a virtual host with a '/' in it, which is written %2F")


def _address(parts: SplitResult) -> Address:
    assert parts.hostname is not None, "it was checked"
    user = "guest" if parts.username is None else unquote(parts.username)
    # A name without a password has an empty one; RabbitMQ's own pair stands in for both or none.
    password = "guest" if parts.username is None else unquote(parts.password or "")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return Address(
        parts.scheme == "amqps", parts.hostname, port, user, password, unquote(parts.path[1:]) or "/"
    )


def _shown(parts: SplitResult) -> str:
    user = f"{parts.username}:***@" if parts.username else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}"
