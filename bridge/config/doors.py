"""The listeners of a configuration, as the broker wants them: a Door and a Place each.

Here relative paths get their folder. Whether the files are there, what they hold and
who else may read them is looked at when a listener starts, and again at a reload.
"""

from __future__ import annotations

from pathlib import Path

from bridge.broker.door import Door
from bridge.broker.listener import Place
from bridge.broker.tls import TlsFiles
from bridge.config.listeners import Listener
from bridge.config.model import Config

__all__ = ["build_door", "build_place"]


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
