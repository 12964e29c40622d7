"""`lineside recipe`: recipes, from their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge import recipe_life, recipe_site
from edge.core.errors import LinesideError
from edge.record_command import built_record
from edge.terminal import (
    EXIT_FOUND,
    EXIT_REFUSED,
    AsJson,
    Box,
    nothing,
    progress_of_parts,
)

if TYPE_CHECKING:
    pass


app = typer.Typer(no_args_is_help=True, help="Recipes.")


@app.command("schema")
def recipe_schema(
    operation: Annotated[bool, typer.Option("--operation", help="Of an operation of the library instead.")] = False,
    site: Annotated[bool, typer.Option("--site", help="Of a site file instead.")] = False,
) -> None:
    """Print the JSON Schema of recipe files: editors complete and check with it while a recipe is written.

    Example: lineside recipe schema > lineside-recipe.schema.json
    """
    from edge.core.recipe.model import LibraryOperation, Recipe
    from edge.core.recipe.site import Site

    schema = (Site if site else LibraryOperation if operation else Recipe).model_json_schema(by_alias=True)
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2))


@app.command("check")
def recipe_check(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    plant: Annotated[Path | None, typer.Option(help="Also check it against this plant file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, or an operation of the library: everything wrong is shown in one run, with its line and a hint.

    Remarks say what stops nothing but looks like an oversight. Exit code 2 when something is wrong.

    Example: lineside recipe check cart-b1.yaml --plant plant.yaml
    """
    from edge.library import Checked, check_draft, read_bounded

    try:
        of_plant = (read_bounded(plant), str(plant)) if plant else None
        checked = check_draft(read_bounded(file), str(file), of_plant, file)
    except LinesideError as unreadable:
        checked = Checked(None, is_operation=False, refusal=unreadable, remarks=())
    if as_json:
        print(json.dumps(checked.as_json()))
    elif checked.refusal is None:
        print(checked)
    else:
        for remark in checked.remarks:
            checked.refusal.add_note(f"remark: {remark}")
        raise checked.refusal
    if checked.refusal is not None:
        raise typer.Exit(EXIT_REFUSED)


@app.command("attach")
def recipe_attach(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    file: Annotated[Path, typer.Argument(help="A text, picture, video or PDF.")],
    step: Annotated[str, typer.Option(help="The id of the step; the whole recipe when absent.")] = "",
    title: Annotated[str, typer.Option(help="What the operator reads; the file's name when absent.")] = "",
) -> None:
    """Copy a file into the folder `attachments` beside a recipe, and say which lines name it there.

    The recipe file is not changed: write the lines where they belong.

    Example: lineside recipe attach cart-b1.yaml welding.png --step 035 --title "How to weld"
    """
    from edge import attachments
    from edge.core.document import closest
    from edge.library import read_recipe_file

    steps = read_recipe_file(recipe).recipe.steps()
    if step and step not in steps:
        raise LinesideError(
            "attachment.step", f"The recipe has no step {step[:40]!r}.", todo=closest(step, sorted(steps))
        )
    content = attachments.attach(recipe, file)
    told = f", title: {json.dumps(title, ensure_ascii=False)}" if title else ""
    print(f"Write this into {f'step {step}' if step else 'the recipe, before `procedure`'}:\n")
    print(f"attachments:\n  - {{file: {file.name}, sha256: {content}{told}}}")


@app.command("attachment")
def recipe_attachment(
    content: Annotated[str, typer.Argument(help="The SHA-256 of the attachment, or how it begins (8 digits or more).")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    box: Box = Path(),
) -> None:
    """Write an attachment out of a box's library, to open it on another computer.

    Example: lineside recipe attachment 3f7a9c0d12 --out welding.png --box /var/lib/lineside
    """
    from edge.config import read_config
    from edge.library import Library, write_whole

    library = Library(read_config(box).state_dir / "library")
    found = [name for kind, name in library.names() if kind == "attachment" and name.startswith(content)]
    if len(content) < 8 or len(found) != 1:
        raise LinesideError(
            "attachment.which",
            f"{len(found)} attachments in this box's library begin with {content[:64]!r}.",
            todo="Give the SHA-256 that the step shows, at least its first eight digits.",
        )
    write_whole(out, library.attachment(found[0]).read_bytes())
    print(f"{out}: SHA-256 {found[0]}, verified.")


@app.command("rehearse")
def recipe_rehearse(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    plant: Annotated[Path | None, typer.Option(help="The plant file; that of the simulated cell when absent.")] = None,
    speed: Annotated[float, typer.Option(min=1, max=100_000, help="Durations pass so many times as fast.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Also write the report here, as JSON, for the approval.")] = None,
    as_json: AsJson = False,
) -> None:
    """Carry out a whole recipe against the simulated cell on virtual time: every branch, limit, time-out and refusal.

    Days pass in seconds. Exit code 1 when something was not seen or a batch did not end as it should.

    Example: lineside recipe rehearse cart-b1.yaml --out rehearsal.json
    """
    import edge
    import edge.core.rehearse as rehearsal
    from drivers import sim
    from drivers.sim.physics import VirtualCell
    from edge.core.plant import read_plant
    from edge.library import read_bounded, read_checked_recipe, write_whole

    plant_file = plant or Path(sim.__file__).with_name("plant.yaml")
    on = read_plant(read_bounded(plant_file), str(plant_file))
    sealed = read_checked_recipe(file, on)
    report = rehearsal.rehearse(
        sealed.recipe,
        sealed.seal,
        on,
        VirtualCell(on),
        lineside=edge.__version__,
        speed=speed,
        progress=nothing if as_json else progress_of_parts(),
    )
    as_data = json.dumps(rehearsal.as_json(report), ensure_ascii=False, indent=1)
    if out is not None:
        write_whole(out, as_data.encode())
    print(as_data if as_json else rehearsal.as_text(report))
    if not report.ok:
        raise typer.Exit(EXIT_FOUND)


@app.command("draw")
def recipe_draw(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    svg: Annotated[
        Path | None, typer.Option(help="Write the chart here, A4 sheets; more than one are numbered.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Lay over it what this batch did; with --box.")] = "",
    box: Box = Path(),
    width: Annotated[int, typer.Option(help="Columns of the text.", min=40, max=1000)] = 80,
) -> None:
    """Draw a recipe or an operation as a procedure function chart: as text here, or as SVG for the printer.

    Example: lineside recipe draw cart-b1.yaml --svg cart-b1.svg
    """
    from edge.core.recipe.draw import as_svg, as_terminal, chart
    from edge.library import read_drafted_file

    recipe = read_drafted_file(file)[0].recipe
    record = built_record(batch, box) if batch else None
    if svg is None:
        print(as_terminal(recipe, record, width))
        return
    sheets = as_svg(chart(recipe, record))
    for number, sheet in enumerate(sheets, 1):
        path = svg if len(sheets) == 1 else svg.with_stem(f"{svg.stem}-{number}")
        try:
            path.write_text(sheet, encoding="utf-8")
        except OSError as error:
            raise LinesideError(
                "recipe.cannot_write",
                f"The chart cannot be written to {path}: {error.strerror or error}.",
                todo="Give --svg a file in a folder that can be written to.",
            ) from error
        print(path)


@app.command("export")
def recipe_export(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path, typer.Option(help="The file to make; nothing is overwritten.")],
    form: Annotated[Literal["batchml"], typer.Option("--format", help="BatchML of B2MML V0700.")] = "batchml",
    kind: Annotated[
        Literal["master", "general"], typer.Option(help="As a master recipe, or as a general recipe of ISA-88 part 3.")
    ] = "master",
    box: Annotated[
        Path | None, typer.Option(help="A box folder: a master recipe goes with the signatures that its record has.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a recipe for another system: BatchML that is valid against the published schema and loses nothing.

    Example: lineside recipe export cart-b1.yaml --format batchml --out cart-b1.xml
    """
    from edge.config import read_config
    from edge.endorsed import endorsed_at
    from edge.exchange import Approved, export
    from edge.library import read_checked_recipe
    from edge.pack import write_exchanged

    sealed = read_checked_recipe(file, None)
    signed = endorsed_at(read_config(box), {sealed.seal}) if box else []
    approvals = [Approved(one.person, one.utc, one.text(), one.model_dump_json()) for one in signed]
    write_exchanged(out, export(sealed.recipe, kind, approvals))
    if as_json:
        facts = {"ok": True, "out": str(out), "format": form, "kind": kind}
        print(json.dumps({**facts, "recipe": sealed.recipe.recipe, "seal": sealed.seal}))
    else:
        print(f"{sealed.recipe.recipe} {sealed.recipe.version} as a BatchML {kind} recipe: {out}. Seal {sealed.seal}")


@app.command("import")
def recipe_import(
    file: Annotated[Path, typer.Argument(help="A BatchML or B2MML file.")],
    out: Annotated[
        Path | None, typer.Option(help="The draft to make; beside here under the file's name when left out.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The id of the recipe, when the file holds several.")] = "",
    as_json: AsJson = False,
) -> None:
    """Bring a recipe of another system in as a draft, and report what could not be mapped.

    What Lineside exported comes back as it was, with its seal. Nothing that comes in is approved.

    Example: lineside recipe import from-plant-b.xml --out draft.yaml
    """
    from edge.endorsed import read_endorsed
    from edge.exchange import read
    from edge.pack import read_exchanged, write_exchanged

    draft = read(read_exchanged(file), file.name, recipe)
    target = out or Path(f"{file.stem}.yaml")
    write_exchanged(target, draft.text.encode())
    if as_json:
        print(json.dumps({"ok": True, "out": str(target), **draft.as_json()}))
        return
    print(f"{target}: {draft.origin}. " + ("It is as it was exported." if draft.exact else "A draft: look through it."))
    for remark in draft.remarks:
        print(f"remark: {remark}")
    for approved in draft.approvals:
        attested = read_endorsed(f"[{approved.facts}]".encode())
        says = attested[0].text() if attested else f"NOT ATTESTED: {approved.says[:500]}"
        print(f"signed where it comes from, an approval of nothing here: {says}")
    for one in draft.unmapped:
        print(f"not mapped: {one.path}\n  what: {one.what}\n  why:  {one.why}")
    if draft.unmapped:
        print(f"{len(draft.unmapped)} things to look at. Then: lineside recipe check {target}")


@app.command("pack")
def recipe_pack(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path, typer.Option(help="The pack to make; nothing is overwritten.")],
    key: Annotated[Path, typer.Option(help="The private key of the device that signs it.")] = Path("device.key"),
    rehearsal: Annotated[
        Path | None, typer.Option(help="The report of its rehearsal (lineside recipe rehearse --out).")
    ] = None,
    earlier: Annotated[list[Path] | None, typer.Option(help="An earlier version's file; once for each.")] = None,
    box: Annotated[
        Path | None, typer.Option(help="A box folder: the signatures that its record has on the recipe go along.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tech-transfer pack: recipe, BatchML, whys, history and rehearsal in one signed file for a second site.

    Example: lineside recipe pack cart-b1.yaml --out cart-b1.pack --rehearsal rehearsal.json --key device.key
    """
    from edge.config import read_config
    from edge.endorsed import endorsed_at
    from edge.identity import DeviceKey
    from edge.pack import make_pack

    signer, config = DeviceKey.load(key), read_config(box) if box else None
    made = make_pack(
        file,
        out,
        signer,
        rehearsal=rehearsal,
        earlier=earlier or (),
        endorsed=lambda seals: endorsed_at(config, seals) if config else (),
    )
    if as_json:
        print(json.dumps({"ok": True, "out": str(out), **made.model_dump()}))
    else:
        print(f"{out}: {made.recipe} {made.version}, {len(made.files)} files, signed by device {made.device}.")
        print("Give the other site the pack, and the public key by another way.")


@app.command("unpack")
def recipe_unpack(
    pack: Annotated[Path, typer.Argument(help="A tech-transfer pack.")],
    trust: Annotated[Path, typer.Option(help="The public key of the device that made it.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    as_json: AsJson = False,
) -> None:
    """Verify a tech-transfer pack and bring its recipe in as a draft that says where it comes from.

    Example: lineside recipe unpack cart-b1.pack --trust plant-a.pub --out from-plant-a
    """
    from edge.identity import read_public
    from edge.pack import DRAFT, unpack

    made = unpack(pack, read_public(trust), out)
    if as_json:
        print(json.dumps({"ok": True, "out": str(out), **made.model_dump()}))
    else:
        print(f"{made.recipe} {made.version}, made {made.made_utc} by device {made.device}: every byte holds.")
        print(f"The draft: {out / DRAFT}. Seal {made.seal}")


@app.command("diff")
def recipe_diff(
    old: Annotated[Path, typer.Argument(help="The recipe file as it was.")],
    new: Annotated[Path, typer.Argument(help="The recipe file as it is.")],
    base: Annotated[
        Path | None, typer.Option(help="What both were made from: says what each changed, and where they conflict.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in process words what differs between two recipes or operations; formatting does not. Exit 1 on a conflict.

    Of a site file it says what the site must look at because its master moved from --base to NEW.

    Example: lineside recipe diff site.yaml new-master.yaml --base old-master.yaml
    """
    from edge.core.recipe.compare import compare, three_way
    from edge.library import read_drafted_file
    from edge.recipe_site import moved

    if base is not None and (look_at := moved(base, new, old)) is not None:
        if as_json:
            print(json.dumps({"look_at": look_at}, ensure_ascii=False))
        else:
            print(f"What {old} must look at, because its master moved: {len(look_at)}")
            print("".join(f"  {one}\n" for one in look_at), end="")
        return
    before, after = (read_drafted_file(path)[0].recipe for path in (old, new))
    if base is None:
        changes = compare(before, after)
        if as_json:
            print(json.dumps({"changes": [change.as_json() for change in changes]}, ensure_ascii=False))
            return
        print("\n".join(change.text for change in changes) or "No difference: both have the same seal.")
        return
    found = three_way(read_drafted_file(base)[0].recipe, before, after)
    if as_json:
        facts = {name: [one.as_json() for one in getattr(found, name)] for name in ("ours", "theirs", "both")}
        conflicts = [{"ours": a.as_json(), "theirs": b.as_json()} for a, b in found.conflicts]
        print(json.dumps({**facts, "conflicts": conflicts}, ensure_ascii=False))
    else:
        for heading, changes_of in ((f"Only {old}", found.ours), (f"Only {new}", found.theirs), ("Both", found.both)):
            print(f"{heading}: {len(changes_of)}")
            print("".join(f"  {change.text}\n" for change in changes_of), end="")
        print(f"Conflicts: {len(found.conflicts)}")
        for a, b in found.conflicts:
            print(f"  {old}: {a.text}\n  {new}: {b.text}")
    if found.conflicts:
        raise typer.Exit(EXIT_FOUND)


@app.command("where-used")
def recipe_where_used(
    term: Annotated[str, typer.Argument(help="A name, a tag, or words of a step.")],
    folder: Annotated[Path, typer.Argument(help="A folder of recipe files.")],
    as_json: AsJson = False,
) -> None:
    """Say which recipes and operations of a folder use something, and where. Other files are counted on stderr.

    Example: lineside recipe where-used reactor.temperature recipes
    """
    from dataclasses import asdict

    from edge.core.recipe.compare import where_used
    from edge.shelf import books

    refused: list[LinesideError] = []
    for book in books(folder, refused, progress_of_parts()):
        for use in where_used(book.recipe, term):
            if as_json:
                print(json.dumps({"file": str(book.path), **asdict(use)}, ensure_ascii=False))
            else:
                print(f"{book.path}: {use.subject} “{use.title}”: {use.what}")
    _say_refused(refused)


@app.command("similar")
def recipe_similar(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    folder: Annotated[Path, typer.Argument(help="A folder of recipe files.")],
    limit: Annotated[int, typer.Option(help="Show at most so many.", min=1, max=10_000)] = 10,
    as_json: AsJson = False,
) -> None:
    """Rank the recipes and operations of a folder by how much they have in common with one, and say what.

    What was read is remembered in ~/.cache/lineside by its content, so that only the first run over a folder is slow.

    Example: lineside recipe similar draft.yaml recipes
    """
    import os

    from edge.core.recipe.compare import profile, rank
    from edge.library import read_drafted_file
    from edge.shelf import profiles

    wanted = profile(read_drafted_file(file)[0].recipe)
    memory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lineside" / "profiles.json"
    refused: list[LinesideError] = []
    found = profiles(folder, memory, refused, progress_of_parts())
    found = {path: one for path, one in found.items() if path.resolve() != file.resolve()}
    paths: dict[int, list[Path]] = {}
    for path, one in found.items():
        paths.setdefault(id(one), []).append(path)
    for alike in rank(wanted, list({id(one): one for one in found.values()}.values()))[:limit]:
        for path in paths[id(alike.profile)]:
            if as_json:
                print(
                    json.dumps(
                        {"file": str(path), "share": round(alike.share, 4), "why": alike.why}, ensure_ascii=False
                    )
                )
            else:
                print(f"{alike.share:4.0%}  {path}  {alike.profile.name} {alike.profile.version}: {alike.why}")
    _say_refused(refused)


@app.command("replace")
def recipe_replace(
    folder: Annotated[Path, typer.Argument(help="A folder of drafts.")],
    find: Annotated[str, typer.Option(help="The whole value to find, such as 37.5 or hold.")],
    by: Annotated[str, typer.Option("--with", help="What to put in its place.")],
    field: Annotated[str, typer.Option(help="Only values of this key, such as high, phase or duration.")] = "",
    box: Annotated[
        Path | None, typer.Option(help="A box: what it has sealed is not touched.", envvar="LINESIDE_BOX")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Change the files; without it they are only shown.")] = False,
) -> None:
    """Replace a value in all drafts of a folder: shows what would change, and changes it only with --write.

    Of recipes and operations; comments and formatting stay. A recipe that a box has sealed is left alone; make a new
    draft of it first.

    Example: lineside recipe replace drafts --find 37.5 --with 38.0 --field high
    """
    from edge.config import read_config
    from edge.core.recipe import read_recipe_or_operation, seal
    from edge.core.recipe.compare import compare
    from edge.core.recipe.replace import replace
    from edge.shelf import books
    from edge.shelf import write as write_file

    sealed = read_config(box).state_dir / "library" / "recipe" if box else None
    refused: list[LinesideError] = []
    changed: list[tuple[Path, bytes]] = []
    for book in books(folder, refused, progress_of_parts()):
        data = replace(book.data, str(book.path), find, by, field, book.operations)
        if data == book.data:
            continue
        if sealed and (sealed / seal(book.recipe)).exists():
            print(f"{book.path}: left alone, the box has sealed it")
            continue
        changed.append((book.path, data))
        changed_to, _ = read_recipe_or_operation(data, str(book.path), book.operations)
        for change in compare(book.recipe, changed_to.recipe):
            print(f"{book.path}: {change.text}")
    if write:  # after every file was looked at: one that cannot be changed so changes none
        for path, data in changed:
            write_file(path, data)
    print(f"{len(changed)} files {'changed' if write else 'would change; nothing is written without --write'}.")
    _say_refused(refused)


def _say_refused(refused: list[LinesideError]) -> None:
    if refused:
        print(f"{len(refused)} files cannot be read as recipes; the first: {refused[0]}", file=sys.stderr)


for name, command in (
    ("derive", recipe_site.derive),
    ("submit", recipe_life.submit),
    ("approve", recipe_life.approve),
    ("send-back", recipe_life.send_back),
    ("release", recipe_life.release),
    ("retire", recipe_life.retire),
    ("status", recipe_life.status),
):
    app.command(name)(command)
