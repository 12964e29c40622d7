"""The commissioning report: what every tag reads, what was tried, which certificates are believed; signed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from drivers.opcua_trust import show
from edge.core.errors import LinesideError, Place
from edge.core.plant import Plant, Tag, read_plant
from edge.core.record import Signer, fingerprint, signature_holds
from edge.core.terms import Quality, Reading
from edge.equipment import Equipment, Health, installed_drivers
from edge.explorer import Where, explorer_of, shown
from edge.library import read_bounded, write_whole
from provisioning.equipment import PATIENCE, Station, pki_of
from provisioning.write_test import GOOD, WriteTest, kept

DOMAIN: Final = b"lineside.commissioning.1"
FORMAT: Final = 1
REPORT_BYTES_MAX: Final = 16 * 1024 * 1024
_CELL: Final = str.maketrans({"|": "/", "\n": " "})


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, the exact bytes that are signed, and the signature."""

    facts: dict[str, Any]
    device: str
    public: str
    signature: str

    @property
    def good(self) -> bool:
        """True when every tag read as the plant file says, and no last write test of a tag failed."""
        return not self.facts["not_as_expected"]

    def as_bytes(self) -> bytes:
        """The file."""
        whole = {"facts": self.facts, "device": self.device, "public_key": self.public, "signature": self.signature}
        return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _canonical(facts: dict[str, Any]) -> bytes:
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)


async def make_report(station: Station, signer: Signer, who: str) -> Report:
    """Read every tag of the plant once through its driver, and sign what was found."""
    data = read_bounded(station.config.plant)
    plant = read_plant(data, str(station.config.plant))
    begun = station.utc()
    readings, health = await _readings(station, plant)
    shown_tags = ((name, tag) for name, tag in plant.tags().items() if name in readings)
    tags = [_tag_facts(name, tag, readings[name], station.now_s()) for name, tag in shown_tags]
    tests = [test for test in kept(station.config.state_dir) if plant.tag(test.tag) is not None]
    wrong = [f"{one['tag']}: {one['finding']}" for one in tags if one["finding"]]
    wrong += [f"{test.tag}: {test.told().splitlines()[0]}" for test in _last(tests) if test.result not in GOOD]
    untried = [name for name, tag in plant.tags().items() if tag.access == "write" and name in readings]
    untried = [name for name in untried if name not in {test.tag for test in tests}]
    facts = {
        "format": FORMAT,
        "box": station.config.box,
        "plant": plant.plant,
        "plant_sha256": hashlib.sha256(data).hexdigest(),
        "who": shown(who),
        "host": platform.node(),
        "begun_utc": begun,
        "ended_utc": station.utc(),
        "clock_synced": station.home.synced(),
        "connections": [
            {
                "connection": name,
                "driver": one.driver,
                "connected": health[name].connected,
                "says": shown(health[name].words if not health[name].connected else health[name].detail),
                "remark": shown(health[name].remark),
                **await _shows(name, plant),
            }
            for name, one in plant.connections.items()
        ],
        "tags": tags,
        "write_tests": [asdict(test) for test in tests],
        "not_tried": untried,
        "trusted_certificates": _certificates(station),
        "not_as_expected": wrong,
    }
    return Report(facts, fingerprint(signer.public), signer.public.hex(), signer.sign(DOMAIN, _canonical(facts)).hex())


def _last(tests: Sequence[WriteTest]) -> list[WriteTest]:
    """The last test of each tag."""
    return list({test.tag: test for test in tests}.values())


async def _readings(station: Station, plant: Plant) -> tuple[dict[str, Reading], dict[str, Health]]:
    changed = asyncio.Event()
    equipment = Equipment(
        plant,
        installed_drivers(),
        now_s=station.now_s,
        utc=station.utc,
        on_change=changed.set,
        home=station.home,
    )
    before = equipment.health()
    async with equipment:
        await equipment.watch(plant.tags())
        patience_s = PATIENCE * max((one.timeout_s for one in plant.connections.values()), default=0.0)
        try:
            async with asyncio.timeout(patience_s):
                while any(health == before[name] for name, health in equipment.health().items()):
                    await changed.wait()
                    changed.clear()
                    equipment.take_changed()
        except TimeoutError:
            pass  # a connection that says nothing is found by the readings of its tags
        readings = {name: await equipment.read(name) for name, tag in plant.tags().items() if tag.method is None}
        return readings, equipment.health()


def _tag_facts(name: str, tag: Tag, reading: Reading, now_s: float) -> dict[str, Any]:
    """One tag against reality; `finding` says what is not as it should be."""
    age_s = max(0.0, now_s - reading.at_boottime_s)
    finding = ""
    if reading.quality is not Quality.GOOD:
        finding = f"{reading.quality.value}: {shown(reading.detail)}"
    return {
        "tag": name,
        "connection": tag.connection,
        "address": tag.address,
        "type": tag.type,
        "unit": tag.unit,
        "low": tag.low,
        "high": tag.high,
        "access": tag.access,
        "value": shown(reading.value) if isinstance(reading.value, str) else reading.value,
        "quality": reading.quality.value,
        "source_utc": reading.source_utc,
        "age_s": round(age_s, 3),
        "finding": finding,
    }


async def _shows(name: str, plant: Plant) -> dict[str, Any]:
    """The certificate that a server with an endpoint shows now."""
    connection = plant.connections[name]
    endpoint = str(connection.settings.get("endpoint", ""))
    host, _, port = endpoint.partition("://")[2].partition("/")[0].rpartition(":")
    explorer = explorer_of(connection.driver)
    if not host or not port.isdecimal() or explorer is None:
        return {}
    where = Where(host.strip("[]"), int(port), timeout_s=connection.timeout_s)
    seen = [dict(one.facts) for one in await explorer.probe(where, lambda _: None)]
    keys = ("certificate", "valid", "SHA-256", "SHA-1")
    return {"certificate": {key: one[key] for one in seen for key in keys if key in one}}


def _certificates(station: Station) -> list[dict[str, Any]]:
    shown_ones = (show(certificate, file) for certificate, file in pki_of(station.config).trusted())
    return [{**asdict(one), "file": Path(one.file).name} for one in shown_ones]


# Files ------------------------------------------------------------------------------------------------------------


def write_report(report: Report, file: Path) -> Path:
    """Write the report, and beside it the same for people. The path of that one."""
    text = file.with_suffix(".md")
    write_whole(file, report.as_bytes())
    write_whole(text, as_markdown(report).encode())
    return text


def read_report(file: Path, public: bytes) -> Report:
    """A report whose signature holds: by `public`, a device's key. Raises `commissioning.report`,
    `commissioning.signature`."""
    data = read_bounded(file, REPORT_BYTES_MAX)
    try:
        whole = orjson.loads(data)
        report = Report(whole["facts"], whole["device"], whole["public_key"], whole["signature"])
        signature = bytes.fromhex(report.signature)
        message = _canonical(report.facts)
        readable = report.facts["format"] == FORMAT and as_markdown(report) != ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        readable = False
    if not readable:
        raise LinesideError(
            "commissioning.report",
            f"{file} is no commissioning report of a form that this version reads.",
            effect="Nothing was changed.",
            todo="Give the .json file that `lineside equipment report` wrote.",
            place=Place(str(file)),
        )
    if not signature_holds(public, DOMAIN, message, signature) or report.public != public.hex():
        raise LinesideError(
            "commissioning.signature",
            f"The signature of {file} does not hold.",
            effect="What the report says is nobody's word.",
            todo="Compare with the file as the box wrote it, and look whether the key is that box's: --key device.pub",
            place=Place(str(file)),
        )
    return report


# For people -------------------------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The report for people: a function of what is signed."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    facts = report.facts
    good = "Everything is as the plant file says." if report.good else "NOT everything is as expected:"
    yield from (f"# Commissioning of {_cell(facts['plant'])} at box {_cell(facts['box'])}", "", good, "")
    yield from (f"- {_cell(one)}" for one in facts["not_as_expected"])
    if facts["not_tried"]:
        yield f"- No write test yet: {_cell(', '.join(facts['not_tried']))}"
    synced = "" if facts["clock_synced"] else " (the box's clock was not synchronised)"
    yield from ("", f"By {_cell(facts['who'])}, {facts['begun_utc']} to {facts['ended_utc']}{synced}.")
    yield from (f"Plant file: SHA-256 {facts['plant_sha256']}.", "")
    yield from (
        "## Connections",
        "",
        "| connection | driver | state | certificate shown (SHA-256) |",
        "|---|---|---|---|",
    )
    for one in facts["connections"]:
        state = "connected" if one["connected"] else f"NOT connected: {one['says']}"
        state += f", {one['remark']}" if one["remark"] else ""
        seen = one.get("certificate", {}).get("SHA-256", "-")
        yield _row(one["connection"], one["driver"], state, seen)
    yield from ("", "## Tags", "", "| tag | reads | quality | range | place | finding |", "|---|---|---|---|---|---|")
    for one in facts["tags"]:
        reads = f"{_number(one['value'])} {one['unit']}".rstrip() if one["quality"] != "bad" else "-"
        ends = f"{_number(one['low'])} to {_number(one['high'])}" if one["type"] in ("float", "int") else one["type"]
        place = f"{one['address']} at {one['connection']}"
        yield _row(one["tag"], reads, one["quality"], ends, place, one["finding"] or "-")
    yield from ("", "## Write tests", "")
    if facts["write_tests"]:
        yield from (
            "| tag | written | result | seconds | showed | restored | when | who |",
            "|---|---|---|---|---|---|---|---|",
        )
    for one in facts["write_tests"]:
        written = f"{_number(one['value'])} {one['unit']}".rstrip()
        seen = _number(one["seen"])
        yield _row(
            one["tag"], written, one["result"], one["seconds"], seen, one["restored"] or "-", one["utc"], one["who"]
        )
    if not facts["write_tests"]:
        yield "None was done."
    yield from ("", "## Trusted certificates", "")
    for one in facts["trusted_certificates"]:
        yield f"- {_cell(one['subject'])}, valid {one['valid_from']} to {one['valid_to']}"
        yield f"  - SHA-256 {one['fingerprint']}"
        yield f"  - SHA-1 {one['thumbprint']}"
    if not facts["trusted_certificates"]:
        yield "None."
    yield from (
        "",
        f"Signed by the box {report.device}, Ed25519, domain {DOMAIN.decode()}:",
        "",
        f"    {report.signature}",
    )


def _row(*cells: object) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    return shown(value).translate(_CELL)


def _number(value: object) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.7g}" if isinstance(value, float) else shown(json.dumps(value) if isinstance(value, bool) else value)
    )
