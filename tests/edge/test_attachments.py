"""Attachments: checked by content, kept before a row names them, shown at the step, carried along."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge import attachments, wire
from edge.__main__ import app
from edge.backup import back_up
from edge.backup import unpack as unpack_backup
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.events import AttachmentsOffered
from edge.core.recipe import read_recipe, seal
from edge.core.review import as_built, as_text
from edge.desk_client import connect
from edge.exchange import export, read
from edge.identity import DeviceKey
from edge.library import Library, read_checked_recipe
from edge.pack import make_pack, unpack
from edge.upkeep import damaged_objects
from tests.edge.conftest import RECIPE, running
from tests.edge.test_desk import log_in, name, refused, rows, start

TEXT = "Clear the bench from left to right.\n" + "\n".join(f"{n}. Look at place {n}." for n in range(1, 60))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(2_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def attached(box: Config) -> None:
    """The box's recipe with a text and a picture at its first step, and a picture for all steps."""
    folder = box.recipes / "attachments"
    folder.mkdir()
    (folder / "clearing.txt").write_text(TEXT)
    (folder / "bench.png").write_bytes(PNG)
    here = (
        f"text: Clear the bench., attachments: [{{file: clearing.txt, title: How to clear, "
        f"sha256: {sha(TEXT.encode())}}},"
        f" {{file: bench.png, sha256: {sha(PNG)}}}]}}"
    )
    changed = RECIPE.replace("text: Clear the bench.}", here).replace(
        "\nprocedure:", f"\nattachments: [{{file: bench.png, sha256: {sha(PNG)}}}]\nprocedure:"
    )
    (box.recipes / "paper.yaml").write_text(changed)


async def test_they_are_read_at_the_desk_and_stand_in_the_record(box: Config) -> None:
    attached(box)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        status = await client.ask(wire.AskStatus(id=name()))
        (card,) = wire.Picture.model_validate(status["picture"]).batches[0].active
        assert [(one.file, one.title) for one in card.attachments] == [
            ("clearing.txt", "How to clear"), ("bench.png", "bench.png"), ("bench.png", "bench.png"),
        ]  # fmt: skip
        part = await client.ask(wire.ReadAttachment(id=name(), sha256=sha(PNG), offset=8))
        assert (base64.b64decode(part["data"]), part["size"]) == (PNG[8:], len(PNG))
        other = wire.ReadAttachment(id=name(), sha256="0" * 64)
        assert (await refused(client, other)).code == "attachment.unknown"
        (box.state_dir / "library" / "attachment" / sha(PNG)).write_bytes(PNG[:-1])
        again = wire.ReadAttachment(id=name(), sha256=sha(PNG))
        assert (await refused(client, again)).code == "library.damaged"
    made = rows(box)
    offered = [row.event for row in made if isinstance(row.event, AttachmentsOffered)]
    assert [(event.step, [one["file"] for one in event.attachments]) for event in offered] == [
        ("", ["bench.png"]), ("010", ["clearing.txt", "bench.png"]),
    ]  # fmt: skip
    built = as_built(enumerate(made, 1))["B1"]
    assert [one["sha256"] for one in built.steps[0].attachments] == [sha(TEXT.encode()), sha(PNG)]
    assert f"attached: clearing.txt, SHA-256 {sha(TEXT.encode())}" in as_text(built)


@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("bench.png", None, "attachment.missing"),
        ("bench.png", PNG + b"!", "attachment.changed"),
        ("bench.png", b"GIF89a", "attachment.type"),
        ("clearing.txt", b"\xff\xfe", "attachment.type"),
        ("clearing.txt", b"a\x1b[31m", "attachment.type"),
        ("clearing.txt", b"a" * 65_537, "attachment.too_large"),
    ],
)
def test_one_that_is_not_as_named_keeps_the_recipe_out(box: Config, file: str, data: bytes | None, code: str) -> None:
    attached(box)
    path = box.recipes / "attachments" / file
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(LinesideError) as refusal:
        read_checked_recipe(box.recipes / "paper.yaml", None)
    assert refusal.value.code == code
    assert refusal.value.place
    assert refusal.value.place.line > 1
    if code == "attachment.changed" and data:
        assert sha(data) in refusal.value.todo


def test_only_names_and_kinds_of_the_list_are_read() -> None:
    for file in ("../secret.txt", "a/b.png", ".hidden.txt", "run.sh", "page.html", "x.svg", "a.TXT"):
        text = RECIPE.replace("\nprocedure:", f'\nattachments: [{{file: "{file}", sha256: {"0" * 64}}}]\nprocedure:')
        with pytest.raises(LinesideError, match="file"):
            read_recipe(text.encode(), "r.yaml")


def test_the_seal_covers_what_is_in_them_and_batchml_brings_them_back(box: Config) -> None:
    plain = seal(read_recipe(RECIPE.encode(), "r").recipe)
    attached(box)
    sealed = read_checked_recipe(box.recipes / "paper.yaml", None)
    assert sealed.seal != plain
    assert seal(read_recipe(read(export(sealed.recipe), "x.xml").text.encode(), "x").recipe) == sealed.seal


def test_the_library_keeps_only_what_was_named_and_the_self_check_finds_what_was_changed(tmp_path: Path) -> None:
    library, source = Library(tmp_path / "library"), tmp_path / "bench.png"
    source.write_bytes(PNG)
    library.put_file(sha(PNG), source)
    library.put_file(sha(PNG), source)
    assert library.names() == [("attachment", sha(PNG))]
    source.write_bytes(PNG + b"!")
    with pytest.raises(LinesideError) as refusal:
        library.put_file(sha(TEXT.encode()), source)
    assert refusal.value.code == "attachment.changed"
    assert library.names() == [("attachment", sha(PNG))]
    assert damaged_objects(library) == []
    library.path("attachment", sha(PNG)).write_bytes(b"another")
    (found,) = damaged_objects(library)
    assert "attachment" in found


def test_a_pack_carries_them_to_a_second_site_and_no_other(box: Config, tmp_path: Path) -> None:
    attached(box)
    key = DeviceKey.create(tmp_path / "device.key")
    make_pack(box.recipes / "paper.yaml", tmp_path / "p.pack", key)
    unpack(tmp_path / "p.pack", key.public, tmp_path / "site")
    assert (tmp_path / "site" / "attachments" / "bench.png").read_bytes() == PNG
    draft = read_checked_recipe(tmp_path / "site" / "draft.yaml", None)
    assert draft.seal == read_checked_recipe(box.recipes / "paper.yaml", None).seal


def test_the_command_copies_a_file_and_says_the_line(box: Config, tmp_path: Path) -> None:
    file = tmp_path / "welding.txt"
    file.write_text("Weld.")
    recipe = box.recipes / "paper.yaml"
    done = CliRunner().invoke(app, ["recipe", "attach", str(recipe), str(file), "--step", "010", "--title", "Welding"])
    assert done.exit_code == 0, done.output
    line = f'{{file: welding.txt, sha256: {sha(b"Weld.")}, title: "Welding"}}'
    assert line in done.output
    recipe.write_text(RECIPE.replace("text: Clear the bench.}", f"text: Clear., attachments: [{line}]}}"))
    assert read_checked_recipe(recipe, None).recipe.attached()[sha(b"Weld.")].title == "Welding"
    file.write_text("Weld twice.")
    again = CliRunner().invoke(app, ["recipe", "attach", str(recipe), str(file)])
    assert isinstance(again.exception, LinesideError)
    assert again.exception.code == "attachment.changed"
    wrong = CliRunner().invoke(app, ["recipe", "attach", str(recipe), str(file), "--step", "011"])
    assert isinstance(wrong.exception, LinesideError)
    assert wrong.exception.code == "attachment.step"


async def test_a_backup_brings_them_back_and_the_command_writes_them_out(box: Config, tmp_path: Path) -> None:
    attached(box)
    async with running(box):
        await asyncio.to_thread(back_up, box, tmp_path / "b.lsb")
    restored = tmp_path / "restored"
    unpack_backup(tmp_path / "b.lsb", restored, DeviceKey.load(box.device_key).public)
    kept = [path.read_bytes() for path in restored.rglob(f"library/attachment/{sha(PNG)}")]
    assert kept == [PNG]
    out = tmp_path / "out.png"
    done = CliRunner().invoke(app, ["recipe", "attachment", sha(PNG)[:12], "--out", str(out), "--box", str(box.folder)])
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == PNG
    none = CliRunner().invoke(app, ["recipe", "attachment", "00000000", "--out", str(out), "--box", str(box.folder)])
    assert isinstance(none.exception, LinesideError)
    assert none.exception.code == "attachment.which"


def test_planted_bug_a_file_that_is_believed_by_its_name_is_found(monkeypatch: pytest.MonkeyPatch, box: Config) -> None:
    by_name = {"bench.png": sha(PNG), "clearing.txt": sha(TEXT.encode())}
    monkeypatch.setattr(attachments, "content_of", lambda path: by_name[path.name])
    with pytest.raises(pytest.fail.Exception):
        test_one_that_is_not_as_named_keeps_the_recipe_out(box, "bench.png", PNG + b"!", "attachment.changed")
