"""TLS towards a broker: who is believed, and in one line why somebody was not.

The context is made for one connection, from the files as they are then: a renewed
certificate, another authority or a new revocation list counts from the next. The
name in the certificate is always checked, and only where certificates have had it for
twenty years: a common name without a subjectAltName is no name.

    ca             whom its certificates sign, or are, is believed; without it the system's authorities
    certificate    who we are, for a broker that wants to know
    crl            who is believed no longer; then one that no list covers is not believed either
"""

from __future__ import annotations

import ssl
from typing import Final

from bridge.pem import load_authorities, load_own, load_revoked
from bridge.sinks.amqp_options import TlsOptions

__all__ = ["client_context", "explain_alert", "explain_tls"]

# X509_V_ERR_… of OpenSSL; what is not here keeps OpenSSL's own words.
_REFUSED: Final = {
    3: "no revocation list covers the broker's certificate",
    9: "the broker's certificate is not valid yet",
    10: "the broker's certificate has expired",
    12: "the revocation list has expired",
    18: "the broker's certificate is self-signed, and not one that we believe",
    19: "the broker's certificate comes from an authority that we do not believe",
    20: "the broker's certificate comes from an authority that we do not believe",
    21: "the broker's certificate comes from an authority that we do not believe",
    23: "the broker's certificate is revoked",
    26: "the broker's certificate is not one for servers",
}
_NAME_MISMATCH: Final = (62, 64)  # of a host name, of an address
_WANTED: Final = "the broker wants a certificate of ours; write tls: {certificate: FILE, key: FILE}"
_OLD: Final = "the broker's TLS is older than we allow"
_UNTRUSTED: Final = "the broker does not accept our certificate"
# What went wrong before a certificate was looked at, and what the broker says of ours.
_SPOKEN: Final = {
    "WRONG_VERSION_NUMBER": "the broker does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "the broker does not speak TLS on this port",
    "HTTP_REQUEST": "the broker does not speak TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": f"the handshake ends without a word; perhaps {_OLD}",
    "UNSUPPORTED_PROTOCOL": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTED,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"no cipher in common, or {_WANTED}",
    "TLSV1_ALERT_UNKNOWN_CA": f"{_UNTRUSTED}: it does not believe the authority",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"{_UNTRUSTED}: bad certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": f"{_UNTRUSTED}: it is not one for clients",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_UNTRUSTED}: it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"{_UNTRUSTED}: it is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"{_UNTRUSTED}: certificate unknown",
}


def client_context(tls: TlsOptions | None) -> ssl.SSLContext:
    """Read the files as they are now. Raises ConfigError that names the file and says what to do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which requires a certificate, and checks its name
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    newest_only = tls is not None and tls.tls_min == "1.3"
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest_only else ssl.TLSVersion.TLSv1_2
    if tls is None or tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls is None:
        return context
    if tls.ca is not None:
        load_authorities(context, tls.ca, "the certificates of the authorities that sign the broker's")
        # What stands in the file is trusted, an intermediate authority without its root too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.crl is not None:
        load_revoked(context, tls.crl, "the revocation lists of those authorities")
    if tls.certificate is not None and tls.key is not None:
        load_own(context, tls.certificate, tls.key, "this gateway")
    return context


def explain_tls(error: ssl.SSLError) -> str:
    """Why a handshake failed, for whoever can do something about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NAME_MISMATCH:
            return f"the broker's certificate is for another name: {error.verify_message}"
        return _REFUSED.get(error.verify_code, f"the broker's certificate is refused: {error.verify_message}")
    return _SPOKEN.get(error.reason or "", f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}")


def explain_alert(text: str) -> str | None:
    """The same for an alert that came after the handshake, in TLS 1.3, and that only a text tells of."""
    return next((said for reason, said in _SPOKEN.items() if reason in text), None)
