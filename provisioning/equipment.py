"""What an engineer does with a device before a recipe does: look at what it offers, and say which certificates are
believed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from drivers.opcua_trust import (
    RENEW_BEFORE,
    BoxClock,
    Pki,
    Shown,
    read_certificate,
    read_file,
    read_fingerprint,
    rejected_as,
    show,
)
from edge.config import Config
from edge.core.errors import LinesideError, Place
from edge.core.plant import Connection, Plant, read_plant
from edge.core.terms import Reading
from edge.equipment import Equipment, Found, Health, Home, installed_drivers
from edge.identity import make_folder
from edge.library import read_bounded

SHOWN_MAX: Final = 200
PATIENCE: Final = 4
"""So many time-outs of the connection long the first answer is waited for."""


@dataclass(frozen=True, slots=True)
class Station:
    """Where an engineer works: the box's settings, its clocks, and what drivers may know of it."""

    config: Config
    home: Home
    now_s: Callable[[], float]
    utc: Callable[[], str]


def connection_of(config: Config, device: str) -> tuple[Plant, Connection]:
    """The plant, and its connection of this name. Raises `equipment.no_connection`."""
    plant = read_plant(read_bounded(config.plant), str(config.plant))
    connection = plant.connections.get(device)
    if connection is None:
        raise LinesideError(
            "equipment.no_connection",
            f"The plant file has no connection {device[:64]!r}.",
            todo=f"Use one of: {', '.join(plant.connections) or 'none is there'}.",
            place=Place(str(config.plant)),
        )
    return plant, connection


# Looking at a device ---------------------------------------------------------------------------------------------


async def found_at(station: Station, device: str, text: str) -> tuple[list[Found], str]:
    """What the device offers with `text` in name or address, and what is to be remarked about the connection.

    It takes a session of its own at the device for a moment. Raises why there is no connection.
    """
    plant, connection = connection_of(station.config, device)
    alone = plant.model_copy(update={"connections": {device: connection}, "units": {}})
    async with connected(station, alone, device) as equipment:
        return await equipment.browse(device, text), equipment.health()[device].remark


@asynccontextmanager
async def connected(
    station: Station,
    plant: Plant,
    device: str,
    on_reading: Callable[[str, Reading], None] = lambda _tag, _reading: None,
) -> AsyncIterator[Equipment]:
    """The equipment of the plant, once this device is connected. Raises why it is not."""
    changed = asyncio.Event()
    equipment = Equipment(
        plant,
        installed_drivers(),
        now_s=station.now_s,
        utc=station.utc,
        on_change=changed.set,
        on_reading=on_reading,
        home=station.home,
    )
    before = equipment.health()[device]
    async with equipment:
        await equipment.watch(plant.tags())
        try:
            async with asyncio.timeout(PATIENCE * plant.connections[device].timeout_s):
                while equipment.health()[device] == before:
                    await changed.wait()
                    changed.clear()
                    equipment.take_changed()
        except TimeoutError:
            pass  # said below, by what the driver says of itself
        health = equipment.health()[device]
        if not health.connected:
            raise health.refusal or _away(device, health)
        yield equipment


def _away(device: str, health: Health) -> LinesideError:
    return LinesideError(
        "equipment.away",
        f"{device} is not connected: {health.detail}",
        todo="Look at the device, its network, and the connection in the plant file.",
    )


def write_found(found: list[Found], remark: str, *, as_json: bool) -> None:
    """Say what was found, at most SHOWN_MAX lines for a person, all of it for a machine."""
    if as_json:
        sys.stdout.write(json.dumps({"remark": remark, "found": [asdict(one) for one in found]}) + "\n")
        return
    if remark:
        sys.stdout.write(f"Note: {remark}.\n")
    for one in found[:SHOWN_MAX]:
        sys.stdout.write(f"{one.address}  {one.name}  {one.type}  {'write' if one.writable else 'read'}\n")
    if len(found) > SHOWN_MAX:
        sys.stdout.write(f"... and {len(found) - SHOWN_MAX} more: give a text to look for, or --json.\n")
    if not found:
        sys.stdout.write("Nothing found.\n")


# Certificates ------------------------------------------------------------------------------------------------------


def pki_of(config: Config) -> Pki:
    make_folder(config.state_dir)
    return Pki(config.state_dir / "pki")


def trust_at_terminal(config: Config, what: str, fingerprint: str, *, issuer: bool) -> None:
    """Trust the certificate in a file, or the last one of a device that was refused, after it was compared: its
    fingerprint is given, or a person at the terminal says yes. A revocation list is kept instead."""
    pki = pki_of(config)
    file = Path(what) if Path(what).is_file() else last_refused(pki, what, connection_of(config, what)[1])
    trust_file(pki, file, fingerprint, issuer=issuer)


def trust_file(pki: Pki, file: Path, fingerprint: str, *, issuer: bool = False) -> None:
    """Trust what is in a file, after it was compared, as `trust_at_terminal`."""
    found = read_file(file)
    if isinstance(found, x509.CertificateRevocationList):
        sys.stdout.write(f"Kept as {pki.revoke(found)}: {len(found)} certificates are revoked.\n")
        return
    shown = show(found, file)
    sys.stdout.write("".join(f"{line}\n" for line in shown.lines()))
    if fingerprint:
        if read_fingerprint(fingerprint) != shown.fingerprint:
            raise LinesideError(
                "opcua.other_fingerprint",
                "The fingerprint that was given is not that of this certificate.",
                todo="Compare both with what the server itself shows. Trust neither until you know why they differ.",
            )
    elif not _said_yes():
        raise LinesideError(
            "opcua.not_compared",
            "Nobody said that the fingerprint is what the server itself shows.",
            todo="Look at the server, then answer yes; or give what it shows: --fingerprint HEX",
        )
    kept = pki.trust(found, issuer=issuer)
    sys.stdout.write(f"{'Known' if issuer else 'Trusted'} from the next connect on: {kept}\n")


def _said_yes() -> bool:
    sys.stdout.write("Is this the fingerprint that the server itself shows? Type yes: ")
    sys.stdout.flush()
    return sys.stdin.readline(16).strip() == "yes"


def last_refused(pki: Pki, device: str, connection: Connection) -> Path:
    """The certificate of the device that was refused last. Raises `opcua.none_refused`."""
    refused = pki.rejected(rejected_as(str(connection.settings.get("endpoint", ""))))
    if not refused:
        raise LinesideError(
            "opcua.none_refused",
            f"No certificate of {device} was refused.",
            todo=f"Connect first: lineside equipment browse {device}. Or give the certificate as a file.",
        )
    return refused[0]


def certificate_at_terminal(
    config: Config, clock: BoxClock, *, renew: bool, export: Path | None, as_json: bool
) -> None:
    """Show this box's own certificate, and what it trusts and refused; makes the first one, or with `renew` a new one.
    `export` writes it as a file for a server."""
    pki = pki_of(config)
    own = pki.own(config.box, clock, renew=renew)
    if export is not None:
        try:
            export.write_bytes(own[0].der)
        except OSError as error:
            raise LinesideError(
                "opcua.cannot_export",
                f"{export} cannot be written: {error.strerror}.",
                todo="Name a file in a folder that exists and that you may write to.",
            ) from error
    mine = [show(one.certificate, one.file) for one in own]
    trusted = [show(one, file) for one, file in pki.trusted()]
    refused = [show(read_certificate(file), file) for file in pki.rejected()]
    if as_json:
        groups = {"own": mine, "trusted": trusted, "rejected": refused}
        sys.stdout.write(json.dumps({name: [asdict(one) for one in group] for name, group in groups.items()}) + "\n")
        return
    left = own[0].certificate.not_valid_after_utc - clock.now
    sys.stdout.write("".join(f"{line}\n" for line in _lines(mine, trusted, refused)))
    sys.stdout.write(f"Valid for {left.days} days more; a new one is made {RENEW_BEFORE.days} days before.\n")
    if export is not None:
        sys.stdout.write(f"Written to {export}: trust it at the server.\n")


def _lines(mine: list[Shown], trusted: list[Shown], refused: list[Shown]) -> Iterator[str]:
    for title, group in (("This box", mine), ("Trusted", trusted), ("Refused, newest first", refused)):
        if group:
            yield f"{title}:"
            for one in group:
                yield from one.lines()
