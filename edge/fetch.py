"""The tail after a restore: the rows behind a backup's head, from the second medium and from the hub.

They belong to the epoch that ended and have the numbers that follow the backup's, so they are put into the restored
journal before it appears: once a runtime has begun the next epoch, there is no place for them any more. Either source
must hold the backup's last row; one that holds another row of that number has another history, and nothing of it is
taken. What was found is kept in `tail.json` beside the journal, for the row that begins the next epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge import mqtt
from edge.config import Config
from edge.core import recall
from edge.core.commands import Fetched
from edge.core.errors import LinesideError
from edge.core.frame import Frame
from edge.core.quick import dataclass
from edge.core.record import Row, Signer, fingerprint
from edge.identity import DeviceKey, read_public, sync_folder
from edge.journal import Extension, extended
from edge.mirror import read_mirror

TAIL: Final = "tail.json"
TAIL_BYTES_MAX: Final = 4_096
PATIENCE_S: Final = 30.0
"""A hub that says nothing for so long is not there."""
ASK_AGAIN_S: Final = 3.0

Progress = Callable[[str, int, int], object]
_SEQ_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Hub:
    """Where to ask, as whom, and whose answers to believe."""

    address: mqtt.Address
    public: bytes
    signer: Signer


@dataclass(frozen=True, slots=True)
class Sources:
    """Where rows behind a backup are looked for; None: not asked."""

    mirror: Path | None = None
    hub: Hub | None = None


class Tail(BaseModel):
    """What a restore found. `last_seq` and `last_hash` are the journal's last row after it; the others as in
    `edge.core.events.JournalContinued`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    journal: str = Field(pattern=r"^[0-9a-f]{32}$")
    last_seq: int = Field(ge=1, le=_SEQ_MAX)
    last_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    backup_seq: int = Field(ge=1, le=_SEQ_MAX)
    mirror_seq: int | None = Field(ge=0, le=_SEQ_MAX)
    hub_seq: int | None = Field(ge=0, le=_SEQ_MAX)
    heard_seq: int | None = Field(ge=1, le=_SEQ_MAX)

    @property
    def missing(self) -> int:
        """Rows that somebody has heard of and that are nowhere."""
        return (self.heard_seq or self.last_seq) - self.last_seq

    def as_text(self) -> str:
        """What a person is told."""
        if self.heard_seq is None:
            return f"Rows to {self.last_seq:,} from the backup. Nobody was asked for later ones."
        parts = [f"rows to {self.backup_seq:,} from the backup"]
        for name, seq in (("second medium", self.mirror_seq), ("hub", self.hub_seq)):
            if seq is None:
                parts.append(f"the {name} was not asked")
            elif seq > self.backup_seq:
                parts.append(f"to {seq:,} from the {name}")
            else:
                parts.append(f"the {name} holds none behind them")
        heard = f"The newest row that anyone has heard of is {self.heard_seq:,}"
        if self.missing:
            rows = "1 row is" if self.missing == 1 else f"{self.missing:,} rows are"
            return f"{_sentence(parts)} {heard}: {rows} missing."
        return f"{_sentence(parts)} {heard}: none is known to be missing. The box may have made more."


def _sentence(parts: list[str]) -> str:
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def sources_of(config: Config, *, mirror: Path | None, use_mirror: bool, use_hub: bool) -> Sources:
    """What this box has to ask: the second medium (`mirror` in its place) and the hub of its settings.

    Raises what reading keys and addresses raises."""
    folder = mirror or (config.mirror.path if config.mirror else None)
    hub = None
    if use_hub and config.broker is not None and config.hub is not None:
        hub = Hub(
            mqtt.read_address(config.broker.url, config.broker.ca),
            read_public(config.hub.public_key),
            DeviceKey.load(config.device_key),
        )
    return Sources(folder if use_mirror else None, hub)


def fetch(
    journal: Path, public: bytes, sources: Sources, *, progress: Progress, patience_s: float = PATIENCE_S
) -> Tail:
    """Put the rows that `sources` hold behind those of the closed `journal` into it, and say what was found: durable in
    `tail.json` beside it. `public` is the key of the box that made the backup, and so signed the frames.

    Raises `restore.no_copy`, `restore.copy_unreadable`, `restore.fork` or `restore.hub_silent`; then nothing was
    added."""
    with extended(journal) as rows:
        backup_seq = rows.seq
        heard: list[int] = []
        mirror_seq = hub_seq = None
        if sources.mirror is not None:
            mirror_seq = _from_mirror(sources.mirror, rows, public, heard, progress)
        if sources.hub is not None:
            hub_seq = asyncio.run(_from_hub(sources.hub, rows, heard, progress, patience_s))
        tail = Tail(
            journal=rows.journal_id.hex(),
            last_seq=rows.seq,
            last_hash=rows.hash.hex(),
            backup_seq=backup_seq,
            mirror_seq=mirror_seq,
            hub_seq=hub_seq,
            heard_seq=None if sources == Sources() else max(rows.seq, *heard, 0),
        )
    with (journal.parent / TAIL).open("wb") as file:
        file.write(tail.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(journal.parent)
    return tail


def found(state: Path, journal_id: bytes, last: Row) -> Fetched | None:
    """What the restore found that made the journal end with row `last`; None when there was none, or when what is kept
    speaks of another row. Raises `restore.tail`."""
    path = state / TAIL
    try:
        with path.open("rb") as file:
            tail = Tail.model_validate_json(file.read(TAIL_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise LinesideError(
            "restore.tail",
            f"{path} cannot be read, or was not written by a restore.",
            effect="The runtime does not start: the record would not say which rows are known to be missing.",
            todo="Restore again. Or remove the file: the record then says that nobody was asked.",
        ) from error
    if (tail.journal, tail.last_seq, tail.last_hash) != (journal_id.hex(), last.seq, last.hash.hex()):
        return None
    return Fetched(
        backup_seq=tail.backup_seq, mirror_seq=tail.mirror_seq, hub_seq=tail.hub_seq, heard_seq=tail.heard_seq
    )


# The second medium -------------------------------------------------------------------------------------------------


def _from_mirror(folder: Path, rows: Extension, public: bytes, heard: list[int], progress: Progress) -> int:
    """Add what the copy holds; its last row."""
    path = folder / f"{rows.journal_id.hex()}.frames"
    if not path.is_file():
        raise LinesideError(
            "restore.no_copy",
            f"There is no copy of this journal on the second medium: {path} is not there.",
            effect="Nothing was restored.",
            todo="Put in the medium that the box wrote to, or name its folder with --mirror. To restore without it: "
            "--no-mirror; rows that only it holds then never come into this journal.",
        )
    held_seq = 0
    try:
        for got in read_mirror(path, {fingerprint(public): public}):
            _compare(got, rows, path)
            rows.add([row for row in got.rows if row.seq > rows.seq])
            held_seq = got.last_seq
            heard.append(max(got.made_seq, got.last_seq))
            progress("rows from the second medium", got.last_seq, max(got.made_seq, got.last_seq))
    except OSError as error:
        raise _unreadable(path, str(error.strerror or error)) from error
    except LinesideError as error:
        if error.code in {"restore.fork", "journal.cannot_open"}:
            raise
        if error.code != "mirror.cut":  # that one is a power cut while it was written: the whole frames count
            raise _unreadable(path, error.what) from error
    return held_seq


def _compare(got: Frame, rows: Extension, path: Path) -> None:
    """The last row that both have must be the same one: then all before it are."""
    seq = min(got.last_seq, rows.seq)
    theirs = got.previous if seq < got.first_seq else got.rows[seq - got.first_seq].hash
    ours = rows.hash if seq == rows.seq else rows.hash_at(seq)
    if got.journal != rows.journal_id or (ours is not None and ours != theirs):  # None: archived, and pruned
        raise _fork(f"The copy {path}", seq, "--no-mirror")


def _unreadable(path: Path, why: str) -> LinesideError:
    return LinesideError(
        "restore.copy_unreadable",
        f"The copy {path} cannot be used. {why}",
        effect="Nothing was restored.",
        todo="If another box made the backup, give its public key with --key. To restore without the copy: "
        "--no-mirror; rows that only it holds then never come into this journal.",
    )


def _fork(whose: str, seq: int, option: str) -> LinesideError:
    return LinesideError(
        "restore.fork",
        f"{whose} holds another row {seq} than the backup: it belongs to another journal, or to another life of it.",
        effect="Nothing was restored and nothing was overwritten.",
        todo="Look whether there is a newer backup. If this one is right, ask quality which of both histories counts; "
        f"{option} restores without the other.",
    )


# The hub -----------------------------------------------------------------------------------------------------------


async def _from_hub(hub: Hub, rows: Extension, heard: list[int], progress: Progress, patience_s: float) -> int:
    """Add what the hub holds; its last row."""
    device = fingerprint(hub.signer.public)
    changed = asyncio.Event()
    async with mqtt.session(
        hub.address, f"lineside-{device}", subscribe=[f"lineside/1/down/{device}/tail"], on_change=changed.set
    ) as link:
        while True:
            request = recall.Request(
                device=device,
                journal=rows.journal_id.hex(),
                after_seq=rows.seq,
                after_hash=rows.hash.hex(),
                nonce=token_hex(16),
            )
            answer, got = await _ask(hub, link, changed, request, patience_s)
            if got is not None:
                rows.add(got.rows)
                progress("rows from the hub", rows.seq, max(answer.head_seq, rows.seq))
                continue
            heard.append(max(answer.made_seq, answer.head_seq))
            ours = rows.hash_at(answer.head_seq)
            if answer.state == "unknown":
                return 0
            if answer.state == "fork" or answer.head_seq > rows.seq:
                raise _fork("The hub", rows.seq, "--no-hub")
            if ours is not None and ours.hex() != answer.head_hash:  # None: archived, and pruned
                raise _fork("The hub", answer.head_seq, "--no-hub")
            return answer.head_seq


async def _ask(
    hub: Hub, link: mqtt.Session, changed: asyncio.Event, request: recall.Request, patience_s: float
) -> tuple[recall.Answer, Frame | None]:
    """The hub's answer to `request`, which is sent again until it comes. Raises `restore.hub_silent`."""
    data, why = recall.make_request(request, hub.signer), ""
    try:
        async with asyncio.timeout(patience_s):
            while True:
                changed.clear()
                if not link.connected:
                    await changed.wait()
                    continue
                try:
                    await link.publish(f"lineside/1/up/{request.device}/tail", data)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ASK_AGAIN_S):
                            async for message in link:
                                try:
                                    return recall.read_answer(message.payload, request, hub.public)
                                except LinesideError as error:
                                    why = error.what
                except LinesideError as error:
                    why = error.what
                    await changed.wait()
    except TimeoutError as error:
        if not why:
            why = link.state
            if link.connected:
                why = f"The broker is reached, the hub does not answer. Does it trust this device, {request.device}?"
        raise LinesideError(
            "restore.hub_silent",
            f"The hub gave no answer within {patience_s:g} s. {why}",
            effect="Nothing was restored.",
            todo="Try again when the hub is reached. To restore without it: --no-hub; rows that only it holds then "
            "never come into this journal.",
        ) from error
