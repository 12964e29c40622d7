"""OPC UA trust.

Which servers this box trusts, and who this box itself is. All of it lies in one folder, `state/pki` in the box folder:

- `trusted/`: certificates of servers, and of authorities, that an engineer trusts. An authority that stands here makes
  every certificate trusted that it issued and has not revoked.
- `issuers/`: authorities between those and a server: known, but not trusted for their own sake.
- `crl/`: revocation lists of authorities.
- `rejected/`: the last certificates that were refused, to be compared and trusted with `lineside equipment trust`.
- `own/`: this box's own keys with their certificates, newest last; readable by their owner only.

Files end in .der, .pem, .crt, .cer or .crl; they are read anew at every connect.

A server is refused when its certificate is not trusted, revoked, expired, not valid yet, of another application or host
than the one that was asked for, not made for a server, or weak (RSA below 2048 bits, a signature with SHA-1 or MD5).
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.core.errors import LinesideError, Place

NOT_CONNECTED: Final = "The device is not connected: nothing is written to it, and none of its values is good."

CERTIFICATE_BYTES_MAX: Final = 16_384
FILE_BYTES_MAX: Final = 4_194_304
CHAIN_MAX: Final = 6
FILES_MAX: Final = 500
REJECTED_MAX: Final = 20
RSA_BITS_MIN: Final = 2048
OWN_BITS: Final = 3072
OWN_YEARS: Final = 5
RENEW_BEFORE: Final = timedelta(days=90)
WARN_BEFORE: Final = timedelta(days=30)
EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock that says less was never set."""

_ENDINGS: Final = frozenset({".der", ".pem", ".crt", ".cer", ".crl"})
_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_KNOWN_OF_ISSUERS: Final = (x509.BasicConstraints, x509.KeyUsage)


@dataclass(frozen=True, slots=True)
class BoxClock:
    """What the wall clock says, and whether a time source disciplines it."""

    now: datetime
    synced: bool


@dataclass(frozen=True)
class Own:
    """This box as a server sees it: a key and its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    file: Path

    @cached_property
    def uri(self) -> str:
        """The application's name in the certificate, by which the session is opened."""
        return next(iter(_names(self.certificate, x509.UniformResourceIdentifier)), "")

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Shown:
    """One certificate in words, for comparing."""

    subject: str
    issuer: str
    uri: str
    hosts: tuple[str, ...]
    valid_from: str
    valid_to: str
    fingerprint: str
    """SHA-256, 64 hex digits: what `--fingerprint` and `server_certificate` take."""
    thumbprint: str
    """SHA-1, 40 hex digits: what many servers show. For looking only."""
    authority: bool
    file: str

    def lines(self) -> Iterator[str]:
        yield f"Certificate of {self.subject}" + (" (an authority)" if self.authority else "")
        yield f"  issued by    {self.issuer}"
        yield f"  application  {self.uri or '-'}"
        yield f"  hosts        {', '.join(self.hosts) or '-'}"
        yield f"  valid        {self.valid_from} to {self.valid_to}"
        yield f"  SHA-256      {self.fingerprint}"
        yield f"  SHA-1        {self.thumbprint}"
        yield f"  file         {self.file}"


def show(certificate: x509.Certificate, file: Path) -> Shown:
    """What a person compares. Raises `opcua.certificate_unreadable`."""
    try:
        return Shown(
            subject=_named(certificate.subject),
            issuer="itself" if certificate.issuer == certificate.subject else _named(certificate.issuer),
            uri=next(iter(_names(certificate, x509.UniformResourceIdentifier)), ""),
            hosts=tuple(_hosts(certificate)),
            valid_from=_day(certificate.not_valid_before_utc),
            valid_to=_day(certificate.not_valid_after_utc),
            fingerprint=fingerprint(certificate),
            thumbprint=certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303  shown for comparing, never believed
            authority=_is_authority(certificate),
            file=str(file),
        )
    except _UNREADABLE as error:
        raise _unreadable(str(file), error) from error


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, 64 hex digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_fingerprint(text: str) -> str:
    """A fingerprint as people and programs write it, with or without colons. Raises `opcua.fingerprint`."""
    digits = re.sub(r"[\s:]", "", text[:200]).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise LinesideError(
            "opcua.fingerprint",
            f"{text[:80]!r} is not a SHA-256 fingerprint.",
            todo="Give its 64 hex digits, with or without colons; a SHA-1 thumbprint (40 digits) is not enough.",
        )
    return digits


class Pki:
    """One box's folder of certificates. Every method reads what the files say now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Servers ------------------------------------------------------------------------------------------------

    def judge(self, shown: bytes, *, host: str, uri: str, clock: BoxClock, pinned: bool, where: str) -> tuple[str, ...]:
        """Believe what a server shows (DER, with its issuers behind it), or raise the first finding, all others in
        `others`, and keep the certificate in `rejected/`. Returns remarks for a person.

        `uri` is the application that the server says it is; `host` the one in the plant file, which a pinned
        certificate need not name. `where` becomes part of the file's name.
        """
        try:
            chain = _split(shown)
        except _UNREADABLE as error:
            raise _unreadable("The server's certificate", error) from error
        try:
            remarks: list[str] = []
            findings = list(self._findings(chain, host, uri, clock, pinned, remarks))
        except _UNREADABLE as error:
            raise _unreadable("The server's certificate", error) from error
        if findings:
            self._reject(chain[0], where)
            findings[0].others = tuple(findings[1:])
            raise findings[0]
        return tuple(remarks)

    def pinned(self, wanted: str) -> bytes:
        """The trusted certificate with this fingerprint, DER. Raises `opcua.pin_missing`."""
        for certificate in self._certificates("trusted"):
            if fingerprint(certificate) == wanted:
                return certificate.public_bytes(Encoding.DER)
        raise LinesideError(
            "opcua.pin_missing",
            f"The plant file pins the server's certificate {wanted[:16]}..., which is not among the trusted ones.",
            effect=NOT_CONNECTED,
            todo="Take the certificate from the server as a file, and: lineside equipment trust FILE",
        )

    def _findings(
        self, chain: Sequence[x509.Certificate], host: str, uri: str, clock: BoxClock, pinned: bool, remarks: list[str]
    ) -> Iterator[LinesideError]:
        leaf, name = chain[0], _named(chain[0].subject)
        yield from _weakness(leaf, name)
        yield from self._distrust(chain, clock, remarks)
        yield from _outdated(leaf, name, clock)
        if not pinned and not _names_host(leaf, host):
            hosts = ", ".join(_hosts(leaf)) or "no host at all"
            yield LinesideError(
                "opcua.wrong_host",
                f"The server at {host} shows the certificate of {name}, which is for {hosts}.",
                effect=NOT_CONNECTED,
                todo="Name the server in the plant file as its certificate does; or compare the fingerprint at the "
                f'server and pin it, with a policy as security: server_certificate: "{fingerprint(leaf)}".',
            )
        uris = _names(leaf, x509.UniformResourceIdentifier)
        if uri not in uris:
            yield LinesideError(
                "opcua.wrong_uri",
                f"The server says it is the application {uri[:120]!r}; its certificate is for "
                f"{', '.join(uris)[:120] or 'none'}.",
                effect=NOT_CONNECTED,
                todo="Ask who runs the server to make its certificate anew; another program may be answering.",
            )
        if not _for_a_server(leaf):
            yield LinesideError(
                "opcua.wrong_use",
                f"The certificate of {name} was not made for a server.",
                effect=NOT_CONNECTED,
                todo="Ask who runs the server for an application certificate (digital signature, key encipherment, "
                "server authentication).",
            )
        if timedelta() < leaf.not_valid_after_utc - clock.now < WARN_BEFORE:
            remarks.append(f"the server's certificate expires on {_day(leaf.not_valid_after_utc)}")
        if not clock.synced:
            remarks.append("certificate dates were compared with a clock that is not synchronised")

    def _distrust(
        self, chain: Sequence[x509.Certificate], clock: BoxClock, remarks: list[str]
    ) -> Iterator[LinesideError]:
        leaf = chain[0]
        trusted = list(self._certificates("trusted"))
        believed = {fingerprint(certificate) for certificate in trusted}
        known = [*trusted, *self._certificates("issuers"), *chain[1:]]
        path = [leaf]
        while len(path) < CHAIN_MAX and (issuer := _issuer_of(path[-1], known)) is not None:
            path.append(issuer)
        anchor = next((n for n, one in enumerate(path) if fingerprint(one) in believed), None)
        if anchor is None:
            yield _not_trusted(leaf, path[-1])
        else:
            for below, issuer in enumerate(path[1 : anchor + 1]):
                yield from _bad_issuer(issuer, below, clock)
        lists = list(self._lists())
        for one, issuer in pairwise(path):
            issued = [crl for crl in lists if _signed(crl, issuer)]
            if any(crl.get_revoked_certificate_by_serial_number(one.serial_number) for crl in issued):
                yield LinesideError(
                    "opcua.revoked",
                    f"The certificate of {_named(one.subject)} was revoked by {_named(issuer.subject)}.",
                    effect=NOT_CONNECTED,
                    todo="Ask who runs the server why, and for a new certificate. Do not trust this one by hand.",
                )
            if not issued:
                remarks.append(f"there is no revocation list of {_named(issuer.subject)}")
            elif all(crl.next_update_utc is not None and crl.next_update_utc < clock.now for crl in issued):
                remarks.append(f"the revocation list of {_named(issuer.subject)} is out of date")

    def _reject(self, certificate: x509.Certificate, where: str) -> None:
        folder = self._made("rejected")
        file = folder / f"{_safe(where)}-{fingerprint(certificate)[:16]}.der"
        _put(file, certificate.public_bytes(Encoding.DER), 0o644)
        os.utime(file)
        for old in self.rejected()[REJECTED_MAX:]:
            old.unlink(missing_ok=True)

    def rejected(self, where: str = "") -> list[Path]:
        """What was refused, of one server or of all, newest first."""
        files = (self.folder / "rejected").glob(f"{_safe(where)}-*.der" if where else "*.der")
        return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)

    # What an engineer trusts ----------------------------------------------------------------------------------

    def trust(self, certificate: x509.Certificate, *, issuer: bool = False) -> Path:
        """From now on trusted; with `issuer` merely known. What was refused before is no longer kept as such."""
        name = _safe(_named(certificate.subject))[:40]
        file = self._made("issuers" if issuer else "trusted") / f"{name}-{fingerprint(certificate)[:16]}.der"
        _put(file, certificate.public_bytes(Encoding.DER), 0o644)
        for old in (self.folder / "rejected").glob(f"*-{fingerprint(certificate)[:16]}.der"):
            old.unlink(missing_ok=True)
        return file

    def revoke(self, crl: x509.CertificateRevocationList) -> Path:
        """Keep a revocation list in place of older ones of the same authority. Raises `opcua.crl_unknown`."""
        issuers = [*self._certificates("trusted"), *self._certificates("issuers")]
        issuer = next((one for one in issuers if _signed(crl, one)), None)
        if issuer is None:
            raise LinesideError(
                "opcua.crl_unknown",
                f"The revocation list is of {_named(crl.issuer)}, whose certificate this box does not have.",
                todo="First: lineside equipment trust AUTHORITY.der, with --issuer if it is not trusted itself.",
            )
        file = self._made("crl") / f"{_safe(_named(crl.issuer))[:40]}-{fingerprint(issuer)[:16]}.crl"
        _put(file, crl.public_bytes(Encoding.DER), 0o644)
        return file

    def trusted(self) -> list[tuple[x509.Certificate, Path]]:
        """What an engineer trusts, with its files."""
        return [(read_certificate(file), file) for file in self._files("trusted")]

    # This box -------------------------------------------------------------------------------------------------

    def own(self, box: str, clock: BoxClock, *, renew: bool = False) -> tuple[Own, ...]:
        """This box's certificates that are still valid, newest first. Makes the first, and a further one when the
        newest ends within RENEW_BEFORE or `renew` is set. Takes a second when it makes one.

        Raises `opcua.clock_not_set` when the clock cannot be right, and `opcua.own_key` for a file it cannot use.
        """
        found = [_own_in(file) for file in sorted((self.folder / "own").glob("*.pem"), reverse=True)[:FILES_MAX]]
        # One that was made while the clock stood far ahead does not count yet. When there is no other, two times of
        # the same clock contradict each other: which one is right only a time source can say.
        begun = [one for one in found if one.certificate.not_valid_before_utc <= clock.now]
        made_at = min((one.certificate.not_valid_before_utc for one in found), default=EARLIEST)
        if clock.now < EARLIEST or (found and not begun and not clock.synced):
            raise LinesideError(
                "opcua.clock_not_set",
                f"This box's clock says {clock.now:%Y-%m-%d %H:%M} UTC, which is before {_day(max(made_at, EARLIEST))}:"
                " it cannot tell which certificates are valid.",
                effect=NOT_CONNECTED,
                todo="Set the clock, or connect the box to its time server; it then connects by itself.",
            )
        valid = [one for one in begun if one.certificate.not_valid_after_utc > clock.now]
        if renew or not valid or valid[0].certificate.not_valid_after_utc - clock.now < RENEW_BEFORE:
            number = int(found[0].file.stem) + 1 if found else 1
            valid.insert(0, self._make_own(box, clock, number))
        return tuple(valid)

    def _make_own(self, box: str, clock: BoxClock, number: int) -> Own:
        key = rsa.generate_private_key(public_exponent=65537, key_size=OWN_BITS)
        certificate = _own_certificate(key, box, clock.now)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = self._made("own") / f"{number:06}.pem"
        try:
            _put(file, pem + certificate.public_bytes(Encoding.PEM), 0o600, replace=False)
        except FileExistsError:
            pass  # another connection of this box was first: it is the box's certificate
        return _own_in(file)

    # Files ----------------------------------------------------------------------------------------------------

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        for one in (self.folder, folder):
            if not one.is_dir():
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
                _give(one)
        return folder

    def _files(self, name: str) -> list[Path]:
        folder = self.folder / name
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in _ENDINGS)
        if len(files) > FILES_MAX:
            raise LinesideError(
                "opcua.too_many_files",
                f"{folder} holds more than {FILES_MAX} files.",
                effect=NOT_CONNECTED,
                todo="Remove what is not needed; trust the authority instead of each server.",
            )
        return files

    def _certificates(self, name: str) -> Iterator[x509.Certificate]:
        return (read_certificate(file) for file in self._files(name))

    def _lists(self) -> Iterator[x509.CertificateRevocationList]:
        for file in self._files("crl"):
            found = read_file(file)
            if isinstance(found, x509.CertificateRevocationList):
                yield found


def read_file(file: Path) -> x509.Certificate | x509.CertificateRevocationList:
    """The first certificate or revocation list in a file, PEM or DER. Raises `opcua.certificate_file`."""
    data = _bytes_in(file)
    readers: list[Callable[[bytes], x509.Certificate | x509.CertificateRevocationList]] = (
        [x509.load_pem_x509_certificate, x509.load_pem_x509_crl]
        if b"-----BEGIN " in data
        else [x509.load_der_x509_certificate, x509.load_der_x509_crl]
    )
    for read in readers:
        with suppress(*_UNREADABLE):  # then it is the other kind, or neither
            return read(data)
    raise LinesideError(
        "opcua.certificate_file",
        f"{file} holds neither a certificate nor a revocation list.",
        todo="Give a certificate (.der, .crt, .pem) or a revocation list (.crl), and remove it from state/pki.",
        place=Place(str(file)),
    )


def read_private_key(file: Path) -> rsa.RSAPrivateKey:
    """An RSA key in a file that nobody else may read. Raises `opcua.secret_open`, `opcua.key_file`."""
    try:
        key = _loaded(read_secret(file))
    except _UNREADABLE:
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise LinesideError(
            "opcua.key_file",
            f"{file} holds no RSA private key without a password.",
            todo="Give the key in PEM or DER form, unencrypted, in a file with mode 0600.",
            place=Place(str(file)),
        )
    return key


@lru_cache(maxsize=4)
def _loaded(data: bytes) -> PrivateKeyTypes:
    """Remembered, because checking a key takes 0.1 s, and a connection that is lost tries again and again."""
    return load_pem_private_key(data, None) if b"-----BEGIN " in data else load_der_private_key(data, None)


def read_secret(file: Path) -> bytes:
    """What a file of mode 0600 holds. Raises `opcua.secret_open` when others may read it."""
    data, mode = _bytes_in(file), file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LinesideError(
            "opcua.secret_open",
            f"The secret {file} is open to other accounts (mode {stat.S_IMODE(mode):04o}).",
            effect=NOT_CONNECTED,
            todo=f"Run: chmod 600 {file}. If another person may have read it, change the secret at the server.",
            place=Place(str(file)),
        )
    return data


# Certificates --------------------------------------------------------------------------------------------------


def _split(blob: bytes) -> list[x509.Certificate]:
    """The certificates in a chain of DER forms. Raises ValueError for anything else."""
    if not 0 < len(blob) <= CERTIFICATE_BYTES_MAX * CHAIN_MAX:
        raise ValueError("there is none, or it is too large")
    found: list[x509.Certificate] = []
    while blob and len(found) < CHAIN_MAX:
        if len(blob) < 4 or blob[:2] != b"\x30\x82":
            raise ValueError("it is not in DER form")
        size = int.from_bytes(blob[2:4], "big") + 4
        found.append(x509.load_der_x509_certificate(blob[:size]))
        blob = blob[size:]
    return found


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return isinstance(key, rsa.RSAPublicKey) and crl.issuer == issuer.subject and crl.is_signature_valid(key)


def _issuer_of(certificate: x509.Certificate, known: Iterable[x509.Certificate]) -> x509.Certificate | None:
    if certificate.issuer == certificate.subject:
        return None
    for candidate in known:
        if candidate.subject == certificate.issuer:
            with suppress(InvalidSignature, *_UNREADABLE):  # of the same name, but another key
                certificate.verify_directly_issued_by(candidate)
                return candidate
    return None


ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names(certificate: x509.Certificate, kind: type[x509.UniformResourceIdentifier | x509.DNSName]) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else names.get_values_for_type(kind)


def _hosts(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    addresses = [] if names is None else names.get_values_for_type(x509.IPAddress)
    return [*_names(certificate, x509.DNSName), *map(str, addresses)]


def _names_host(certificate: x509.Certificate, host: str) -> bool:
    try:
        wanted = str(ipaddress.ip_address(host))
    except ValueError:
        wanted = host.rstrip(".").lower()
    return wanted in {name.rstrip(".").lower() for name in _hosts(certificate)}


def _is_authority(certificate: x509.Certificate) -> bool:
    basic = _extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def _for_a_server(certificate: x509.Certificate) -> bool:
    usage, extended = _extension(certificate, x509.KeyUsage), _extension(certificate, x509.ExtendedKeyUsage)
    may_sign = usage is None or (usage.digital_signature and usage.key_encipherment)
    return may_sign and (extended is None or ExtendedKeyUsageOID.SERVER_AUTH in extended)


def _named(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = common[0].value if common else name.rfc4514_string()
    shown = "".join(c if c.isprintable() else "?" for c in (text if isinstance(text, str) else text.decode("latin-1")))
    return shown[:80] or "(no name)"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _unreadable(what: str, error: BaseException) -> LinesideError:
    return LinesideError(
        "opcua.certificate_unreadable",
        f"{what} cannot be read ({str(error)[:120] or type(error).__name__}).",
        effect=NOT_CONNECTED,
        todo="Ask who runs the server for an application certificate in X.509 form.",
    )


def _weakness(certificate: x509.Certificate, name: str) -> Iterator[LinesideError]:
    key, used = certificate.public_key(), certificate.signature_hash_algorithm
    weak = []
    if not isinstance(key, rsa.RSAPublicKey):
        weak.append("has no RSA key")
    elif key.key_size < RSA_BITS_MIN:
        weak.append(f"has a key of {key.key_size} bits")
    if used is None or used.name not in _HASHES:
        weak.append(f"is signed with {used.name.upper() if used else 'an unknown method'}")
    if weak:
        yield LinesideError(
            "opcua.weak",
            f"The certificate of {name} {' and '.join(weak)}: it can be forged.",
            effect=NOT_CONNECTED,
            todo=f"Ask who runs the server for a new one: RSA with {RSA_BITS_MIN} bits or more, signed with SHA-256.",
        )


def _doubt(clock: BoxClock) -> str:
    """What is said beside a date that does not hold, where nobody knows whether the clock is right."""
    return "" if clock.synced else f" This box's clock says {_day(clock.now)}, and no time source sets it."


def _outdated(certificate: x509.Certificate, name: str, clock: BoxClock) -> Iterator[LinesideError]:
    doubt = _doubt(clock)
    if clock.now > certificate.not_valid_after_utc:
        yield LinesideError(
            "opcua.expired",
            f"The certificate of {name} expired on {_day(certificate.not_valid_after_utc)}.{doubt}",
            effect=NOT_CONNECTED,
            todo="Ask who runs the server for a new certificate, and look whether this box's clock is right.",
        )
    elif clock.now < certificate.not_valid_before_utc:
        yield LinesideError(
            "opcua.not_yet_valid",
            f"The certificate of {name} is valid from {_day(certificate.not_valid_before_utc)} on only.{doubt}",
            effect=NOT_CONNECTED,
            todo="Look whether the clocks of the server and of this box are right.",
        )


def _not_trusted(leaf: x509.Certificate, last: x509.Certificate) -> LinesideError:
    shown = f"SHA-256 {fingerprint(leaf)}"
    if leaf.issuer == leaf.subject:
        return LinesideError(
            "opcua.untrusted",
            f"The server shows a certificate that it made itself, {_named(leaf.subject)}, which nobody trusted here.",
            effect=NOT_CONNECTED,
            todo=f"Compare the fingerprint at the server ({shown}), then: lineside equipment trust DEVICE",
        )
    return LinesideError(
        "opcua.unknown_issuer",
        f"The certificate of {_named(leaf.subject)} comes from {_named(last.issuer)}, which nobody trusted here.",
        effect=NOT_CONNECTED,
        todo="Trust the authority: lineside equipment trust AUTHORITY.der. Or this one server, after comparing its "
        f"fingerprint ({shown}): lineside equipment trust DEVICE",
    )


def _bad_issuer(issuer: x509.Certificate, below: int, clock: BoxClock) -> Iterator[LinesideError]:
    """What keeps an authority from vouching. `below`: how many authorities stand between it and the server."""
    basic, usage = _extension(issuer, x509.BasicConstraints), _extension(issuer, x509.KeyUsage)
    wrong = []
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        wrong.append("is no authority")
    elif basic.path_length is not None and basic.path_length < below:
        wrong.append("may not have further authorities below it")
    if any(one.critical and not isinstance(one.value, _KNOWN_OF_ISSUERS) for one in issuer.extensions):
        wrong.append("is bound by conditions that Lineside does not know")
    doubt = ""
    if not issuer.not_valid_before_utc <= clock.now <= issuer.not_valid_after_utc:
        wrong.append(f"is valid from {_day(issuer.not_valid_before_utc)} to {_day(issuer.not_valid_after_utc)} only")
        doubt = _doubt(clock)
    if next(_weakness(issuer, ""), None) is not None:
        wrong.append("has a key or a signature that can be forged")
    if wrong:
        yield LinesideError(
            "opcua.bad_issuer",
            f"{_named(issuer.subject)}, which issued a certificate, {' and '.join(wrong)}.{doubt}",
            effect=NOT_CONNECTED,
            todo="Ask who runs the authority; until then compare the server's own fingerprint and trust that.",
        )


def _own_certificate(key: rsa.RSAPrivateKey, box: str, now: datetime) -> x509.Certificate:
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Lineside {box}"[:64])])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a server whose clock is a little late must take it, too
        .not_valid_after(now + timedelta(days=365 * OWN_YEARS))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(own_uri(box)), x509.DNSName(host)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def rejected_as(endpoint: str) -> str:
    """How the files of refused certificates of the server at `endpoint` begin."""
    return urlsplit(endpoint).netloc


def own_uri(box: str) -> str:
    """The name under which servers know this box."""
    return f"urn:lineside:box:{box}"


# Files ---------------------------------------------------------------------------------------------------------


def _own_in(file: Path) -> Own:
    key, certificate = read_private_key(file), read_certificate(file)
    if certificate.public_key() != key.public_key() or not file.stem.isdecimal():
        raise LinesideError(
            "opcua.own_key",
            f"{file} does not hold a key and its certificate.",
            effect=NOT_CONNECTED,
            todo="Restore the file. Or remove it: this box then makes a new certificate, which servers must trust.",
            place=Place(str(file)),
        )
    return Own(key, certificate, file)


def read_certificate(file: Path) -> x509.Certificate:
    """The certificate in a file, PEM or DER. Raises `opcua.certificate_file`, `opcua.not_a_certificate`."""
    found = read_file(file)
    if not isinstance(found, x509.Certificate):
        raise LinesideError(
            "opcua.not_a_certificate",
            f"{file} holds a revocation list, not a certificate.",
            effect=NOT_CONNECTED,
            todo="Put revocation lists into state/pki/crl, with: lineside equipment trust FILE",
            place=Place(str(file)),
        )
    return found


def _bytes_in(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise LinesideError(
            "opcua.file_missing",
            f"{file} cannot be read: {error.strerror}.",
            effect=NOT_CONNECTED,
            todo="Name a file that is there, and that the account of Lineside may read.",
            place=Place(str(file)),
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise LinesideError(
            "opcua.file_too_large",
            f"{file} is larger than {FILE_BYTES_MAX // 1024} KiB.",
            effect=NOT_CONNECTED,
            todo="Look whether it is the right file.",
            place=Place(str(file)),
        )
    return data


def _put(file: Path, data: bytes, mode: int, *, replace: bool = True) -> None:
    """Durable and whole, or not at all. Raises FileExistsError when it is there and may not be replaced."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _give(partial)
        if replace:
            partial.replace(file)
        else:
            os.link(partial, file)  # a link never replaces what is there
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give(path: Path) -> None:
    """Whoever makes it, the account that owns the folder must read it."""
    owner = path.parent.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)[:80]
