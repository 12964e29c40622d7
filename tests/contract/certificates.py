"""Certificates as good and as bad servers have them, made here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_URI = "urn:freeopcua:python:server"
"""What an asyncua server calls itself."""
DAY = timedelta(days=1)


@cache
def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key for each name in a run of the tests: making one takes a while."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, certificate: Path, private_key: Path) -> None:
        certificate.write_bytes(self.der)
        private_key.touch(0o600)
        private_key.write_bytes(self.key_pem)


def make(
    name: str,
    *,
    by: Signed | None = None,
    uri: str = SERVER_URI,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    valid: tuple[timedelta, timedelta] = (-DAY, 365 * DAY),
    bits: int = 2048,
    ca: bool = False,
    path_length: int | None = None,
    extra: x509.ExtensionType | None = None,
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    serial: int | None = None,
    signed_with: hashes.HashAlgorithm | None = None,
) -> Signed:
    """A certificate, signed by itself or by an authority."""
    now = datetime.now(UTC)
    mine = key(name, bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    usage = dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(mine.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_cert_sign=ca,
                **usage,
            ),
            critical=True,
        )
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    return Signed(builder.sign(by.key if by else mine, signed_with or hashes.SHA256()), mine)


def crl(by: Signed, *serials: int, until: timedelta = 30 * DAY) -> x509.CertificateRevocationList:
    """What an authority says is revoked."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(now - 60 * DAY)
        .next_update(now + until)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(by.key, hashes.SHA256())
