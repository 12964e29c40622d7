"""Row 11: mutated input for each parser: understood or refused in words with a stable code, in bounded time."""

from __future__ import annotations

import random
import re
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from drivers.modbus_address import read_address
from drivers.sim.cell import plant_bytes
from edge import exchange, wire
from edge.config import read_config
from edge.core import frame
from edge.core.document import read_document
from edge.core.errors import LinesideError
from edge.core.events import decode, encode
from edge.core.formula import Given, Variable, compile_formula
from edge.core.orders import Order, read_order, read_signed, signed
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_recipe, remarks, seal
from edge.core.recipe.partly import beside
from edge.core.recipe.site import derive, read_site
from edge.core.record import ZERO_HASH, fingerprint
from edge.directory import Directory, directory_entry
from edge.identity import DeviceKey
from edge.pack import DOMAIN as PACK_DOMAIN
from edge.pack import make_pack, read_pack
from edge.tarred import BLOCK_BYTES, padding, stated_size
from provisioning.modules import Wanted, entries
from provisioning.mtp import read_manifest
from provisioning.plant_file import added
from tests.campaign import Part, Planted, Tally
from tests.crash.runs import body
from tests.hub.sync_parts import EPOCH, JOURNAL, chained
from tests.provisioning import manifests

INPUTS_A_SEED: Final = 50
TOO_LONG_S: Final = 5.0
MEMORY_KIB_MAX: Final = 128 * 1024
CODE: Final = re.compile(r"[a-z]+\.[a-z][a-z0-9_]*")
TOKENS: Final = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b" ", b":", b"- ", b"[", b"]", b"{", b"}", b'"', b"'"),
    *(b"&a", b"*a", b"!!python/object:os.system", b"<<: ", b"---\n", b"%YAML 1.1\n", b"#", b"|", b">", b"?", b"\\"),
    *(b"0", b"-1", b"9" * 400, b"1e400", b".nan", b".inf", b"null", b"true", b"1_000", b"0x10", b"2026-11-21"),
    *(
        b"<",
        b">",
        b"</",
        b"/>",
        b"&a;",
        b"&#0;",
        b"&lt;",
        b"]]>",
        b"<![CDATA[",
        b"<!DOCTYPE x>",
        b"<x:y/>",
        b"<a>" * 100,
    ),
    *(b"[" * 200, b"{" * 200, b'{"a":' * 200, b"=", b"[[", b"]]", b"[a.b]", b'"""', b"\xed\xa0\x80", b"\xe2\x80\xae"),
)

Parse = Callable[[bytes], object]
SHIPPED: Final = files("edge.core.recipe").joinpath("shipped")
RECIPE: Final = SHIPPED.joinpath("cart-b1.yaml").read_bytes()
SHORT: Final = b"""\
recipe: S
version: "1"
title: Small
units: {reactor: {class: bioreactor}, pump: {class: pump}, balance: {class: balance}}"""
PROCEDURE: Final = b"""
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
"""
SMALL: Final = b"""\
recipe: S
version: "1.1"
title: Small
parameters:
  warm: {value: 37.0, unit: degC}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: instruct, title: Look, text: Look at it., why: It may be hot.}
          - id: "020"
            phase: parallel
            title: Both
            branches:
              - - {id: "021", phase: instruct, title: One, text: One.}
              - - {id: "022", phase: record, title: Two, text: Two., name: two, limit: {low: 1.0, high: 2.0}}
"""
BOMBS: Final = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    b'<!DOCTYPE x SYSTEM "file:///dev/zero">',
    b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/p">%p;]>',
    b"<a>" * 2_000,
    b"<!--" + b"-" * 5_000,
    b"",
)
SMALL_RECIPE: Final = b"\n".join(RECIPE.splitlines()[:60]) + b"\n"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The input with one to four changes: bits, bytes, tokens, pieces cut, doubled, moved or put at the end."""
    raw = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        at = chance.randrange(len(raw) + 1)
        end = min(len(raw), at + int(chance.paretovariate(0.7)))
        match chance.randrange(8):
            case 0 if at < len(raw):
                raw[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(raw):
                raw[at] = chance.randrange(256)
            case 2 | 3:
                raw[at:at] = chance.choice(TOKENS)
            case 4:
                del raw[at:end]
            case 5:
                raw[at:at] = raw[at:end]
            case 6:
                piece = raw[at:end]
                del raw[at:end]
                there = chance.randrange(len(raw) + 1)
                raw[there:there] = piece
            case _:
                del raw[at:]
    return bytes(raw)


Opened = Callable[[Path], tuple[list[bytes], Parse]]
"""Given an empty folder: good inputs, and the parser over them."""


def fuzzed(opened: Opened, wrap: Callable[[Parse], Parse] = lambda parse: parse) -> Callable[..., Awaitable[None]]:
    understood = False

    async def inject(seed: int, folder: Path, tally: Tally) -> None:
        nonlocal understood
        chance = random.Random(seed)
        samples, parse = opened(folder)
        if not understood:
            for sample in samples:
                parse(sample)
            understood = True
        parse = wrap(parse)
        for _ in range(INPUTS_A_SEED):
            data = mutated(chance.choice(samples), chance)
            tally.fault()
            began_s, before_kib = time.process_time(), peak_kib()
            try:
                parse(data)
            except LinesideError as error:
                if not CODE.fullmatch(error.code) or not error.what:
                    tally.violated(f"a refusal without a stable code or words: {error!r}")
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                tally.violated(f"a traceback: {type(error).__name__}: {error} for {data[:200]!r}")
            if time.process_time() - began_s > TOO_LONG_S:
                tally.violated(f"more than {TOO_LONG_S} s for {data[:200]!r}")
            if (grown_kib := peak_kib() - before_kib) > MEMORY_KIB_MAX:
                tally.violated(f"{grown_kib} KiB for {data[:200]!r}")

    return inject


def peak_kib() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def unguarded(parse: Parse) -> Parse:
    """Planted: the input is taken for text of its kind before anything is checked."""

    def trusting(data: bytes) -> object:
        if data.decode("utf-8").count("[") > 100:
            raise RecursionError("planted")
        return parse(data)

    return trusting


def unbounded(parse: Parse) -> Parse:
    """Planted: a fixed place in the bytes is read before the length is checked."""

    def trusting(data: bytes) -> object:
        data[150]
        return parse(data)

    return trusting


def documents(folder: Path) -> tuple[list[bytes], Parse]:
    del folder
    return [SMALL_RECIPE, b"a: 1\nb: [1, {c: d}]\ne: |\n  text\n"], lambda data: read_document(data, "x.yaml")


def recipes(folder: Path) -> tuple[list[bytes], Parse]:
    del folder
    plant = read_plant(plant_bytes(), "plant.yaml")

    def checked(data: bytes) -> object:
        try:
            document = read_recipe(data, "recipe.yaml")
        except LinesideError:
            beside(data, "recipe.yaml", {}, plant)
            raise
        try:
            return remarks(document), check_recipe(document, plant)
        except LinesideError as error:
            raise AssertionError("the checker ended at what it should have told with the rest") from error

    operations = [one.read_bytes() for one in SHIPPED.joinpath("operations").iterdir()]
    return sorted({RECIPE, *(one for data in operations for one in as_recipes(data))}), checked


def as_recipes(operation: bytes) -> Iterator[bytes]:
    """The steps of an operation of the library as a recipe, and each of its outermost steps alone: of few bytes, so
    that most changes change what is said."""
    head, _, steps = operation.replace(b"library_operation:", b"recipe:", 1).partition(b"\nsteps:\n")
    alone = ((SHORT, step) for step in re.split(rb"(?m)^(?=  - )", steps) if step)
    for start, some in ((head, steps), *alone):
        yield start + PROCEDURE + b"".join(b" " * 8 + line for line in some.splitlines(keepends=True))


def sites(folder: Path) -> tuple[list[bytes], Parse]:
    del folder
    master = read_recipe(SMALL.replace(b"unit: degC", b"unit: degC, site: true"), "master.yaml").recipe
    text = b'site: B\nversion: "1"\nmaster: {recipe: S, version: "1.1", seal: %s}\nparameters: {warm: {value: 36.5}}\n'
    return [text % seal(master).encode()], lambda data: derive(master, read_site(data, "site.yaml"))


def plants(folder: Path) -> tuple[list[bytes], Parse]:
    """The simulated cell's, each of its units alone, and each tag alone: of few bytes, as above."""
    del folder
    whole = plant_bytes()
    head, *units = re.split(rb"(?m)^(?=  [A-Z]+-\d+:$)", whole)
    alone = [
        head + unit[: unit.index(b"    tags:\n")] + b"    tags:\n" + tag
        for unit in units
        for tag in re.findall(rb"(?m)^      \w+:(?:\n| \{).*\n(?:^       .*\n)*", unit)
        if b"read_back" not in tag
    ]
    return [whole, *(head + one for one in units), *alone], lambda data: read_plant(data, "plant.yaml")


def configs(folder: Path) -> tuple[list[bytes], Parse]:
    for name in ("plant.yaml", "directory.toml", "device.key", "hub.pub", "ca.pem"):
        (folder / name).touch()
    (folder / "recipes").mkdir()
    text = (
        b'box = "BOX-1"\nspeed = 1.0\n\n[broker]\nurl = "mqtt://127.0.0.1:1883"\nca = "ca.pem"\n\n'
        b'[hub]\npublic_key = "hub.pub"\n\n[mirror]\npath = "/media/second"\n'
    )

    def parse(data: bytes) -> object:
        (folder / "lineside.toml").write_bytes(data)
        return read_config(folder)

    return [text, b'box = "BOX-1"\n'], parse


def directories(folder: Path) -> tuple[list[bytes], Parse]:
    pin = f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}"
    entries = "\n".join(directory_entry(name, name.title(), f"B-{name}", [], pin) for name in ("ana", "ben"))
    file = folder / "directory.toml"

    def parse(data: bytes) -> object:
        file.write_bytes(data)
        return Directory.load(file)

    return [entries.replace("roles = []", 'roles = ["operator"]').encode()], parse


def frames(folder: Path) -> tuple[list[bytes], Parse]:
    """Half of them signed anew after the change, as a broken or stolen box would."""
    key = DeviceKey.create(folder / "device.key")
    rows = chained([encode(body(f"n{n}", "x" * 40)) for n in range(20)])
    made, _ = frame.make(rows, journal=JOURNAL, previous=ZERO_HASH, made_seq=20, signer=key)
    hail = frame.make_hail(journal=JOURNAL, epoch=EPOCH, seq=7, head=b"h" * 32, made_seq=9, signer=key)
    trusted = {fingerprint(key.public): key.public}

    def parse(data: bytes) -> object:
        if len(data) % 2 and len(data) > 64:
            data = data[:-64] + key.sign(frame.FRAME_DOMAIN, data[:-64])
        return frame.read(data, trusted)

    return [made, hail], parse


def receipts(folder: Path) -> tuple[list[bytes], Parse]:
    key = DeviceKey.create(folder / "hub.key")
    facts = {"hub": fingerprint(key.public), "incarnation": "a" * 32, "device": "b" * 32, "journal": "c" * 32}
    numbers = {"epoch": "d" * 32, "stored_seq": 7, "safe_seq": 3, "head_hash": "e" * 64, "wanted_seq": 0}
    receipt = frame.Receipt(**facts, **numbers, utc="2026-11-21T10:00:00.000000Z")
    return [frame.make_receipt(receipt, key).encode()], lambda data: frame.read_receipt(data, key.public)


def messages(folder: Path) -> tuple[list[bytes], Parse]:
    """What a screen sends. The models refuse; the desk puts the refusal into words."""
    del folder
    asked: list[dict[str, Any]] = [
        {"id": "1", "do": "status"},
        {"id": "2", "do": "log_in", "person": "ana", "pin": "2580"},
        {"id": "3", "do": "enter_value", "batch": "B-001", "step": "060", "text": "41.75"},
        {"id": "4", "do": "start_batch", "batch": "B-001", "order": "O", "seal": "a" * 64, "patient": "=A9999"},
    ]

    def parse(data: bytes) -> object:
        try:
            return wire.REQUEST.validate_json(data)
        except ValidationError as error:
            assert error.errors(include_url=False, include_input=False)[0]["msg"]
            return None

    return [orjson.dumps(request) for request in asked], parse


def rows(folder: Path) -> tuple[list[bytes], Parse]:
    del folder
    return [encode(body("a", "b")), encode(body("größer", "x" * 300))], decode


def addresses(folder: Path) -> tuple[list[bytes], Parse]:
    """Text as a plant file can carry it."""
    del folder
    samples = [b"holding 10 float32 CDAB x0.1", b"coil 5", b"input 3 int16", b"discrete 65535"]
    return samples, lambda data: read_address(data.decode("utf-8", errors="replace"))


def formulas(folder: Path) -> tuple[list[bytes], Parse]:
    """Formulas as a recipe can carry them, also worked out where they can be read."""
    del folder
    names = {
        "vcd": Variable("number", "1e6/mL"), "volume": Variable("number", "L"), "$least": Variable("number", "%"),
        "reactor.temperature": Variable("number", "degC"), "look": Variable("text"), "$wet": Variable("bool"),
        "iteration": Variable("number"),
    }  # fmt: skip
    given = {
        name: Given({"number": 3.0, "text": "clear", "bool": True}[one.kind], one.unit) for name, one in names.items()
    }
    samples = [
        b"volume * ($least - vcd) / 400.0", b"iteration >= 14 || vcd < $least && reactor.temperature > 36.5",
        b"look in ['clear', 'red'] ? volume / (vcd - 3) : -volume", b"!($wet) && look.startsWith('c') == true",
        b"(vcd > volume ? vcd - volume : volume - vcd) / vcd * 100.0", b"1e308 * 10 > volume",
    ]  # fmt: skip

    def parse(data: bytes) -> object:
        return compile_formula(data.decode(errors="replace"), names).value(given)

    def works(data: bytes) -> object:
        return parse(data) if data not in samples else compile_formula(data.decode(), names)

    return samples, works


def batchml(folder: Path) -> tuple[list[bytes], Parse]:
    """Ours in both forms, another system's, and what XML can be made to do; half of what is changed is well-formed."""
    del folder
    small = read_recipe(SMALL, "recipe.yaml").recipe
    ours = [exchange.export(small), exchange.export(small, "general")]
    theirs = [data.replace(b"lineside:format", b"format") for data in ours]

    def parse(data: bytes) -> object:
        if len(data) % 2:
            data = BOMBS[len(data) % len(BOMBS)] + data
        draft = exchange.read(data, "file.xml")
        read_recipe(draft.text.encode(), "draft.yaml")
        return draft

    return ours + theirs, lambda data: exchange.read(data, "x") if data in (*ours, *theirs) else parse(data)


def packs(folder: Path) -> tuple[list[bytes], Parse]:
    """Half of them with a manifest that was signed anew after the change, as a second site could."""
    key = DeviceKey.create(folder / "device.key")
    (folder / "recipe.yaml").write_bytes(SMALL)
    make_pack(folder / "recipe.yaml", folder / "a.pack", key)
    packed = (folder / "a.pack").read_bytes()

    def parse(data: bytes) -> object:
        size = stated_size(data[:BLOCK_BYTES])
        if len(data) % 2 and 0 <= size < len(data):
            at = BLOCK_BYTES + size + len(padding(size)) + BLOCK_BYTES
            data = data[:at] + key.sign(PACK_DOMAIN, data[BLOCK_BYTES : BLOCK_BYTES + size]) + data[at + 64 :]
        return read_pack(data, key.public)

    return [packed], parse


def orders(folder: Path) -> tuple[list[bytes], Parse]:
    """As JSON, as a code, and signed."""
    order = Order("ORD-17", "CART-B1", "1.0", "B-7", {"feed": "12"}, "20 mL", "", "2026-12-01")
    key = DeviceKey.create(folder / "hub.key")
    samples = [
        order.as_bytes(), signed(order, key.public, key),
        b"LSO1;O=ORD-17;R=CART-B1;V=1.0;B=B-7;D=2026-12-01;Q=20 mL;P.feed=12;T",
    ]  # fmt: skip

    def parse(data: bytes) -> object:
        return read_order(read_signed(data)[0].encode())

    return samples, parse


def module_packages(folder: Path) -> tuple[list[bytes], Parse]:
    """Manifests and zips; every other manifest is put into a zip or behind what XML can be made to do. What is read
    becomes entries of a plant file; one in 64 is written, and the plant checker reads it."""
    del folder
    plant = b"plant: p\nconnections: {}\nunits: {}\n"
    known = read_plant(plant, "p.yaml")
    samples = [manifests.old(), manifests.split(), manifests.HEAD.format("".join(manifests.old_parts())).encode()]

    def parse(data: bytes) -> object:
        if data not in samples and len(data) % 4 == 1:
            data = manifests.zipped({"manifest.aml": data})
        elif data not in samples and len(data) % 16 == 2:
            data = BOMBS[len(data) % len(BOMBS)] + data
        module = read_manifest(data, "x.mtp")
        try:
            made = entries(module, known, Wanted("M-1", "module", endpoint="opc.tcp://127.0.0.1:4840"))
            return added(plant, "p.yaml", made.entries) if len(data) % 64 == 0 else made
        except LinesideError as error:
            assert error.code.startswith(("mtp.", "document.", "plant.")), error
            raise

    return samples, parse


def _part(name: str, what: str, opened: Opened, bug: Callable[[Parse], Parse] = unguarded) -> Part:
    return Part(
        11,
        name,
        f"mutated input: {what}",
        gate=100_000,
        full=100_000_000,
        inject=fuzzed(opened),
        planted={(bug.__doc__ or "").removeprefix("Planted: ").rstrip("."): Planted(fuzzed(opened, bug), "traceback")},
    )


PARTS = (
    _part("document", "YAML documents", documents),
    _part("recipe", "recipe files, checked against a plant", recipes),
    _part("plant", "plant files", plants),
    _part("site", "site files, applied to a master", sites),
    _part("config", "lineside.toml", configs),
    _part("directory", "directory.toml", directories),
    _part("frame", "frames at the hub, half of them signed anew", frames, unbounded),
    _part("receipt", "receipts at the box", receipts),
    _part("message", "desk messages", messages),
    _part("order", "orders: JSON, codes and signed files", orders),
    _part("row", "bodies of rows", rows),
    _part("formula", "formulas, worked out when they can be read", formulas),
    _part("batchml", "BatchML, ours and another system's", batchml),
    _part("pack", "tech-transfer packs, half of them signed anew", packs, unbounded),
    _part("modbus-address", "Modbus addresses", addresses),
    _part("mtp", "module type packages, as entries of a plant file", module_packages, unbounded),
)
