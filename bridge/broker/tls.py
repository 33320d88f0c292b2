"""TLS of one listener: files → a context, and a client's certificate → the name of a user.

A context is built whole or not at all: a file that is missing, empty or of the wrong
kind refuses the start, and at a reload the context of before stays in force. What a
context was built from is never looked at again, so a reload makes a new one.

    certificate, key    who we are; every byte that the key signs is worth its secrecy
    chain               what devices need to know us by, where the certificate's file leaves it out
    client_ca           whose certificates we believe: what stands in it, nothing else
    crl                 which of those no longer; then one that covers nobody lets in nobody

Only TLS 1.2 and 1.3, only ciphers with forward secrecy and authentication; no
compression, no renegotiation. With client certificates there is no resumption by
tickets: a ticket would outlive the check of the certificate that it stands for.

The name is taken within the handshake, so a certificate that says it in no way we
trust is refused like one that is expired, and no connection comes of it.
"""

from __future__ import annotations

import asyncio.sslproto
import contextlib
import socket
import ssl
import unicodedata
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bridge.errors import ConfigError
from bridge.pem import load_authorities, load_certificates, load_own, load_revoked

__all__ = ["HANDSHAKE_WAIT_S", "SHUTDOWN_WAIT_S", "TlsFiles", "build_context", "handshaking", "user_of"]

HANDSHAKE_WAIT_S: Final = 5.0
SHUTDOWN_WAIT_S: Final = 2.0  # what a device gets to answer our goodbye
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good
_USER_CHARS_MAX: Final = 256
# Control and format characters forge log lines and look like other names; the rest is no text.
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")

# asyncio gives every TLS connection a buffer of 256 KiB and fills it with zeros. A record
# holds at most 16 KiB, and it is read record by record anyway.
asyncio.sslproto.SSLProtocol.max_size = 16 * 1024

UserFrom = Literal["cn", "san", "password"]


class TlsFiles(msgspec.Struct, frozen=True):
    """What a context is built from: PEM files. Without `client_ca` nobody is asked for a certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_certificate: Literal["required", "optional"] = "required"
    crl: Path | None = None
    user_from: UserFrom = "cn"
    tls_min: Literal["1.2", "1.3"] = "1.2"
    chain: Path | None = None  # only without `client_ca`: both would be one store, and clients' too


def build_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files as they are now. Raises ConfigError that names the file and says what to do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if files.tls_min == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1
    context.sslobject_class = _Telling
    load_own(context, files.certificate, files.key, "this gateway")
    if files.client_ca is not None:
        _load_clients(context, files, files.client_ca)
    elif files.chain is not None:
        # OpenSSL completes the chain it sends from the store that it would check clients against.
        load_certificates(context, files.chain, "the certificates of the authorities above this gateway's")
    return context


def _load_clients(context: ssl.SSLContext, files: TlsFiles, client_ca: Path) -> None:
    what = "the certificates of the authorities that sign your devices'"
    load_authorities(context, client_ca, what)
    if not context.cert_store_stats()["x509_ca"]:
        raise ConfigError(f"{client_ca} holds no certificate of an authority; it has to hold {what}")
    context.verify_mode = ssl.CERT_REQUIRED if files.client_certificate == "required" else ssl.CERT_OPTIONAL
    # What stands in the file is trusted, an intermediate authority without its root too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.sslobject_class = _naming(files.user_from)
    if files.crl is not None:
        load_revoked(context, files.crl, "the revocation lists of those authorities")


# ---- the name in a client's certificate ---------------------------------------------------


def user_of(certificate: dict[str, Any], user_from: Literal["cn", "san"]) -> str:
    """The user that a verified certificate names, as `ssl` describes certificates.

    Raises ValueError when it names none, two, or one that is not plain text: with two
    names it would depend on the reader who it is.
    """
    if user_from == "cn":
        where = "common name"
        names = [
            value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
        ]
    else:
        where = "alternative name (DNS, email or URI)"
        names = [
            value for key, value in certificate.get("subjectAltName", ()) if key in ("DNS", "email", "URI")
        ]
    if len(names) != 1:
        raise ValueError(f"{len(names)} times a {where}, which has to stand there once")
    name: str = names[0]
    if not name or name != name.strip() or len(name) > _USER_CHARS_MAX:
        raise ValueError(f"a {where} that is empty, begins or ends with a space, or is too long")
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        raise ValueError(f"a {where} with characters that cannot be seen")
    return name


# Whose handshake it is that goes on right now; the event loop keeps it for all that follows from it.
handshaking: ContextVar[socket.socket | None] = ContextVar("handshaking", default=None)


class _Telling(ssl.SSLObject):
    """A TLS connection that says why it ends a handshake.

    OpenSSL has the alert ready ("certificate expired"), and TLS wants it sent. The event
    loops drop the connection with the alert unsent, so a device only learns that it is
    not wanted. Sent past them, as far as the socket takes it: nothing follows anyway.
    """

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **more: Any) -> Any:
        made = super()._create(incoming, outgoing, *args, **more)  # type: ignore[misc]
        made.outgoing = outgoing
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            sock = handshaking.get()
            if sock is not None and (alert := self.outgoing.read()):  # type: ignore[attr-defined]
                with contextlib.suppress(OSError):
                    sock.send(alert)
            raise


def _naming(user_from: UserFrom) -> type[ssl.SSLObject]:
    """A class of TLS connections whose `getpeercert` says `{"user": name}`, or refuses the handshake.

    The event loop asks for the certificate at the end of the handshake and keeps the
    answer with the transport. An error of class SSLError ends the handshake.
    """

    class Naming(_Telling):
        def getpeercert(self, binary_form: bool = False) -> Any:
            try:
                certificate: Any = super().getpeercert(binary_form)
                if binary_form or not certificate or user_from == "password":
                    return certificate
                return {"user": user_of(certificate, user_from)}
            except ValueError as error:  # not UTF-8 is one, too
                why = "not UTF-8" if isinstance(error, UnicodeError) else str(error)
                raise ssl.SSLError(f"the certificate has {why}") from None

    return Naming
