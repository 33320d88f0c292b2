"""Where devices connect: `listeners`, one entry for each address.

    - {mqtt: 127.0.0.1:1883}
    - {mqtts: 0.0.0.0:8883, certificate: server.pem, key: server.key, client_ca: devices.pem}
    - {ws: 127.0.0.1:9001}
    - {wss: 0.0.0.0:9443, certificate: server.pem, key: server.key}
    - {unix: /run/edgespool/mqtt.sock}

A listener that can be reached from outside refuses to be open to everyone by
accident: it needs users, client certificates, or the word `anonymous: true`. That
depends on `access`, so it is judged in `check_listeners`, on plain values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from bridge.config.limits import DeviceLimits
from bridge.config.problem import Path as DocumentPath
from bridge.config.words import HostPort, Section, is_loopback, split_host_port

__all__ = ["KINDS", "Listener", "check_listeners"]

Kind = Literal["mqtt", "mqtts", "ws", "wss", "unix"]
KINDS: Final[tuple[Kind, ...]] = ("mqtt", "mqtts", "ws", "wss", "unix")
_TLS_KEYS: Final[tuple[str, ...]] = (
    "certificate",
    "key",
    "chain",
    "client_ca",
    "client_certificate",
    "crl",
    "user_from",
    "tls_min",
)


class Listener(Section):
    """One address on which devices are taken in."""

    mqtt: Annotated[HostPort | None, Field(description="HOST:PORT for MQTT without TLS")] = None
    mqtts: Annotated[HostPort | None, Field(description="HOST:PORT for MQTT over TLS")] = None
    ws: Annotated[HostPort | None, Field(description="HOST:PORT for MQTT over WebSocket")] = None
    wss: Annotated[HostPort | None, Field(description="HOST:PORT for MQTT over WebSocket and TLS")] = None
    unix: Annotated[Path | None, Field(description="path of a Unix socket")] = None
    # ---- TLS ----
    certificate: Annotated[Path | None, Field(description="PEM file with our certificate and its chain")] = (
        None
    )
    key: Annotated[Path | None, Field(description="PEM file with its private key")] = None
    chain: Annotated[
        Path | None,
        Field(description="PEM file with the authorities above ours, where 'certificate' leaves them out"),
    ] = None
    client_ca: Annotated[
        Path | None, Field(description="PEM file; devices show a certificate signed by it")
    ] = None
    client_certificate: Literal["required", "optional"] = "required"
    crl: Annotated[Path | None, Field(description="PEM file with revocation lists")] = None
    user_from: Annotated[
        Literal["cn", "san", "password"],
        Field(description="what a client certificate says about the user; password: it logs in as well"),
    ] = "cn"
    tls_min: Literal["1.2", "1.3"] = "1.2"
    # ---- WebSocket ----
    path: Annotated[str | None, Field(description="the only path that is served; default: any")] = None
    origins: Annotated[
        list[str],
        Field(default_factory=list, description="web pages that may connect, such as https://ui.plant"),
    ]
    # ---- Unix socket ----
    mode: Annotated[str, Field(pattern="^0[0-7]{3}$", description="permissions of the socket")] = "0660"
    # ---- who is let in ----
    anonymous: Annotated[
        bool | None, Field(description="let in who shows no name; default: only where there are no users")
    ] = None
    unverified_users: Annotated[
        bool, Field(description="believe user names that nothing proves, as rules see them")
    ] = False
    limits: Annotated[DeviceLimits, Field(default_factory=DeviceLimits)]

    @property
    def kind(self) -> Kind:
        """What devices speak here."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def tls(self) -> bool:
        """Whether devices speak TLS here."""
        return self.kind in ("mqtts", "wss")

    @property
    def host(self) -> str:
        """The host alone, without the brackets of IPv6; empty for a Unix socket."""
        return "" if self.unix is not None else split_host_port(getattr(self, self.kind))[0]

    @property
    def port(self) -> int:
        """The port alone; 0 for a Unix socket."""
        return 0 if self.unix is not None else split_host_port(getattr(self, self.kind))[1]

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.unix is not None or is_loopback(self.host)

    @property
    def url(self) -> str:
        """As one would write it for a client: `mqtts://0.0.0.0:8883`."""
        return f"{self.kind}://{getattr(self, self.kind)}"

    @model_validator(mode="after")
    def _consistent(self) -> Listener:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)}")
        if self.tls and (self.certificate is None or self.key is None):
            raise ValueError(f"{self.kind} needs 'certificate' and 'key': PEM files")
        given = self.model_fields_set
        if not self.tls and (stray := [key for key in _TLS_KEYS if key in given]):
            raise ValueError(f"{stray[0]!r} is for mqtts and wss; without TLS nothing would come of it")
        if self.kind not in ("ws", "wss") and ("path" in given or "origins" in given):
            raise ValueError("'path' and 'origins' are for ws and wss")
        if self.unix is None and "mode" in given:
            raise ValueError("'mode' is for unix")
        if self.client_ca is None and (
            stray := [key for key in ("client_certificate", "crl", "user_from") if key in given]
        ):
            raise ValueError(f"{stray[0]!r} needs 'client_ca': the authority of the devices' certificates")
        if self.client_ca is not None and self.chain is not None:
            raise ValueError("with 'client_ca' there is no 'chain'; append it to the certificate's own file")
        if self.unix is not None and not self.unix.is_absolute():
            raise ValueError(f"'{self.unix}' is relative; begin it with /")
        return self


def check_listeners(listeners: Any, access: Any) -> Iterator[tuple[DocumentPath, str, int]]:
    """Yield (path, what is wrong, column) for addresses that stand twice, and for doors left open.

    Both are any values at all: what is not of the right type is the model's business.
    """
    seen: set[str] = set()
    users = isinstance(access, dict) and access.get("users") is not None
    for index, listener in enumerate(listeners if isinstance(listeners, list) else []):
        if not isinstance(listener, dict):
            continue
        for kind in KINDS:
            address = listener.get(kind)
            if not isinstance(address, str):
                continue
            path: DocumentPath = ("listeners", index, kind)
            if address in seen:
                yield path, f"{address} stands twice", 0
            seen.add(address)
            if kind != "unix" and not users and _open_by_accident(listener, address):
                yield (
                    path,
                    f"{address} can be reached from outside, and nothing says who may come in; write "
                    f"'access: {{users: FILE}}' (edgespool passwd makes one), "
                    f"{'client_ca: FILE here, ' if kind in ('mqtts', 'wss') else ''}"
                    f"or {{{kind}: {address}, anonymous: true}} if everyone there may publish",
                    0,
                )


def _open_by_accident(listener: dict[str, Any], address: str) -> bool:
    try:
        host, _ = split_host_port(address)
    except ValueError:
        return False
    certificates = (
        listener.get("client_ca") is not None
        and listener.get("client_certificate", "required") == "required"
        and listener.get("user_from", "cn") != "password"
    )
    return not (is_loopback(host) or listener.get("anonymous") is True or certificates)
