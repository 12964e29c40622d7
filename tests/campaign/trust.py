"""Row 10 for certificates: what is believed, refused and said when this box's clock is wrong."""

from __future__ import annotations

import random
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from drivers import opcua_trust
from drivers.opcua_trust import EARLIEST, BoxClock, Pki
from edge import mqtt
from edge.core.errors import LinesideError
from tests.campaign import Part, Tally, planted
from tests.campaign.clocks import JUMPS
from tests.contract.certificates import DAY, SERVER_URI, Signed, crl, make

YEAR: Final = 365 * DAY
VALID: Final = (
    *((-30 * DAY, YEAR),) * 3,
    (-YEAR, -DAY),
    (-YEAR, timedelta(minutes=90)),
    (-YEAR, timedelta(minutes=-90)),
    (timedelta(minutes=90), YEAR),
    (timedelta(minutes=-90), YEAR),
    (-YEAR, 2 * DAY),
    (2 * DAY, YEAR),
    (-58 * YEAR, -50 * YEAR),
    (11 * YEAR, 14 * YEAR),
    (-30 * YEAR, 60 * YEAR),
)
"""From when until when a certificate is valid, seen from the true time: also where only a false clock would take it."""
OFFS: Final = (*JUMPS, timedelta(), timedelta())
HOST: Final = "127.0.0.1"
GENERATE: Final = rsa.generate_private_key


@cache
def key(number: int) -> rsa.RSAPrivateKey:
    del number
    return GENERATE(public_exponent=65537, key_size=2048)


@contextmanager
def quick_keys() -> Iterator[None]:
    """The box's own keys of one seed are those of the next: making one takes a while."""
    made = iter(range(1_000))

    def known(**_: int) -> rsa.RSAPrivateKey:
        return key(next(made))

    with mock.patch.object(opcua_trust.rsa, "generate_private_key", known):
        yield


@dataclass(frozen=True)
class Held:
    """A certificate, or a chain, with what is true of its dates."""

    leaf: Signed
    authority: Signed | None

    def outside(self, now: datetime) -> tuple[bool, bool]:
        """Whether `now` is outside the dates of the certificate, and of its authority."""
        return _outside(self.leaf, now), self.authority is not None and _outside(self.authority, now)

    @property
    def der(self) -> bytes:
        return self.leaf.der + (self.authority.der if self.authority else b"")


def _outside(one: Signed, now: datetime) -> bool:
    return not one.certificate.not_valid_before_utc <= now <= one.certificate.not_valid_after_utc


def drawn(chance: random.Random, shift: timedelta = timedelta()) -> Held:
    """A certificate with an authority or without one, all dates moved by `shift`."""

    def valid() -> tuple[timedelta, timedelta]:
        begins, ends = chance.choice(VALID)
        return begins + shift, ends + shift

    authority = make("authority", ca=True, valid=valid()) if chance.random() < 0.5 else None
    return Held(make("server", by=authority, valid=valid()), authority)


# OPC UA --------------------------------------------------------------------------------------------------------------


class Box:
    """One box, its folder of certificates, and a clock that is wrong at times."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.pki = random.Random(seed), Pki(folder / "pki")
        self.true = datetime.now(UTC)
        self.kept: bytes = b""
        """The own certificate that servers know since the clock was right."""

    def clock(self, off: timedelta, *, lies: bool) -> BoxClock:
        """What nobody sets is free, also when it is right by chance; one that lies says that it is set."""
        return BoxClock(self.true + off, lies or (not off and self.chance.random() < 0.5))

    def play(self, tally: Tally) -> None:
        for _ in range(6):
            for name in ("trusted", "crl"):
                shutil.rmtree(self.pki.folder / name, ignore_errors=True)
            held = drawn(self.chance)
            trusted = held.authority or held.leaf
            self.pki.trust(trusted.certificate)
            if held.authority and self.chance.random() < 0.7:
                self.pki.revoke(crl(held.authority, until=self.chance.choice([-DAY, 30 * DAY])))
            for off in self.chance.sample(OFFS, 4):
                self.connects(held, self.clock(off, lies=self.chance.random() < 0.2))
                tally.fault()
            self.comes_back()
        tally.fault()
        self.broker()

    def connects(self, held: Held, clock: BoxClock) -> None:
        """As the driver does: its own certificate first, then what the server shows."""
        try:
            own = self.pki.own("BOX-7", clock)
            remarks = self.pki.judge(held.der, host=HOST, uri=SERVER_URI, clock=clock, pinned=False, where="plc:4840")
        except LinesideError as refusal:
            self.judge_refusal(held, clock, [refusal, *refusal.others])
            return
        dates = held.leaf.certificate
        told = f"at {clock}, valid {dates.not_valid_before_utc} to {dates.not_valid_after_utc}"
        assert not any(held.outside(clock.now)), f"silently trusted {told}"
        assert clock.now >= EARLIEST, f"trusted by a clock that was never set {told}"
        said = "; ".join(remarks)
        assert clock.synced or "not synchronised" in said, f"silently trusted by a free clock {told}: {said}"
        assert not any(_outside(Signed(one.certificate, one.key), clock.now) for one in own), f"shows a bad one {told}"

    def judge_refusal(self, held: Held, clock: BoxClock, findings: list[LinesideError]) -> None:
        codes = {one.code for one in findings}
        leaf, authority = held.outside(clock.now)
        if codes == {"opcua.clock_not_set"}:
            assert clock.now < EARLIEST or not clock.synced, f"a clock that is set is refused: {findings} at {clock}"
            return
        over = clock.now > held.leaf.certificate.not_valid_after_utc
        wanted = {"opcua.expired" if over else "opcua.not_yet_valid"} if leaf else set()
        wanted |= {"opcua.bad_issuer"} if authority else set()
        assert codes == wanted, f"refused {codes}, not {wanted}, at {clock}"
        for one in findings:
            doubt = "no time source sets it" in one.what
            assert doubt is not clock.synced, f"nobody says that the clock may be wrong: {one.what}"

    def comes_back(self) -> None:
        """A time source sets the clock: the box has a certificate, and the one that servers know is still there."""
        with_source = BoxClock(self.true, synced=True)
        own = self.pki.own("BOX-7", with_source)
        shown = [one.certificate.public_bytes(Encoding.DER) for one in own]
        assert not any(_outside(Signed(one.certificate, one.key), self.true) for one in own), "shows a bad one"
        assert not self.kept or self.kept in shown, "the certificate that servers know is gone after a false clock"
        self.kept = self.kept or shown[0]

    # The broker of the hub -------------------------------------------------------------------------------------------

    def broker(self) -> None:
        """TLS by the system's library, whose clock is the machine's: here the dates move instead of the clock."""
        off = self.chance.choice(OFFS)
        held = drawn(self.chance, -off)
        error = shaken_hands(held, self.pki.folder.parent)
        dated = any(held.outside(self.true))
        if error is None:
            assert not dated, f"a broker is trusted whose certificate is out of date, {off} off"
            return
        assert dated, f"a broker is refused whose certificate holds, {off} off: {error}"
        said = mqtt.clock_in_question(error)
        assert "This machine's clock says" in said, f"nobody says that the clock may be wrong: {error}{said}"


def shaken_hands(held: Held, folder: Path) -> ssl.SSLError | None:
    """The box as a client of a broker with this certificate; why not, when it does not trust it."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, chain = folder / "ca.pem", folder / "broker.pem"
    ca.write_bytes((held.authority or held.leaf).certificate.public_bytes(Encoding.PEM))
    chain.write_bytes(held.leaf.key_pem + held.leaf.certificate.public_bytes(Encoding.PEM))
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(chain)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    box = mqtt._tls(ca).wrap_bio(down, up, server_hostname=HOST)
    broker = there.wrap_bio(up, down, server_side=True)
    for _ in range(10):
        try:
            box.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error
        else:
            return None
        try:
            broker.do_handshake()
        except ssl.SSLWantReadError:
            pass
    raise AssertionError("the two never came to an end")


async def believe(seed: int, folder: Path, tally: Tally) -> None:
    with quick_keys():
        Box(seed, folder).play(tally)


def anything(*_: Any) -> Iterator[LinesideError]:
    """Planted: dates are not looked at."""
    return iter(())


def without_doubt(clock: BoxClock) -> str:
    """Planted: the clock is above suspicion."""
    del clock
    return ""


def as_if_set(self: Pki, *facts: Any, clock: BoxClock, **more: Any) -> tuple[str, ...]:
    """Planted: a free clock is believed as one that a time source sets."""
    return JUDGE(self, *facts, clock=BoxClock(clock.now, synced=True), **more)


JUDGE: Final = Pki.judge
OWN: Final = Pki.own


def newest(self: Pki, box: str, clock: BoxClock, *, renew: bool = False) -> tuple[opcua_trust.Own, ...]:
    """Planted: the newest certificate of the box's own says what the time is at least."""
    files = sorted((self.folder / "own").glob("*.pem"))
    made = [opcua_trust._own_in(file).certificate.not_valid_before_utc for file in files]
    return OWN(
        self,
        box,
        BoxClock(max([EARLIEST, *made]) - DAY, synced=False) if made and clock.now < max(made) else clock,
        renew=renew,
    )


def any_date(ca: Path) -> ssl.SSLContext:
    """Planted: the broker's dates are not looked at."""
    context = TLS(ca)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


TLS: Final[Callable[[Path], ssl.SSLContext]] = mqtt._tls

CERTIFICATES = Part(
    10,
    "certificates",
    "this box's clock off, at 1970 or 2038, free or lying, when OPC UA servers and brokers show certificates",
    gate=50,
    full=5_000,
    inject=believe,
    planted={
        "dates are not looked at": planted(believe, "silently trusted", {"drivers.opcua_trust._outdated": anything}),
        "an authority's dates are not looked at": planted(
            believe, "silently trusted", {"drivers.opcua_trust._bad_issuer": anything}
        ),
        "a free clock is above suspicion": planted(
            believe, "nobody says that the clock", {"drivers.opcua_trust._doubt": without_doubt}
        ),
        "a free clock is believed without a word": planted(
            believe, "silently trusted by a free clock|nobody says", {"drivers.opcua_trust.Pki.judge": as_if_set}
        ),
        "a clock that once was ahead keeps the box from connecting": planted(
            believe, "clock_not_set|a clock that is set is refused", {"drivers.opcua_trust.Pki.own": newest}
        ),
        "the broker's certificate is not looked at": planted(
            believe, "a broker is trusted", {"edge.mqtt._tls": any_date}
        ),
    },
)
