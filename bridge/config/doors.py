"""The listeners of a configuration, as the broker wants them: a Door and a Place each.

Here relative paths get their folder. Whether the files are there, what they hold and
who else may read them is looked at when a listener starts, and again at a reload.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bridge.broker.door import Door
from bridge.broker.listener import Place
from bridge.broker.tls import TlsFiles, build_context
from bridge.config.listeners import Listener
from bridge.config.model import Config
from bridge.errors import ConfigError

__all__ = ["build_door", "build_place", "check_places"]


def build_door(config: Config, listener: Listener) -> Door:
    """What a listener asks of a device, and grants."""
    return Door(
        listener.url,
        config.limits_of(listener),
        anonymous=config.anonymous_at(listener),
        unverified_users=listener.unverified_users,
        user_from=listener.user_from,
    )


def build_place(config: Config, listener: Listener) -> Place:
    """Where a listener is, and how one speaks to it."""

    def located(path: Path | None) -> Path | None:
        return None if path is None else config.locate(path)

    tls = None
    if listener.tls:
        certificate, key = located(listener.certificate), located(listener.key)
        assert certificate is not None, "the model has seen to it"
        assert key is not None, "the model has seen to it"
        tls = TlsFiles(
            certificate,
            key,
            located(listener.client_ca),
            listener.client_certificate,
            located(listener.crl),
            listener.user_from,
            listener.tls_min,
            located(listener.chain),
        )
    return Place(
        listener.kind,
        listener.host,
        listener.port,
        listener.unix,
        int(listener.mode, 8),
        tls,
        listener.path,
        tuple(origin.lower() for origin in listener.origins),
    )


def check_places(config: Config) -> None:
    """Find what would refuse the start of a listener, without starting it.

    Raises ConfigError that names the listener, and its file or the library it misses.
    """
    for listener in config.listeners:
        place = build_place(config, listener)
        if place.kind in ("ws", "wss") and find_spec("websockets") is None:
            raise ConfigError(f"{listener.url}: websockets is missing; pip install 'websockets>=16'")
        if place.tls is not None:
            try:
                build_context(place.tls)
            except ConfigError as error:
                raise ConfigError(f"{listener.url}: {error}") from None
