"""Mosquitto's listeners as ours, each with who is let in and what is granted there.

A listener that cannot be had here is left out and named: because of how devices would
speak on it, or because it would no longer keep them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bridge.config.words import is_loopback
from bridge.migrate.mosquitto import MosquittoListener
from bridge.migrate.notes import Notes

__all__ = ["TOPIC_ALIASES", "address_of", "grants", "is_local", "tls_keys"]

TOPIC_ALIASES: Final = 10  # Mosquitto's default


def address_of(listener: MosquittoListener, directory: Path, notes: Notes) -> tuple[str, str] | None:
    """The key and the value of a listener's address, or None when it cannot be had here."""
    for name, why in (
        ("psk_hint", "TLS with pre-shared keys is not spoken"),
        ("enable_proxy_protocol", "the PROXY protocol is not spoken"),
        ("mount_point", "topics get no prefix, so its devices would meet all the others"),
    ):
        if (setting := listener.get(name)) is not None:
            notes.add(setting, f"{why}: the whole listener is left out")
            return None
    protocol = listener.get("protocol")
    if protocol is not None and protocol.words()[0] == "http_api":
        notes.add(protocol, "left out; 'web' is what answers over HTTP here")
        return None
    if listener.path is not None:
        if listener.websockets and protocol is not None:
            notes.add(protocol, "plain MQTT is spoken on a Unix socket")
        return "unix", str(directory / listener.path)
    kind = (
        ("wss" if listener.websockets else "mqtts")
        if listener.get("certfile")
        else ("ws" if listener.websockets else "mqtt")
    )
    return kind, f"{_host(listener, notes)}:{listener.port}"


def _host(listener: MosquittoListener, notes: Notes) -> str:
    domain = listener.get("socket_domain")
    everything = "0.0.0.0"  # noqa: S104
    if domain is not None and domain.word("ipv4", "ipv6") == "ipv6":
        everything = "[::]"
    host = listener.host
    if (interface := listener.get("bind_interface")) is not None and host is None:
        if interface.value != "lo":
            notes.add(
                interface,
                f"the listener is on 127.0.0.1; write the address of {interface.value} in its place",
            )
        return "[::1]" if everything == "[::]" else "127.0.0.1"
    if host is None:
        if domain is None and listener.where is not None:
            notes.add(listener.where, f"listens on IPv4; for IPv6 add a listener '[::]:{listener.port}'")
        return everything
    return f"[{host}]" if ":" in host else host


def tls_keys(listener: MosquittoListener, directory: Path, notes: Notes) -> dict[str, Any]:
    """What a listener says about certificates, ours and the devices'."""
    certificate, key = listener.get("certfile"), listener.get("keyfile")
    required, identity = listener.get("require_certificate"), listener.get("use_identity_as_username")
    subject = listener.get("use_subject_as_username")
    ca, folder, crl = listener.get("cafile"), listener.get("capath"), listener.get("crlfile")
    if certificate is None or key is None:
        for setting in (required, identity, subject, crl, listener.get("tls_version")):
            if setting is not None:
                notes.add(
                    setting, "the listener has no TLS, so nothing comes of it; nothing did in Mosquitto"
                )
        return {}
    keys: dict[str, Any] = {
        "certificate": str(directory / certificate.value),
        "key": str(directory / key.value),
    }
    asked = listener.flag("require_certificate")
    named = listener.flag("use_identity_as_username") or listener.flag("use_subject_as_username")
    if not (asked or named):
        # Mosquitto asks for no certificate, but sends what stands there along with its own.
        if ca is not None:
            keys["chain"] = str(directory / ca.value)
        for setting in (folder, crl):
            if setting is not None:
                notes.add(
                    setting, "no device is asked for a certificate (require_certificate), so none is judged"
                )
    else:
        keys |= _client_keys(listener, directory, notes)
        if not named:
            keys["user_from"] = "password"
        elif not asked:
            keys["client_certificate"] = "optional"
    if subject is not None and subject.flag():
        notes.add(subject, "the user is the common name (CN) of the certificate; rules have to name that")
    if (version := listener.get("tls_version")) is not None:
        if version.word("tlsv1.3", "tlsv1.2", "tlsv1.1", "tlsv1") == "tlsv1.3":
            keys["tls_min"] = "1.3"
        elif version.value in ("tlsv1.1", "tlsv1"):
            notes.add(version, "TLS 1.2 is the oldest that is spoken")
    return keys


def _client_keys(listener: MosquittoListener, directory: Path, notes: Notes) -> dict[str, Any]:
    ca, folder, crl = listener.get("cafile"), listener.get("capath"), listener.get("crlfile")
    if ca is not None:
        file = str(directory / ca.value)
        if folder is not None:
            notes.add(folder, f"only {ca.value} is read")
    elif folder is not None:
        file = str(directory / folder.value).rstrip("/") + ".pem"
        notes.add(folder, f"one file is read; make it: cat {folder.value.rstrip('/')}/* > {file}")
    else:
        wanted = listener.get("require_certificate", "use_identity_as_username", "use_subject_as_username")
        assert wanted is not None
        raise wanted.wrong("needs 'cafile' or 'capath': the authority of the devices' certificates")
    return {"client_ca": file} | ({"crl": str(directory / crl.value)} if crl is not None else {})


def grants(listener: MosquittoListener, notes: Notes) -> dict[str, Any]:
    """The limits that only hold on this listener."""
    limits: dict[str, Any] = {}
    if (most := listener.get("max_connections")) is not None and (number := most.number()) > 0:
        limits["connections"] = number
    if (qos := listener.get("max_qos", "maximum_qos")) is not None and (number := qos.number(0, 2)) != 2:
        limits["maximum_qos"] = number
    if (aliases := listener.get("max_topic_alias")) is not None:
        number = aliases.number(0, 65_535)
        if number != TOPIC_ALIASES:
            limits["topic_alias_maximum"] = number
    granted = limits.get("topic_alias_maximum", TOPIC_ALIASES)
    if (other := listener.get("max_topic_alias_broker")) is not None and other.number(0, 65_535) != granted:
        notes.add(other, f"{granted} in both directions (topic_alias_maximum)")
    empty = listener.security.get("allow_zero_length_clientid")
    if empty is not None and not empty.flag():
        limits["empty_client_ids"] = False
    return limits


def is_local(kind: str, address: str) -> bool:
    """Whether only this machine reaches it."""
    return kind == "unix" or is_loopback(address.rpartition(":")[0].strip("[]"))
