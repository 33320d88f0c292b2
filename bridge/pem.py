"""PEM files: what kinds of blocks one holds, and certificates to believe taken from it.

OpenSSL reads the first block that it can use and says little when there is none. Here
the file is looked at before: a mistake names the file, what is in it, and what has to
be. Nothing is read of a certificate from a file that is to hold something else: OpenSSL
would believe it as well.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from bridge.errors import ConfigError
from bridge.private import check_private

__all__ = ["load_authorities", "load_certificates", "load_own", "load_revoked"]

_FILE_BYTES_MAX: Final = 64 * 1024 * 1024  # the lists of a large authority have megabytes
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN (TRUSTED |X509 |)CERTIFICATE-----[\s\S]*?-----END \1CERTIFICATE-----"
)


def load_own(context: ssl.SSLContext, certificate: Path, key: Path, whose: str) -> None:
    """Show this certificate from now on. Raises ConfigError that names the file and says what to do."""
    _labels(certificate, b"CERTIFICATE", f"the certificate of {whose}, and its chain behind it")
    try:
        check_private(key)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    _labels(key, b"PRIVATE KEY", "the private key of the certificate")

    def no_passphrase() -> str:
        # Without this, OpenSSL would ask the terminal and wait for ever.
        raise ConfigError(
            f"{key} is encrypted and nobody is there to type its passphrase; "
            f"write it without one: openssl pkey -in {key} -out FILE, and chmod 600 FILE"
        )

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key} is not the key of {certificate}; give the two that were made together"
            ) from None
        raise ConfigError(f"{certificate} with {key} cannot be used: {_reason(error)}") from None


def load_authorities(context: ssl.SSLContext, path: Path, what: str) -> None:
    """Believe the certificates in a file, whatever else it holds. Raises ConfigError."""
    found = _labels(path, b"CERTIFICATE", what)
    if b"X509 CRL" in found:
        raise ConfigError(f"{path} holds a revocation list, which would not be used there; name it in 'crl'")
    load_certificates(context, path, what)


def load_certificates(context: ssl.SSLContext, path: Path, what: str) -> None:
    """Add the certificates in a file to the store of the context, and nothing else of it."""
    _labels(path, b"CERTIFICATE", what)
    blocks = b"\n".join(found[0] for found in _CERTIFICATE.finditer(_read(path)))
    try:
        context.load_verify_locations(cadata=blocks.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as PEM: {_reason(error)}; it has to hold {what}") from None


def load_revoked(context: ssl.SSLContext, path: Path, what: str) -> None:
    """Believe nobody from now on whom these lists do not cover, or name. Raises ConfigError."""
    found = _labels(path, b"X509 CRL", what)
    if strays := found - {b"X509 CRL"}:
        # A certificate in it would be believed, as if it stood among the authorities.
        stray = sorted(strays)[0].decode("ascii")
        raise ConfigError(f"{path} holds a {stray} too; it has to hold {what}, and nothing else")
    try:
        context.load_verify_locations(cafile=str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as PEM: {_reason(error)}; it has to hold {what}") from None
    if not context.cert_store_stats()["crl"]:
        raise ConfigError(f"{path} holds no revocation list; it has to hold {what}")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _labels(path: Path, wanted: bytes, what: str) -> set[bytes]:
    """The kinds of PEM blocks in a file, one of which is wanted."""
    content = _read(path)
    if not content.strip():
        raise ConfigError(f"{path} is empty; it has to hold {what}, in PEM")
    found = set(_LABEL.findall(content))
    if not any(label.endswith(wanted) for label in found):
        other = ", ".join(sorted(label.decode("ascii") for label in found))
        held = f"only {other}" if other else "no PEM block ('-----BEGIN …-----')"
        raise ConfigError(f"{path} holds {held}; it has to hold {what}, in PEM")
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {_FILE_BYTES_MAX} bytes")
    return content


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
