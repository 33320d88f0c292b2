"""Authorities and certificates, made when a test needs them: good ones, and every bad one.

Only `cryptography` makes certificates that are as wrong as these: with names that are
no text, and signed all the same.
"""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair", "client_context", "replace", "write_sample"]

_DAY: Final = datetime.timedelta(days=1)
_PLACEHOLDER: Final = b"REPLACE-ME"
_ECDSA_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")


class Pair:
    """A certificate and its key, as files. `serial` is for revocation."""

    def __init__(self, folder: Path, name: str, der: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        self.der = der
        pem = ssl.DER_cert_to_PEM_cert(der)
        self.certificate.write_text(pem)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.key.chmod(0o600)


class Authority:
    """A root authority, or one with another `above` it, and whatever it signs, all in one folder."""

    def __init__(self, folder: Path, name: str = "plant", above: Authority | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.certificate = folder / f"{name}-ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        self._count = 0
        made = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(above._subject if above else self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 30 * _DAY)
            .not_valid_after(_now() + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(above._key if above else self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str = "server") -> Pair:
        """For this gateway: good for localhost and its addresses."""
        return self.issue(name, cn="gateway", san=["localhost", "127.0.0.1", "::1"], server=True)

    def issue(
        self,
        name: str = "",
        *,
        cn: str | bytes | list[str] | None = "press-1",
        san: list[str | bytes] | None = None,
        days: tuple[int, int] = (-1, 1),
        server: bool = False,
        self_signed: bool = False,
    ) -> Pair:
        """Sign one. `days` are its life from today; bytes as `cn` go in as they are, text or not."""
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        names = [cn] if isinstance(cn, str | bytes) else cn or []
        raw = next((each for each in [*names, *(san or [])] if isinstance(each, bytes)), None)
        # What is no text is put in afterwards, in place of a text of the same length.
        stand_in = _PLACEHOLDER[: len(raw)].decode() if raw is not None else ""
        names = [stand_in if isinstance(each, bytes) else each for each in names]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() + days[0] * _DAY)
            .not_valid_after(_now() + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if san:
            general = [_general(stand_in if isinstance(each, bytes) else each) for each in san]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        signer = key if self_signed else self._key
        made = builder.sign(signer, hashes.SHA256())
        der = made.public_bytes(serialization.Encoding.DER)
        if raw is not None:
            body = made.tbs_certificate_bytes.replace(stand_in.encode(), raw)
            assert body != made.tbs_certificate_bytes
            signature = signer.sign(body, ec.ECDSA(hashes.SHA256()))
            der = _tlv(0x30, body + _ECDSA_SHA256 + _tlv(0x03, b"\0" + signature))
        return Pair(self.folder, name or f"{self.name}-{self._count}", der, key)

    def crl(self, *revoked: Pair, name: str = "", days: tuple[int, int] = (-1, 1)) -> Path:
        """A revocation list that names these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(_now() + days[0] * _DAY)
            .next_update(_now() + days[1] * _DAY)
        )
        for pair in revoked:
            serial = x509.load_der_x509_certificate(pair.der).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now() - _DAY)
            builder = builder.add_revoked_certificate(entry.build())
        path = self.folder / (name or f"{self.name}-crl.pem")
        made = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path


def client_context(authority: Authority, shown: Pair | None = None) -> ssl.SSLContext:
    """A device that believes this authority, and shows this certificate."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def write_sample(folder: Path) -> tuple[Authority, Pair, Pair]:
    """Make the files that config/tls.yaml names; return the authority, a good device and a revoked one."""
    devices = Authority(folder, "devices")
    devices.server()
    good, revoked = devices.issue(cn="press-1"), devices.issue(cn="press-2")
    devices.crl(revoked, name="revoked.pem")
    devices.certificate = devices.certificate.rename(folder / "devices.pem")
    return devices, good, revoked


def replace(path: Path, by: Path) -> None:
    """Put one file in the place of another, as tools that renew certificates do."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(by.read_bytes())
    fresh.chmod(path.stat().st_mode & 0o777)
    os.replace(fresh, path)


def _general(name: str) -> x509.GeneralName:
    if name.count(".") == 3 or ":" in name[:3]:
        import ipaddress

        return x509.IPAddress(ipaddress.ip_address(name))
    if "@" in name:
        return x509.RFC822Name(name)
    return x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + body


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
