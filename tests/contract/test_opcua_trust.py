"""Which servers are believed: every kind of certificate that is not, by code; and this box's own."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers import opcua_trust
from drivers.opcua_trust import (
    OWN_YEARS,
    REJECTED_MAX,
    RENEW_BEFORE,
    BoxClock,
    Pki,
    fingerprint,
    read_file,
    read_fingerprint,
    read_private_key,
    show,
)
from edge.core.errors import LinesideError
from tests.contract.certificates import DAY, SERVER_URI, Signed, crl, key, make


def clock(after: timedelta = timedelta(), *, synced: bool = True) -> BoxClock:
    return BoxClock(datetime.now(UTC) + after, synced)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def judged(
    pki: Pki, shown: bytes, *, host: str = "127.0.0.1", uri: str = SERVER_URI, pinned: bool = False
) -> list[str]:
    """The codes of what is wrong, the first first."""
    try:
        pki.judge(shown, host=host, uri=uri, clock=clock(), pinned=pinned, where="plc:4840")
    except LinesideError as refusal:
        assert refusal.todo
        assert "nothing is written" in refusal.effect
        return [refusal.code, *(other.code for other in refusal.others)]
    return []


GOOD = make("good")
AUTHORITY = make("authority", ca=True)
OTHER = make("other authority", ca=True)


def test_a_certificate_that_an_engineer_trusted_is_believed(pki: Pki) -> None:
    pki.trust(GOOD.certificate)
    assert judged(pki, GOOD.der) == []
    assert judged(pki, GOOD.der, host="LOCALHOST.") == []
    assert not pki.rejected()


BAD: dict[str, Callable[[], Signed]] = {
    "opcua.expired": lambda: make("good", valid=(-2 * DAY, -DAY)),
    "opcua.not_yet_valid": lambda: make("good", valid=(DAY, 2 * DAY)),
    "opcua.wrong_host": lambda: make("good", hosts=("plc-8", "10.0.0.8")),
    "opcua.wrong_uri": lambda: make("good", uri="urn:another:server"),
    "opcua.wrong_use": lambda: make("good", use=ExtendedKeyUsageOID.CLIENT_AUTH),
    "opcua.weak": lambda: make("weak", bits=1024),
}


@pytest.mark.parametrize("code", BAD)
def test_a_bad_certificate_is_refused_although_it_is_trusted(code: str, pki: Pki) -> None:
    bad = BAD[code]()
    pki.trust(bad.certificate)
    assert judged(pki, bad.der) == [code]
    assert [read_file(file) for file in pki.rejected("plc:4840")] == [bad.certificate]


def test_who_signed_it_matters(pki: Pki) -> None:
    middle = make("middle", by=AUTHORITY, ca=True, path_length=0)
    leaf, deep = make("leaf", by=AUTHORITY), make("leaf", by=middle)
    assert judged(pki, GOOD.der) == ["opcua.untrusted"]
    assert judged(pki, leaf.der) == ["opcua.unknown_issuer"]
    assert judged(pki, leaf.der + AUTHORITY.der) == ["opcua.unknown_issuer"], (
        "what a server brings along proves nothing"
    )
    pki.trust(OTHER.certificate)
    assert judged(pki, leaf.der) == ["opcua.unknown_issuer"]
    pki.trust(AUTHORITY.certificate, issuer=True)
    assert judged(pki, leaf.der) == ["opcua.unknown_issuer"], "an authority that is merely known does not vouch"
    pki.trust(AUTHORITY.certificate)
    assert judged(pki, leaf.der) == []
    assert judged(pki, deep.der) == ["opcua.unknown_issuer"]
    assert judged(pki, deep.der + middle.der) == []
    pki.trust(middle.certificate, issuer=True)
    assert judged(pki, deep.der) == []


def test_of_the_same_name_but_with_another_key_is_not_the_authority(pki: Pki) -> None:
    pki.trust(AUTHORITY.certificate)
    false = Signed(make("authority", ca=True).certificate, key("someone else's"))
    forged = make("leaf", by=false)
    assert judged(pki, forged.der) == ["opcua.unknown_issuer"]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: make("bad authority", ca=False),
        lambda: make("bad authority", ca=True, valid=(-3 * DAY, -DAY)),
        lambda: make("weak authority", ca=True, bits=1024),
        lambda: make("bad authority", ca=True, extra=x509.InhibitAnyPolicy(0)),
    ],
    ids=["no authority", "expired", "weak", "conditions"],
)
def test_an_authority_that_may_not_vouch(bad: Callable[[], Signed], pki: Pki) -> None:
    authority = bad()
    pki.trust(authority.certificate)
    assert judged(pki, make("leaf", by=authority).der) == ["opcua.bad_issuer"]


def test_an_authority_may_not_have_more_below_it_than_it_was_given(pki: Pki) -> None:
    top = make("top", ca=True, path_length=0)
    middle = make("middle", by=top, ca=True)
    pki.trust(top.certificate)
    assert judged(pki, make("leaf", by=top).der) == []
    assert judged(pki, make("leaf", by=middle).der + middle.der) == ["opcua.bad_issuer"]


def test_what_its_authority_revoked_is_refused_also_when_it_is_trusted_itself(pki: Pki) -> None:
    leaf = make("leaf", by=AUTHORITY, serial=4711)
    with pytest.raises(LinesideError, match=r"opcua\.crl_unknown"):
        pki.revoke(crl(AUTHORITY, 4711))
    pki.trust(AUTHORITY.certificate)
    pki.revoke(crl(AUTHORITY, 1))
    assert judged(pki, leaf.der) == []
    pki.revoke(crl(AUTHORITY, 4711))
    assert judged(pki, leaf.der) == ["opcua.revoked"]
    pki.trust(leaf.certificate)
    assert judged(pki, leaf.der) == ["opcua.revoked"]
    with pytest.raises(LinesideError, match=r"opcua\.crl_unknown"):
        pki.revoke(crl(Signed(AUTHORITY.certificate, key("someone else's"))))


def remarks(pki: Pki, shown: bytes, now: BoxClock) -> str:
    return "; ".join(pki.judge(shown, host="127.0.0.1", uri=SERVER_URI, clock=now, pinned=False, where="plc:4840"))


def test_what_is_believed_with_a_doubt_is_said(pki: Pki) -> None:
    leaf = make("leaf", by=AUTHORITY, valid=(-DAY, 20 * DAY))
    pki.trust(AUTHORITY.certificate)
    assert "no revocation list of authority" in remarks(pki, leaf.der, clock())
    pki.revoke(crl(AUTHORITY, until=-DAY))
    said = remarks(pki, leaf.der, clock(synced=False))
    assert "out of date" in said
    assert "expires on" in said
    assert "not synchronised" in said


def test_a_refusal_by_a_clock_that_nobody_sets_says_so(pki: Pki) -> None:
    pki.trust(GOOD.certificate)
    with pytest.raises(LinesideError, match="no time source") as refusal:
        remarks(pki, GOOD.der, clock(400 * DAY, synced=False))
    assert refusal.value.code == "opcua.expired"


def test_a_pinned_certificate_need_not_name_the_host_but_all_else_holds(pki: Pki) -> None:
    bad = make("good", hosts=("plc-8",))
    with pytest.raises(LinesideError, match=r"opcua\.pin_missing"):
        pki.pinned(fingerprint(bad.certificate))
    pki.trust(bad.certificate)
    assert pki.pinned(fingerprint(bad.certificate)) == bad.der
    assert judged(pki, bad.der, pinned=True) == []
    assert judged(pki, make("good", hosts=("plc-8",), valid=(-2 * DAY, -DAY)).der, pinned=True) == [
        "opcua.untrusted",
        "opcua.expired",
    ]


def test_only_so_many_refused_certificates_are_kept_and_trusting_one_takes_it_out(pki: Pki) -> None:
    made = [make("good", serial=n) for n in range(1, REJECTED_MAX + 4)]
    for one in made:
        judged(pki, one.der)
    assert len(pki.rejected()) == REJECTED_MAX
    assert read_file(pki.rejected("plc:4840")[0]) == made[-1].certificate
    assert not pki.rejected("plc:4841")
    pki.trust(made[-1].certificate)
    assert read_file(pki.rejected()[0]) == made[-2].certificate


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, len(GOOD.der) - 1), st.integers(0, 255))))
def test_any_bytes_are_refused_in_words(pki: Pki, tried: bytes | tuple[int, int]) -> None:
    pki.trust(GOOD.certificate)
    if isinstance(tried, tuple):
        at, byte = tried
        shown = GOOD.der[:at] + bytes([byte]) + GOOD.der[at + 1 :]
    else:
        shown = tried
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of certificates that it still reads
        assert bool(judged(pki, shown)) == (shown != GOOD.der)


def test_planted_bugs_are_found(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust that is not asked for; a host that is not compared; a date that is not."""
    wrong = make("good", hosts=("plc-8",), valid=(-2 * DAY, -DAY))
    assert judged(pki, wrong.der) == ["opcua.untrusted", "opcua.expired", "opcua.wrong_host"]
    with monkeypatch.context() as bug:
        bug.setattr(Pki, "_distrust", lambda *_: iter(()))
        assert judged(pki, wrong.der) == ["opcua.expired", "opcua.wrong_host"]
    with monkeypatch.context() as bug:
        bug.setattr(opcua_trust, "_names_host", lambda *_: True)
        assert judged(pki, wrong.der) == ["opcua.untrusted", "opcua.expired"]
    with monkeypatch.context() as bug:
        bug.setattr(opcua_trust, "_outdated", lambda *_: iter(()))
        assert judged(pki, wrong.der) == ["opcua.untrusted", "opcua.wrong_host"]


# This box ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller keys than the product's: making one takes a while."""
    monkeypatch.setattr(opcua_trust, "OWN_BITS", 2048)


def test_this_box_has_a_certificate_of_its_own(pki: Pki) -> None:
    (own,) = pki.own("BOX-7", clock())
    assert own.key.key_size == 3072
    assert own.uri == "urn:lineside:box:BOX-7"
    assert isinstance(own.certificate.signature_hash_algorithm, hashes.SHA256)
    assert stat.S_IMODE(own.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.file.parent.stat().st_mode) == 0o700
    assert [one.der for one in pki.own("BOX-7", clock())] == [own.der]
    shown = show(own.certificate, own.file)
    assert shown.fingerprint == fingerprint(own.certificate)
    assert not shown.authority


@pytest.mark.usefixtures("quick")
def test_it_is_renewed_ahead_and_the_former_one_kept_until_it_ends(pki: Pki) -> None:
    (first,) = pki.own("BOX-7", clock())
    whole = timedelta(days=365 * OWN_YEARS)
    assert len(pki.own("BOX-7", clock(whole - RENEW_BEFORE - DAY))) == 1
    second, former = pki.own("BOX-7", clock(whole - RENEW_BEFORE + DAY))
    assert former.der == first.der
    assert second.key.public_key() != first.key.public_key()
    assert [one.der for one in pki.own("BOX-7", clock(whole + DAY))] == [second.der]
    assert len(pki.own("BOX-7", clock(whole - DAY), renew=True)) == 3


@pytest.mark.usefixtures("quick")
def test_a_clock_that_was_never_set_decides_nothing(pki: Pki) -> None:
    with pytest.raises(LinesideError, match=r"opcua\.clock_not_set"):
        pki.own("BOX-7", BoxClock(datetime(1970, 1, 2, tzinfo=UTC), synced=False))
    pki.own("BOX-7", clock())
    with pytest.raises(LinesideError, match=r"opcua\.clock_not_set"):
        pki.own("BOX-7", clock(-2 * DAY, synced=False))


@pytest.mark.usefixtures("quick")
def test_a_clock_that_once_stood_far_ahead_does_not_keep_the_box_from_connecting(pki: Pki) -> None:
    (first,) = pki.own("BOX-7", clock())
    (ahead,) = pki.own("BOX-7", clock(12 * 365 * DAY, synced=False))
    assert ahead.der != first.der
    assert [one.der for one in pki.own("BOX-7", clock())] == [first.der]
    assert [one.der for one in pki.own("BOX-7", clock(synced=False))] == [first.der]
    first.file.unlink()
    with pytest.raises(LinesideError, match=r"opcua\.clock_not_set"):
        pki.own("BOX-7", clock(synced=False))
    (anew,) = pki.own("BOX-7", clock())
    assert anew.der not in {first.der, ahead.der}


@pytest.mark.usefixtures("quick")
def test_a_key_that_others_could_read_is_not_used(pki: Pki, tmp_path: Path) -> None:
    (own,) = pki.own("BOX-7", clock())
    own.file.chmod(0o640)
    with pytest.raises(LinesideError, match=r"opcua\.secret_open"):
        pki.own("BOX-7", clock())
    own.file.chmod(0o600)
    own.file.write_bytes(GOOD.key_pem + own.der)
    with pytest.raises(LinesideError, match=r"opcua\.certificate_file"):
        pki.own("BOX-7", clock())
    (tmp_path / "text").write_text("no key")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(LinesideError, match=r"opcua\.key_file"):
        read_private_key(tmp_path / "text")
    with pytest.raises(LinesideError, match=r"opcua\.file_missing"):
        read_private_key(tmp_path / "nothing")


def test_fingerprints_as_people_write_them() -> None:
    digits = fingerprint(GOOD.certificate)
    with_colons = ":".join(digits[n : n + 2] for n in range(0, 64, 2)).upper()
    assert read_fingerprint(f" {with_colons}\n") == digits
    with pytest.raises(LinesideError, match=r"opcua\.fingerprint"):
        read_fingerprint(digits[:40])
