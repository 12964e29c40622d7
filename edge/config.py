"""The box's settings: one TOML file, `lineside.toml`, read into one frozen model.

Relative paths are relative to the box folder. Everything wrong with a file is reported in one look, each
finding with its line, and nothing is started.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from edge.core.errors import LinesideError, Place
from edge.core.lifecycle import Approval
from edge.core.profiles import PROFILES, Profile

CONFIG_NAME: Final = "lineside.toml"
CONFIG_BYTES_MAX: Final = 262_144
LINE_LENGTH_MAX: Final = 1_000  # tomllib's time grows with the square of a dotted key's length
SOCKET_PATH_BYTES_MAX: Final = 107  # struct sockaddr_un on Linux, less its closing zero

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
Url = Annotated[str, StringConstraints(pattern=r"^mqtts?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(:[0-9]{1,5})?$")]


class Document(BaseModel):
    """Base of what a TOML file of the box holds: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Broker(Document):
    """Where frames go. Without this table the box has no hub and opens no connection."""

    url: Url = Field(
        examples=["mqtt://hub.example:1883"],
        description="Address of an MQTT 5 broker: mqtt://host:port, or mqtts://host:port with TLS.",
    )
    ca: Path | None = Field(
        default=None,
        examples=["broker-ca.pem"],
        description="PEM file with the authority that signed the broker's certificate.",
    )


class HubTrust(Document):
    """Whose receipts this box believes."""

    public_key: Path = Field(examples=["hub.pub"], description="File with the hub's public key: 64 hex digits.")


class Mirror(Document):
    """A second medium that gets a copy of every frame."""

    path: Path = Field(
        examples=["/media/lineside"],
        description="Folder on the second medium. It may be absent for a while; the screen says so.",
    )


class Archive(Document):
    """Where old rows go, so that the journal does not grow for ever. Without this table every row stays in it."""

    path: Path = Field(
        default=Path("state/archive"), examples=["/media/archive/box-7"], description="Folder of the segments."
    )
    external: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="True when the folder is on a medium of its own: rows read back from it count as safe. It is then "
        "never made by itself. Without it rows are safe once the hub says so.",
    )
    keep_rows: Annotated[int, Field(strict=True, ge=1_000, le=1_000_000_000)] = Field(
        default=200_000, description="So many of the newest rows stay in the journal; older ones are archived ..."
    )
    keep_days: Annotated[int, Field(strict=True, ge=1, le=36_500)] = Field(
        default=30, description="... and so are rows older than this, whichever comes first."
    )


class Backup(Document):
    """Where the day's backup goes, made and tried at `self_check_at`. Without this table a person makes backups."""

    path: Path = Field(
        examples=["/media/backup/box-7"],
        description="Folder on a medium of its own. It is never made by itself; while the medium is out the screen "
        "says that no backup was made.",
    )
    keep: Annotated[int, Field(strict=True, ge=1, le=3_650)] = Field(
        default=7, description="So many of the newest backups of this journal stay in the folder."
    )
    with_values: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="Whether process values are in it: most of its size."
    )


class Numbers(Document):
    """The batch numbers that this box gives by itself. No two boxes may have numbers in common."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./\-]{0,31}$")] = Field(
        examples=["B7-26-"], description="What each number begins with."
    )
    first: Annotated[int, Field(strict=True, ge=1, le=999_999_999)] = Field(default=1, description="The first one.")
    last: Annotated[int, Field(strict=True, ge=1, le=999_999_999)] = Field(
        examples=[9999], description="The last one. The screen warns when fewer than a tenth are left."
    )
    digits: Annotated[int, Field(strict=True, ge=1, le=9)] = Field(
        default=4, description="At least so many digits are written."
    )


class History(Document):
    """How long process values are kept whole. What belongs to a batch's record is never thinned."""

    keep_days: Annotated[float, Field(strict=True, ge=1, le=36_500)] = Field(
        default=90.0, description="After so many days process values outside every batch's record are thinned."
    )
    thin_to_s: Annotated[int, Field(strict=True, ge=0, le=3600)] = Field(
        default=60,
        description="Of each so many seconds first, lowest, highest and last value stay, and quality changes. 0: none.",
    )


class Config(Document):
    """All settings of one box. `folder` is where the file stood; every path is absolute."""

    folder: Path = Field(exclude=True)
    box: Name = Field(description="The box's name, as people call it.")
    state_dir: Path = Field(
        default=Path("state"), description="Folder of the journal and everything else that changes."
    )
    plant: Path = Field(default=Path("plant.yaml"), description="The plant file: connections, units, tags.")
    recipes: Path = Field(
        default=Path("recipes"),
        description="Folder of recipe files: drafts, or with from_folder all that may be started here.",
    )
    profile: Profile = Field(
        default=Profile.SINGLE_SITE_GMP,
        description="What the box is for: equipment_check, process_development, single_site_gmp or multi_site_gmp. "
        "What follows is a table: docs/explanation/profiles.md.",
    )
    ad_hoc: Annotated[tuple[Name, ...], Field(max_length=100)] = Field(
        default=(),
        examples=[["EQ-DAILY"]],
        description="Recipes that are started without an order and without a batch number to type: checks, cleaning, "
        "calibration, line clearance.",
    )
    recipe_approval: Approval | None = Field(
        default=None,
        examples=["two_signatures"],
        description="How recipes become effective: two_signatures (GMP) or one_signature, as signed rows; from_folder: "
        "what is in the folder of recipes may be started, and nobody signs. Without it the profile says.",
    )
    directory: Path = Field(default=Path("directory.toml"), description="The people who may log in.")
    device_key: Path = Field(
        default=Path("device.key"), description="The device's private key; readable by its owner only."
    )
    former_keys: tuple[Path, ...] = Field(
        default=(),
        examples=[["device-before-2027.pub"]],
        description="device.pub of the boxes that this one took over from: they sealed the older rows and segments.",
    )
    desk_socket: Path = Field(
        default=Path("state/desk.sock"), description="Local socket between runtime, follower, screen and command line."
    )
    speed: Annotated[float, Field(strict=True, ge=1, le=100_000)] = Field(
        default=1.0,
        description="1.0 for production. More compresses process time and marks records as not for release.",
    )
    training_speed: Annotated[float, Field(strict=True, ge=1, le=100_000)] = Field(
        default=1.0,
        examples=[60.0],
        description="Process time of training batches passes so many times as fast: with simulated equipment that "
        "runs as fast, a trainee need not wait for days.",
    )
    views: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="Whether the follower keeps state/views.db: what the journal says, for search and SQLite tools.",
    )
    self_check_at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        default="03:00",
        examples=["03:00"],
        description="When the follower verifies the whole record each day, in UTC. The screen's home shows the result.",
    )
    broker: Broker | None = Field(default=None, description="The broker between box and hub.")
    hub: HubTrust | None = Field(default=None, description="The hub that this box reports to.")
    mirror: Mirror | None = Field(default=None, description="The second medium.")
    numbers: Numbers | None = Field(default=None, description="The batch numbers that this box gives.")
    history: History = Field(default=History(), description="Process values.")
    archive: Archive | None = Field(default=None, description="Where old rows go.")
    backup: Backup | None = Field(default=None, description="Where the day's backup goes.")

    @property
    def approval(self) -> Approval:
        """How recipes become effective here."""
        return self.recipe_approval or PROFILES[self.profile].recipe_approval


def read_config(folder: Path) -> Config:
    """The settings in `folder`/lineside.toml. Raises `LinesideError` with a `config.*` code otherwise."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links that an engineer set on purpose
    file = folder / CONFIG_NAME
    text = read_text(file)
    config = read_document(file, text, Config, folder=folder)
    updates: dict[str, Any] = {
        name: folder / getattr(config, name)
        for name in ("state_dir", "plant", "recipes", "directory", "device_key", "desk_socket")
    }
    updates["former_keys"] = tuple(folder / key for key in config.former_keys)
    if config.broker and config.broker.ca:
        updates["broker"] = config.broker.model_copy(update={"ca": folder / config.broker.ca})
    if config.hub:
        updates["hub"] = config.hub.model_copy(update={"public_key": folder / config.hub.public_key})
    if config.mirror:
        updates["mirror"] = config.mirror.model_copy(update={"path": folder / config.mirror.path})
    if config.archive:
        updates["archive"] = config.archive.model_copy(update={"path": folder / config.archive.path})
    if config.backup:
        updates["backup"] = config.backup.model_copy(update={"path": folder / config.backup.path})
    config = config.model_copy(update=updates)
    _raise_all(list(_path_findings(config, file, text)))
    return config


def read_text(file: Path) -> str:
    """The text of a settings file, bounded in size."""
    try:
        with file.open("rb") as stream:
            data = stream.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise LinesideError(
            "config.missing",
            f"There is no file {file}.",
            todo='Name the right folder, or make one: "lineside device init DIR", "lineside hub init DIR".',
            place=Place(str(file)),
        ) from error
    except OSError as error:
        raise LinesideError(
            "config.unreadable",
            f"{file} cannot be read: {error.strerror}.",
            todo="Give the account that Lineside runs under permission to read the file.",
            place=Place(str(file)),
        ) from error
    if len(data) > CONFIG_BYTES_MAX:
        raise LinesideError(
            "config.too_large",
            f"{file} is larger than {CONFIG_BYTES_MAX // 1024} KiB.",
            todo="Look whether it is the right file.",
            place=Place(str(file)),
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LinesideError(
            "config.not_utf8",
            f"Line {line} holds bytes that are not UTF-8 text.",
            todo="Save the file as UTF-8.",
            place=Place(str(file), line),
        ) from error
    for number, line_text in enumerate(text.splitlines(), 1):
        if len(line_text) > LINE_LENGTH_MAX:
            raise LinesideError(
                "config.line_too_long",
                f"Line {number} is longer than {LINE_LENGTH_MAX} characters.",
                todo="Look whether it is the right file.",
                place=Place(str(file), number),
            )
    return text


DocumentT = TypeVar("DocumentT", bound=BaseModel)


def read_document(file: Path, text: str, model: type[DocumentT], **given: object) -> DocumentT:
    """`text` of a TOML file as `model`. What is `given` comes from the caller and may not stand in the file."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also covers a number of too many digits
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        what = re.sub(r"\s*\(at .*\)$", "", str(error)) if isinstance(error, ValueError) else "it is nested too deeply"
        raise LinesideError(
            "config.not_toml",
            f"This is not TOML: {what}.",
            todo='A setting is written: name = "text", or name = 1.0. A table begins with [name].',
            place=Place(str(file), int(at[1]), int(at[2])) if at else Place(str(file)),
        ) from error
    findings = [_unknown_key(file, text, (key,), model) for key in given if key in data]
    try:
        document = model.model_validate({**data, **given})
    except ValidationError as error:
        findings += [_finding(file, text, detail, model) for detail in error.errors(include_url=False)]
        _raise_all(findings)
        raise  # not reached: a ValidationError has at least one detail
    _raise_all(findings)
    return document


def _raise_all(findings: Sequence[LinesideError]) -> None:
    if findings:
        first, *others = findings
        first.others = tuple(others)
        raise first


Location = tuple[str | int, ...]


def _finding(file: Path, text: str, detail: ErrorDetails, model: type[BaseModel]) -> LinesideError:
    location = detail["loc"]
    name = ".".join(str(part) for part in location)
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(file, text, location, model)
        case "missing":
            return LinesideError(
                "config.required",
                f'The setting "{name}" is not there.',
                todo=f'Add "{location[-1]}": see docs/reference/settings.md.',
                place=_place(file, text, location[:-1]),
            )
        case kind if kind.endswith(("_type", "_parsing")):
            return LinesideError(
                "config.type",
                f'"{name}" is of the wrong kind: {detail["msg"][:1].lower()}{detail["msg"][1:]}.',
                todo="Texts stand in quotation marks, numbers and true or false do not.",
                place=_place(file, text, location),
            )
        case _:
            return LinesideError(
                "config.value",
                f'"{name}" cannot be {str(detail["input"])[:60]!r}: {detail["msg"][:1].lower()}{detail["msg"][1:]}.',
                todo=f'Correct "{location[-1]}": see docs/reference/settings.md.',
                place=_place(file, text, location),
            )


def _unknown_key(file: Path, text: str, location: Location, model: type[BaseModel]) -> LinesideError:
    known = _keys_at(model, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, 1)
    return LinesideError(
        "config.unknown_key",
        f'There is no setting "{".".join(str(part) for part in location)}".',
        todo=f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known)}.",
        place=_place(file, text, location),
    )


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that may stand in the table at `location`."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # the name of an entry in a table of tables
        inner = [m for m in _models_in(field.annotation) if issubclass(m, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _place(file: Path, text: str, location: Location) -> Place:
    """Where the setting stands, or the nearest thing around it that stands in the file."""
    wanted = [str(part) for part in location]
    for length in range(len(wanted), 0, -1):
        for number, column, path in _keys(text):
            if path == wanted[:length]:
                return Place(str(file), number, column)
    return Place(str(file))


def _keys(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Line, column and full path of each key and table header, as far as they stand one to a line."""
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        column = len(line) - len(line.lstrip()) + 1
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = _parts(header[1])
            yield number, column, table
        elif key := re.match(
            r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""", line
        ):
            yield number, column, table + _parts(key[1])


def _parts(dotted: str) -> list[str]:
    return [a or b or c for a, b, c in re.findall(r"""([A-Za-z0-9_-]+)|"([^"]*)"|'([^']*)'""", dotted)]


def _path_findings(config: Config, file: Path, text: str) -> Iterator[LinesideError]:
    must_exist: list[tuple[Location, Path]] = [
        (("plant",), config.plant),
        (("recipes",), config.recipes),
        (("directory",), config.directory),
        (("device_key",), config.device_key),
        *((("former_keys",), key) for key in config.former_keys),
    ]
    if config.broker and config.broker.ca:
        must_exist.append((("broker", "ca"), config.broker.ca))
    if config.hub:
        must_exist.append((("hub", "public_key"), config.hub.public_key))
    for location, path in must_exist:
        if not os.path.exists(path):  # noqa: PTH110 - of a name too long for any file it only says no
            yield LinesideError(
                "config.path_missing",
                f'"{".".join(str(part) for part in location)}" is {path}, and nothing is there.',
                todo='Correct the path, or make the file ("lineside device init DIR" makes all that a box needs).',
                place=_place(file, text, location),
            )
    if len(os.fsencode(config.desk_socket)) > SOCKET_PATH_BYTES_MAX:
        yield LinesideError(
            "config.socket_path_long",
            f"The path of the desk socket, {config.desk_socket}, is longer than {SOCKET_PATH_BYTES_MAX} bytes.",
            todo='Set "desk_socket" to a short path, for example under /run/lineside.',
            place=_place(file, text, ("desk_socket",)),
        )
