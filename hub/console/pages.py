"""What the pages and the JSON beside them show. Everything is folded from what is stored, at the time of asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict, ValidationError

from edge.core.document import FILE_BYTES_MAX
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.review import AsBuilt, batch_record
from edge.library import Checked, check_draft
from hub.receive import Receiver
from hub.store import Chain, Quarantined, Store
from hub.trust import Trust

HERE: Final = Path(__file__).parent
SILENT_S: Final = 90.0
"""A box says hail more often than this when it is connected."""
TOLD_EVERY_S: Final = 1.0
DRAFT_BYTES_MAX: Final = 4 * FILE_BYTES_MAX
"""Of a recipe and a plant file together, in JSON's escapes."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages are made from. `follow` yields after each change; `stop` ends what is still streaming."""

    store: Store
    receiver: Receiver
    trust: Trust
    follow: Callable[[], AsyncIterator[None]]
    stop: asyncio.Event


@dataclass(frozen=True, slots=True)
class Box:
    """One box as the hub knows it. made = received + pending, as the box told it at `told_utc`."""

    device: str
    name: str
    health: str
    """"fork", "untrusted", "pending", "silent", "never" or "ok": the worst that holds."""
    words: str
    made: int
    received: int
    pending: int
    told_utc: str
    told_ago: str
    received_utc: str
    head_hash: str
    journal: str
    epoch: str
    forks: tuple[Quarantined, ...]
    notices: tuple[str, ...]


_WORST_FIRST: Final = ("fork", "untrusted", "pending", "silent", "never", "ok")


async def boxes(console: Console) -> list[Box]:
    """Every box that is trusted or was ever heard of, the worst first."""
    chains, forks = await console.store.chains(), await console.store.forks()
    of: dict[str, list[Chain]] = {}
    for chain in chains:
        of.setdefault(chain.device, []).append(chain)
    now = datetime.now(UTC)
    found = [
        _box(device, console.trust, of.get(device, []), forks.get(device, []), now)
        for device in {*of, *forks, *console.trust.keys}
    ]
    return sorted(found, key=lambda box: (_WORST_FIRST.index(box.health), box.name))


def _box(device: str, trust: Trust, chains: list[Chain], forks: list[Quarantined], now: datetime) -> Box:
    name = trust.names.get(device, device[:12])
    notices = [
        f"Its journal was put back: it goes on from row {chain.base_seq - 1}, "
        f"and {chain.beyond} later rows that are stored here are not in the box."
        for chain in chains
        if chain.beyond
    ]
    if len({chain.journal for chain in chains}) > 1:
        notices.append(f"It has begun {len({chain.journal for chain in chains})} journals; this is the one in use.")
    if not chains:
        health = "fork" if forks else "never"
        words = forks[0].what if forks else "Trusted, and has never sent a row."
        return Box(device, name, health, words, 0, 0, 0, "", "", "", "", "", "", tuple(forks), tuple(notices))
    chain = chains[0]
    ago_s = (now - datetime.fromisoformat(chain.told_utc)).total_seconds()
    if forks:
        health, words = "fork", f"{len(forks)} contradicting frame{'s' if len(forks) > 1 else ''} in quarantine."
    elif device not in trust.keys:
        health, words = "untrusted", "No longer trusted: its rows are kept, new ones are refused."
    elif ago_s > SILENT_S and chain.pending:
        health, words = "pending", f"Silent, with {chain.pending} rows not received when it last spoke."
    elif ago_s > SILENT_S:
        health, words = "silent", "Silent. Everything that it told of was received."
    elif chain.pending:
        health, words = "pending", "Sending."
    else:
        health, words = "ok", "Everything received."
    return Box(
        device=device,
        name=name,
        health=health,
        words=words,
        made=chain.stored_seq + chain.pending,
        received=chain.stored_seq,
        pending=chain.pending,
        told_utc=chain.told_utc,
        told_ago=_ago(ago_s),
        received_utc=chain.received_utc,
        head_hash=chain.head_hash,
        journal=chain.journal,
        epoch=chain.epoch,
        forks=tuple(forks),
        notices=tuple(notices),
    )


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s ago"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 172_800 else f"{seconds / 86_400:.0f} d ago"


@dataclass(frozen=True, slots=True)
class Record:
    """A batch's record and what in its rows this version cannot read."""

    device: str
    box: str
    built: AsBuilt
    unreadable: tuple[str, ...]


async def record(console: Console, device: str, batch: str) -> Record | None:
    """The as-built record of one batch; None when no row started it."""
    readable, unreadable = [], []
    for row in await console.store.batch_rows(device, batch):
        try:
            readable.append((row.seq, decode(row.body)))
        except LinesideError as error:
            unreadable.append(f"Row {row.seq}: {error.what}")
    built = await asyncio.to_thread(batch_record, readable, batch)
    if built is None:
        return None
    return Record(device, console.trust.names.get(device, device[:12]), built, tuple(unreadable))


async def records(console: Console, *, training: bool = False) -> list[Record]:
    """The newest batches, newest first: those for training, or the others, never both."""
    called = await console.store.batches(training=training)
    found = [await record(console, device, batch) for device, batch in called]
    return [one for one in found if one is not None]


def make_app(console: Console) -> FastAPI:
    """The web application. No cookies; it only shows, and checks a draft that it keeps nothing of."""
    one_at_a_time = asyncio.Lock()
    app = FastAPI(title="Lineside hub", docs_url=None, redoc_url=None, openapi_url=None)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["time"] = _time
    templates = Jinja2Templates(env=environment)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")

    @app.middleware("http")
    async def _headers(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    def page(request: Request, name: str, status: int = 200, **facts: Any) -> HTMLResponse:
        facts |= {"receiver": console.receiver, "hub": console.store.hub, "faults": console.trust.faults}
        return templates.TemplateResponse(request, name, facts, status_code=status)

    @app.exception_handler(404)
    async def _absent(request: Request, _error: Exception) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": {"code": "hub.absent", "what": "There is nothing here."}}, 404)
        return page(request, "absent.html", 404)

    @app.get("/")
    async def _boxes(request: Request) -> HTMLResponse:
        return page(request, "boxes.html", boxes=await boxes(console))

    @app.get("/batches")
    async def _batches(request: Request) -> HTMLResponse:
        return page(request, "batches.html", records=await records(console), training=False)

    @app.get("/training")
    async def _training(request: Request) -> HTMLResponse:
        return page(request, "batches.html", records=await records(console, training=True), training=True)

    @app.get("/batches/{device}/{batch:path}")
    async def _batch(request: Request, device: str, batch: str) -> HTMLResponse:
        found = await record(console, device, batch)
        if found is None:
            raise HTTPException(404)
        return page(request, "record.html", record=found, built=found.built)

    @app.get("/quarantine")
    async def _quarantine(request: Request) -> HTMLResponse:
        return page(request, "quarantine.html", frames=await console.store.quarantined(), names=console.trust.names)

    @app.get("/check")
    async def _check(request: Request) -> HTMLResponse:
        return page(request, "check.html")

    @app.post("/api/check")
    async def _api_check(request: Request) -> JSONResponse:
        try:
            draft = read_draft(await _bounded(request))
        except LinesideError as refusal:
            return JSONResponse({"error": refusal.as_json()}, 400)
        async with one_at_a_time:  # it takes up to a second of a processor, which the receiver shares
            checked = await asyncio.to_thread(draft.check)
        return JSONResponse({**checked.as_json(), "text": str(checked)})

    @app.get("/api/boxes")
    async def _api_boxes() -> JSONResponse:
        return JSONResponse({"hub": console.store.hub, "boxes": [asdict(box) for box in await boxes(console)]})

    @app.get("/api/batches")
    async def _api_batches() -> JSONResponse:
        return listed(await records(console))

    @app.get("/api/training")
    async def _api_training() -> JSONResponse:
        return listed(await records(console, training=True))

    def listed(chosen: list[Record]) -> JSONResponse:
        found = [
            {
                "device": one.device,
                "box": one.box,
                "batch": one.built.batch,
                "order": one.built.order,
                "recipe": one.built.recipe,
                "version": one.built.version,
                "state": one.built.state,
                "exceptions": len(one.built.exceptions),
                "as_of_seq": one.built.as_of_seq,
            }
            for one in chosen
        ]
        return JSONResponse({"batches": found})

    @app.get("/api/batches/{device}/{batch:path}")
    async def _api_batch(device: str, batch: str) -> JSONResponse:
        found = await record(console, device, batch)
        if found is None:
            raise HTTPException(404)
        unreadable = list(found.unreadable)
        return JSONResponse({"device": device, "box": found.box, "unreadable": unreadable, **found.built.as_json()})

    @app.get("/api/verify")
    async def _api_verify() -> JSONResponse:
        chains = [
            {
                "device": one.chain.device,
                "journal": one.chain.journal,
                "epoch": one.chain.epoch,
                "rows": one.rows,
                "head_seq": one.chain.stored_seq,
                "head_hash": one.chain.head_hash,
                "verified": one.fault is None,
                "fault": one.fault and {"seq": one.fault.seq, "why": one.fault.why},
            }
            async for one in console.store.verify()
        ]
        verified = all(chain["verified"] for chain in chains)
        return JSONResponse({"verified": verified, "rows": sum(one["rows"] for one in chains), "chains": chains})

    @app.get("/healthz")
    async def _health() -> JSONResponse:
        connected = console.receiver.connected
        return JSONResponse({"ok": connected, "broker": console.receiver.state}, 200 if connected else 503)

    @app.get("/changes")
    async def _changes() -> StreamingResponse:
        return StreamingResponse(_stream(console), media_type="text/event-stream")

    return app


class Draft(BaseModel):
    """A recipe that somebody writes, and the plant file that it is for, as texts."""

    model_config = ConfigDict(extra="forbid", strict=True)
    recipe: str
    plant: str = ""

    def check(self) -> Checked:
        """What the checker says of it."""
        plant = (self.plant.encode(), "plant.yaml") if self.plant.strip() else None
        return check_draft(self.recipe.encode(), "recipe.yaml", plant)


def read_draft(data: bytes) -> Draft:
    """A draft from its JSON. Raises `hub.draft`."""
    try:
        return Draft.model_validate_json(data)
    except ValidationError as error:
        raise LinesideError(
            "hub.draft",
            f"This is no draft of a recipe: {error.errors()[0]['msg']}.",
            effect="Nothing was checked.",
            todo='Send JSON like {"recipe": "...", "plant": "..."}; `plant` may be left out.',
        ) from None


async def _bounded(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > DRAFT_BYTES_MAX:
            raise LinesideError(
                "hub.draft_too_long",
                f"The draft has more than {DRAFT_BYTES_MAX:,} bytes.",
                effect="Nothing was checked.",
                todo="A recipe has at most a mebibyte.",
            )
    return bytes(data)


async def _stream(console: Console) -> AsyncIterator[str]:
    """One event after each change, at most one a TOLD_EVERY_S, until the hub stops."""
    yield "retry: 2000\n\n"
    follower = console.follow()
    stopped = asyncio.ensure_future(console.stop.wait())
    try:
        while not stopped.done():
            changed = asyncio.ensure_future(anext(follower))
            await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not changed.done():
                changed.cancel()
                return
            yield "event: changed\ndata: \n\n"
            await asyncio.wait({stopped}, timeout=TOLD_EVERY_S)
    finally:
        stopped.cancel()


def _time(utc: str) -> str:
    """A time as people read it: date and seconds; the exact one is in the record."""
    return utc[:19].replace("T", " ") if utc else "–"
