"""The desk: the local Unix socket through which everything from outside reaches the engine.

One typed message a line (`edge.wire`). What a person asks is decided, journaled and durable before it is
answered. The socket is open to the box's own group only; a person proves who they are with badge and PIN.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

import orjson
from pydantic import ValidationError

from edge import wire
from edge.approval import Approvals
from edge.clock import Clock
from edge.core import commands as cm
from edge.core import darkness
from edge.core.approve import recipes_not_permitted, state_of
from edge.core.by_hand import BY_HAND, SWITCHED
from edge.core.by_hand import PERMISSION as PERMITTED_BY
from edge.core.decide import refuse_locked
from edge.core.errors import LinesideError
from edge.core.forms import TEXT_CHARS_MAX, is_form, open_ask
from edge.core.frame import RECEIPT_BYTES_MAX, Receipt, read_receipt
from edge.core.gs1 import EXPIRED, as_text
from edge.core.lifecycle import PERMISSION, RecipeAct, RecipeState
from edge.core.lifecycle import meaning as meaning_of
from edge.core.mode import HandAct
from edge.core.orders import NOT_TAKEN, ORDER_DOMAIN, Order, read_order
from edge.core.people import SIGNATURE_DOMAIN, Permission, attested_bytes, permitted
from edge.core.proposals import PROPOSAL_NOT_TAKEN, Proposal, is_proposal, read_proposal
from edge.core.pseudonym import alike, is_pseudonym
from edge.core.recipe.amend import Change
from edge.core.recipe.model import Record, Scan, Step
from edge.core.recipe.values import said
from edge.core.record import Signer, signature_holds
from edge.core.terms import Act, Role, Stamp
from edge.core.training import CODE
from edge.directory import Directory, Person
from edge.engine import Engine
from edge.identity import sync_folder
from edge.journal import Journal
from edge.library import Library
from edge.picture import picture
from edge.prune import Pruner
from edge.vault import PART_CHARS_MIN, Vault

_log = logging.getLogger("lineside.desk")

CLIENTS_MAX: Final = 32
DRAFTS_MAX: Final = 200
PICTURES_PER_S_MAX: Final = 10
AMENDED: Final = "the batch needs to be amended, for this reason"
CORRECTED: Final = "the value that was entered is wrong; this one is right"
CONTINUED: Final = "rows that are missing after the restore are lost; the batch goes on"
"""The meaning of the signature that ends a restored batch's hold."""
_OFFER: Final = b'"offer_recipe"'
"""Stands in a request that takes seconds, and as it stands in no other: a quote in a text has a backslash before it."""
ENTRIES: Final[Mapping[type[wire.Message], Callable[..., cm.Command]]] = {
    wire.ConfirmStep: cm.ConfirmStep,
    wire.EnterValue: cm.EnterValue,
    wire.ScanCode: cm.ScanCode,
}
"""What a person does at a step, as the line takes it: the fields have the same names."""
for _built in (wire.REQUEST.rebuild, wire.Picture.model_rebuild):
    _built()  # now: the first screen must not keep a line at work waiting for it


class Drafts:
    """What was typed and not yet entered, kept through a crash. Not a record: nothing here happened yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = asyncio.Lock()
        self.texts: dict[tuple[str, str], str] = {}
        try:
            kept = json.loads(path.read_bytes())
            self.texts = {(str(d["batch"]), str(d["step"])): str(d["text"]) for d in kept}
        except (OSError, ValueError, KeyError, TypeError):
            self.texts = {}  # a draft file that is torn or cannot be read costs what was half typed, never a record

    async def save(self, batch: str, step: str, text: str) -> None:
        """Keep the text for a step, durable when this returns; an empty text removes it."""
        key = (batch, step)
        if self.texts.get(key, "") == text:
            return
        self.texts.pop(key, None)
        if text:
            self.texts[key] = text
        while len(self.texts) > DRAFTS_MAX:
            del self.texts[next(iter(self.texts))]
        async with self._writing:
            kept = [{"batch": b, "step": s, "text": t} for (b, s), t in self.texts.items()]
            try:
                await asyncio.to_thread(self._write, orjson.dumps(kept))
            except OSError as error:
                raise LinesideError(
                    "desk.draft_not_saved",
                    f"What you typed so far cannot be kept through a power cut: {error.strerror}.",
                    effect="It stands on this screen only. Entering it still works as long as rows can be written.",
                    todo="Enter it soon, and look at `lineside disk status`.",
                ) from error

    def _write(self, data: bytes) -> None:
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self._path)
        sync_folder(self._path.parent)


class Desk:
    """Serves one socket for one engine."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        directory: Directory,
        signer: Signer,
        clock: Clock,
        *,
        box: str,
        speed: float,
        training_speed: float,
        drafts: Drafts,
        vault: Vault,
        approvals: Approvals,
        sync: wire.Sync,
        hub_public: bytes | None,
        connections: Callable[[], Mapping[str, str]],
        notices: Callable[[], tuple[str, ...]] = tuple,
        library: Library,
        pruner: Pruner | None = None,
    ) -> None:
        """`sync` is what is known before the follower speaks; `hub_public` is the hub's key, None without a hub, and
        `pruner` is None without an archive."""
        self.engine = engine
        self.journal = journal
        self.directory = directory
        self.signer = signer
        self.clock = clock
        self.box = box
        self.speed = speed
        self.training_speed = training_speed
        self.drafts = drafts
        self.vault = vault
        self.naming = asyncio.Lock()
        """Held from a patient's pseudonym to the row that names it, and while one is erased: never both at once."""
        self.approvals = approvals
        self.sync = sync
        self.hub_public = hub_public
        self.connections = connections
        self.notices = notices
        self.library = library
        self.pruner = pruner
        self._clients: set[_Client] = set()

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Listen at `path` while the block runs. A socket that a dead runtime left is replaced; a live one is not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await self._forget_identities()
        await _refuse_live(path)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve_client, path, limit=wire.LINE_BYTES_MAX)
        path.chmod(0o660)
        painter = asyncio.create_task(self._paint(), name="edge.desk.pictures")
        try:
            yield
        finally:
            painter.cancel()
            server.close()
            for client in list(self._clients):
                client.writer.close()
            await asyncio.gather(painter, *(client.task for client in self._clients), return_exceptions=True)
            path.unlink(missing_ok=True)

    async def _forget_identities(self) -> None:
        """No draft of a scan is kept, it may be a patient's; an earlier version did so."""
        for batch, step in list(self.drafts.texts):
            if isinstance(self.step(batch, step), Scan):
                try:
                    await self.drafts.save(batch, step, "")
                except LinesideError as error:
                    if error.code != "desk.draft_not_saved":
                        raise
                    # no draft can be written now; the next one that can be takes it out of the file

    def step(self, batch_id: str, step: str) -> Step | None:
        """The step of a batch, by its recipe; None when there is no such batch or step."""
        batch = self.engine.line.batches.get(batch_id)
        return self.engine.line.recipe(batch).steps().get(step) if batch else None

    async def hide(self, text: str, *, parts: bool = True, others: bool = True) -> str:
        """See `Vault.hide`."""
        return await asyncio.to_thread(self.vault.hide, text, parts=parts, others=others) if text else text

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        client = _Client(self, reader, writer, task)
        if len(self._clients) >= CLIENTS_MAX:
            writer.close()
            return
        self._clients.add(client)
        try:
            await client.run()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other end went, or the desk closes: what was decided stays decided
        except LinesideError as error:
            if error.code not in {"journal.failed", "journal.closed"}:
                raise
            # the end of a session could not be written: the process ends for the same reason
        finally:
            self._clients.discard(client)
            writer.close()

    async def _paint(self) -> None:
        """Send pictures to those who watch, after each change and once a second for what ages. A picture that cannot be
        made ends the connection it was for: a screen that says that it is cut off is better than one that stands."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.engine.changed.wait()
            self.engine.changed.clear()
            for client in list(self._clients):
                if client.watching:
                    try:
                        client.send_picture()
                    except Exception:  # noqa: BLE001  edge of a task that serves every screen: it must go on
                        _log.exception("a picture cannot be made")
                        client.writer.close()
            await asyncio.sleep(1.0 / PICTURES_PER_S_MAX)

    def picture(self, person: Person | None) -> wire.Picture:
        """What this person's terminal shows now."""
        return picture(
            self.engine.shown,
            self.engine.reading,
            self.clock.stamp(),
            box=self.box,
            made_seq=self.journal.head_seq,
            sync=self.sync,
            person=_view(person) if person else None,
            people=[_view(p) for p in self.directory.people.values()],
            connections=self.connections(),
            drafts=self.drafts.texts,
            notices=self.notices(),
        )

    def tell_sync(self, sync: wire.Sync) -> None:
        """The follower's state of sync, for the strip."""
        if sync != self.sync:
            self.sync = sync
            self.engine.changed.set()


class _Client:
    """One connection: a terminal, the follower, or the command line."""

    def __init__(
        self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        self.desk = desk
        self.reader = reader
        self.writer = writer
        self.task = task
        self.session = ""
        self.person: Person | None = None
        self.watching = False
        self._offering: asyncio.Task[None] | None = None
        """A recipe is being rehearsed, which takes seconds: whoever stops a batch meanwhile must not wait for it."""

    async def run(self) -> None:
        try:
            while line := await self._line():
                if _OFFER in line:
                    if self._offering is not None:
                        await self._offering  # one recipe at a time for each terminal
                    self._offering = asyncio.create_task(self._offer(line), name="edge.desk.offer")
                else:
                    await self._reply(line)
        finally:
            self.desk.engine.let_go(self)
            if self._offering is not None:
                self._offering.cancel()
                await asyncio.gather(self._offering, return_exceptions=True)
        if self.session:
            await self.desk.engine.submit(cm.CloseSession(session=self.session, reason="the terminal went away"))

    async def _reply(self, line: bytes) -> None:
        answer = await self._answer(line)
        self.writer.write(answer + b"\n")
        await self.writer.drain()

    async def _offer(self, line: bytes) -> None:
        try:
            await self._reply(line)
        except ConnectionError:
            pass  # the other end went; no row was made
        except Exception:  # noqa: BLE001  edge of a task: the terminal must not wait for ever
            _log.exception("a recipe could not be offered")
            self.writer.close()

    async def _line(self) -> bytes:
        try:
            return await self.reader.readline()
        except ValueError:
            return b""  # beyond the bound of a line: nothing after it can be trusted

    async def _answer(self, line: bytes) -> bytes:
        request_id = ""
        try:
            request = wire.REQUEST.validate_json(line)
            request_id = request.id
            facts = await self._do(request)
            return orjson.dumps({"id": request_id, "ok": True, **facts})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            refusal = LinesideError(
                "desk.message",
                f"The desk does not understand this message: {where}: {first['msg']}.",
                todo="Use a screen of the same version as the box.",
            )
            with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
                request_id = str(orjson.loads(line).get("id", ""))[:64]
            return orjson.dumps({"id": request_id, "ok": False, "error": refusal.as_json()})
        except LinesideError as refusal:
            return orjson.dumps({"id": request_id, "ok": False, "error": refusal.as_json()})

    async def _do(self, request: wire.Request) -> dict[str, Any]:
        engine = self.desk.engine
        match request:
            case wire.LogIn():
                return await self._log_in(request)
            case wire.LogOut():
                await self._log_out("logged out")
            case wire.Watch():
                self.watching = True
                self.send_picture()
            case wire.AskStatus():
                return {"picture": self.desk.picture(self.person).model_dump(mode="json")}
            case wire.HoldUnit():
                engine.hold_unit(request.unit, self)
            case wire.GiveOrder():
                await self._give_order(request)
            case wire.CancelOrder():
                reason = await self.desk.hide(request.reason)
                await engine.submit(
                    cm.CancelOrder(command_id=request.id, session=self.session, order=request.order, reason=reason)
                )
            case wire.StartBatch():
                return {"batch": await self._start_batch(request)}
            case wire.ActOnBatch():
                await engine.submit(
                    cm.ActOnBatch(
                        command_id=request.id,
                        session=self.session,
                        batch=request.batch,
                        act=Act(request.act),
                        reason=await self.desk.hide(request.reason),
                    )
                )
            case wire.EraseIdentity():
                await self._erase_identity(request)
            case wire.ContinueBatch():
                await self._continue(request)
            case wire.ConfirmStep() | wire.EnterValue() | wire.ScanCode():
                await self._enter(request)
            case wire.SignStep():
                await self._sign(request)
            case wire.AddResult():
                await self._add_result(request)
            case wire.OfferRecipe():
                return {"recipe": await self._offer_recipe(request)}
            case wire.ShowRecipe():
                self._need_session()
                return {"recipe": await self.desk.approvals.show(request.recipe, RecipeAct(request.act))}
            case wire.ListRecipes():
                return await self.desk.approvals.listed()
            case wire.SignRecipe():
                await self._sign_recipe(request)
            case wire.AnswerQuestion():
                await self._answer_question(request)
            case wire.SaveDraft():
                self._need_session()
                if not isinstance(self.desk.step(request.batch, request.step), Scan):
                    await self.desk.drafts.save(request.batch, request.step, await self.desk.hide(request.text))
            case wire.CorrectValue():
                await self._correct(request)
            case wire.RequestAmendment():
                await self._request_amendment(request)
            case wire.SettleAmendment():
                await self._settle_amendment(request)
            case wire.ReadAttachment():
                return await asyncio.to_thread(self._attachment_part, request)
            case wire.SwitchMode():
                await self._switch_mode(request)
            case wire.EnterByHand():
                await self._enter_by_hand(request)
            case wire.EnterDark():
                await self._enter_dark(request)
            case wire.AcknowledgeAlarm():
                facts = request.model_dump(exclude={"id", "do"})
                await engine.submit(cm.AcknowledgeAlarm(command_id=request.id, session=self.session, **facts))
            case wire.GiveReceipt():
                await self._take_receipt(request)
            case wire.ThinValues():
                await self.desk.engine.submit(
                    cm.ThinValues(**request.model_dump(exclude={"id", "do"}), command_id=request.id)
                )
            case wire.TellSync():
                self.desk.tell_sync(request.sync)
            case wire.PruneRows():
                return {"pruned_seq": await self._prune(request)}
            case wire.TellSelfCheck():
                facts = request.model_dump(exclude={"id", "do"})
                await engine.submit(cm.NoteSelfCheck(command_id=request.id, **facts))
            case wire.TellDrill():
                facts = request.model_dump(exclude={"id", "do"})
                await engine.submit(cm.NoteDrill(command_id=request.id, **facts))
            case _:
                assert_never(request)
        return {}

    def _attachment_part(self, request: wire.ReadAttachment) -> dict[str, Any]:
        recipes = self.desk.engine.shown.book.recipes.values()
        if not any(request.sha256 in recipe.attached() for recipe in recipes):
            raise LinesideError(
                "attachment.unknown",
                "No recipe on this box names this attachment.",
                effect="Nothing was opened.",
                todo="Open one that the step shows.",
            )
        path = self.desk.library.attachment(request.sha256)
        with path.open("rb") as stream:
            stream.seek(request.offset)
            data = stream.read(wire.ATTACHMENT_PART_BYTES)
        return {"data": base64.b64encode(data).decode(), "size": path.stat().st_size}

    async def _enter(self, request: wire.ConfirmStep | wire.EnterValue | wire.ScanCode) -> None:
        """What a person does at a step. The draft of it goes; a refused scan is a row first, then it is said."""
        self._need_session()
        facts = request.model_dump(exclude={"id", "do"})
        if isinstance(request, wire.ScanCode):
            facts |= await self._scanned(request)
        elif isinstance(request, wire.EnterValue):
            step = self.desk.step(request.batch, request.step)
            free = isinstance(step, Record) and step.type == "text"
            facts["text"] = await self.desk.hide(request.text, parts=free, others=free)
        command = ENTRIES[type(request)](command_id=request.id, session=self.session, **facts)
        await self.desk.engine.submit(command)
        try:
            await self.desk.drafts.save(request.batch, request.step, "")
        except LinesideError as error:
            if error.code != "desk.draft_not_saved":
                raise
            # the entry is a durable row: a draft left behind is shown again at most, and never entered by itself
        _raise_refused_scan(self.desk.engine.shown.answered.get(request.id, ""))

    def send_picture(self) -> None:
        """Push a picture, unless the client is slow to read: it gets the next one."""
        if self.writer.transport.get_write_buffer_size() > wire.LINE_BYTES_MAX:
            return
        body = self.desk.picture(self.person).model_dump_json()
        self.writer.write(b'{"picture":' + body.encode() + b"}\n")

    # Patients -----------------------------------------------------------------------------------------------

    async def _give_order(self, request: wire.GiveOrder) -> None:
        """Take an order; the refusal of one that can be read is a row first."""
        if is_proposal(request.text.encode()):
            await self._take_proposal(request)
            return
        order = read_order(request.text.encode())
        trusted = self._signed_by_hub(request, order)
        if not trusted:
            self._need_session()
        said = (order.order, order.number, order.quantity, *order.parameters.values())
        if any([await self.desk.hide(text, others=False) != text for text in said]):
            raise LinesideError(
                "order.identity",
                "A patient identity stands in the order: orders are shown and kept.",
                effect=NOT_TAKEN,
                todo="Have it made anew without; the identity is scanned when the batch is started.",
            )
        facts: dict[str, Any] = {"session": self.session, "order": order, "way": request.way, "trusted": trusted}
        await self.desk.engine.submit(cm.ReceiveOrder(command_id=request.id, **facts))
        if why := self.desk.engine.shown.answered.get(request.id, ""):
            raise LinesideError(
                "order.refused", why, effect=NOT_TAKEN, todo="Have it made anew under an id of its own, if it is right."
            )

    async def _take_proposal(self, request: wire.GiveOrder) -> None:
        """Take what the hub proposes; the refusal of one that it signed is a row first."""
        proposal = read_proposal(request.text.encode())
        if not self._signed_by_hub(request, proposal):
            raise LinesideError(
                "proposal.unsigned",
                "A proposal must bear the signature of this box's hub.",
                effect=PROPOSAL_NOT_TAKEN,
                todo="Have it signed for this box (lineside hub order), or amend the batch at the screen.",
            )
        said = (proposal.reason, *(one.new for one in proposal.changes))
        if any([await self.desk.hide(text) != text for text in said]):
            raise LinesideError(
                "order.identity",
                "A patient identity stands in the proposal: proposals are shown and kept.",
                effect=PROPOSAL_NOT_TAKEN,
                todo="Have it made anew without.",
            )
        await self.desk.engine.submit(cm.TakeProposal(command_id=request.id, proposal=proposal, way=request.way))
        if why := self.desk.engine.shown.answered.get(request.id, ""):
            raise LinesideError(
                "proposal.refused",
                why,
                effect=PROPOSAL_NOT_TAKEN,
                todo="Have it made anew under an id of its own, if it is right.",
            )

    def _signed_by_hub(self, request: wire.GiveOrder, order: Order | Proposal) -> bool:
        """True when the hub signed it for this box; raises when there is a signature that does not hold."""
        if not request.signature:
            return False
        message = self.desk.signer.public + order.as_bytes()
        signature, hub = bytes.fromhex(request.signature), self.desk.hub_public
        if hub is None or not signature_holds(hub, ORDER_DOMAIN, message, signature):
            raise LinesideError(
                "order.signature",
                "The order does not bear a signature of this box's hub, made for this box.",
                effect=NOT_TAKEN,
                todo="Have it signed anew for this box: lineside hub order.",
            )
        return True

    async def _start_batch(self, request: wire.StartBatch) -> str:
        """Returns its number; what was asked for when the request is a repeated one."""
        self._need_session()
        async with self.desk.naming:
            rows = await self.desk.engine.submit(
                cm.StartBatch(
                    command_id=request.id,
                    session=self.session,
                    batch=request.batch,
                    order=request.order,
                    seal=request.recipe,
                    patient=await self._ordered(request),
                    speed=self.desk.training_speed if request.training else self.desk.speed,
                    queue=request.queue,
                    training=request.training,
                )
            )
        return rows[0].event.batch if rows else request.batch

    async def _ordered(self, request: wire.StartBatch) -> str:
        """The pseudonym of the patient that a batch is to be started for; empty without a patient."""
        identity = request.patient.strip()
        if request.id in self.desk.engine.line.answered:
            return ""  # decided already: nothing is to be kept for it
        for given in (request.batch, request.order):
            inside = bool(identity) and (identity == given or (len(identity) >= PART_CHARS_MIN and identity in given))
            if inside or await self.desk.hide(given, others=False) != given:
                raise LinesideError(
                    "batch.identity",
                    "A patient identity stands in the id of the batch or of the order: ids are shown and kept.",
                    todo="Give batch and order ids that say nothing about the patient.",
                )
        if not identity:
            return ""
        if request.training:
            return CODE  # refused, and nothing of it is kept
        if is_pseudonym(identity) or not identity.isprintable():
            raise LinesideError(
                "batch.patient_code",
                "This is not a patient identity: it is a pseudonym of a box, or not a readable code.",
                todo="Scan the patient identity (DIN) from the order.",
            )
        return await asyncio.to_thread(self.desk.vault.take, identity, self.desk.clock.stamp().utc, patient=True)

    async def _scanned(self, request: wire.ScanCode) -> dict[str, Any]:
        """What the line may know of a scan: identities as pseudonyms."""
        line, step = self.desk.engine.line, self.desk.step(request.batch, request.step)
        text = request.text.strip()
        if not (isinstance(step, Scan) and step.coding == "gs1"):
            text = text.replace("\x1d", "")  # a separator says something in GS1 codes alone
        if step is not None and is_form(step):
            return {"text": await self.desk.hide(text)}  # a code of a container: an identity in it is not kept
        if not isinstance(step, Scan):
            return {}  # refused without a row
        if step.expect != "patient":
            recipe = line.recipe(line.batches[request.batch])
            if step.coding == "gs1":
                text = as_text(text)
            # then a code that was once scanned in the wrong place is right here
            right = text.startswith(said(recipe, step.prefix))
            return {"text": await self.desk.hide(text, others=not right)}
        batch = line.batches[request.batch]
        if batch.training:
            return {"text": text if text == CODE else ""}  # nothing of a patient is kept in training
        if request.typed:
            return {"text": "", "identity": True}  # refused whatever it is
        run = batch.steps.get(request.step)
        decided = request.id in line.answered or run is None or run.state != "active"
        allowed = self.person is not None and step.role in self.person.roles
        if decided or not allowed or not text or len(text) > TEXT_CHARS_MAX or not text.isprintable():
            return {"text": "", "identity": True}
        before_vault = bool(batch.patient) and not is_pseudonym(batch.patient)
        if is_pseudonym(text) or (before_vault and text == batch.patient):
            return {"text": text}  # the row holds nothing that is not in the journal already
        vault = self.desk.vault
        expected = batch.patient if before_vault else await asyncio.to_thread(vault.identity, batch.patient)
        another = expected is not None and alike(text, expected)
        utc = self.desk.clock.stamp().utc
        name = await asyncio.to_thread(vault.take, text, utc, patient=another)
        return {"text": name, "identity": True, "alike": another}

    async def _erase_identity(self, request: wire.EraseIdentity) -> None:
        self._need_session()
        engine, vault = self.desk.engine, self.desk.vault
        async with self.desk.naming:
            identity = await asyncio.to_thread(vault.identity, request.pseudonym)
            if is_pseudonym(request.pseudonym) and identity is None and request.id not in engine.line.answered:
                raise LinesideError(
                    "vault.unknown",
                    f"The vault of this box holds no identity for {request.pseudonym}: it is erased already, or it is "
                    "another box's.",
                    todo="Look at `lineside vault list` on the box that made the batch.",
                )
            reason = request.reason.replace(identity, request.pseudonym) if identity else request.reason
            await engine.submit(
                cm.EraseIdentity(
                    command_id=request.id,
                    session=self.session,
                    pseudonym=request.pseudonym,
                    reason=await self.desk.hide(reason),
                )
            )
            await asyncio.to_thread(vault.erase, [request.pseudonym], engine.line.erased_seq)

    # People -------------------------------------------------------------------------------------------------

    def _need_session(self) -> None:
        if self.session not in self.desk.engine.line.sessions:
            raise LinesideError(
                "session.none", "Nobody is logged in at this terminal.", todo="Log in with your badge and PIN."
            )

    async def _log_in(self, request: wire.LogIn) -> dict[str, Any]:
        directory = self.desk.directory
        found = directory.find_badge(request.badge) if request.badge else directory.people.get(request.person)
        named = found.id if found else (request.person or "unknown badge")[:64]
        await self._verify(named, request.pin)
        person = directory.people[named]
        await self._log_out("another person logged in")
        session = uuid.uuid4().hex
        await self.desk.engine.submit(
            cm.OpenSession(
                command_id=request.id,
                session=session,
                person=person.id,
                roles=person.roles,
                method="badge and PIN" if request.badge else "name and PIN",
            )
        )
        self.session, self.person = session, person
        self.desk.engine.changed.set()
        return {"session": session, "person": _view(person).model_dump(mode="json")}

    async def _log_out(self, reason: str) -> None:
        session, self.session, self.person = self.session, "", None
        if session:
            await self.desk.engine.submit(cm.CloseSession(session=session, reason=reason))
            self.desk.engine.changed.set()

    async def _verify(self, person: str, pin: str) -> None:
        """Return when the PIN is this person's. Otherwise the failure is a row, and the refusal the same for all."""
        engine = self.desk.engine
        refuse_locked(engine.line, person, self.desk.clock.stamp())
        if await self.desk.directory.verify(person, pin):
            return
        if person in self.desk.directory.people:
            await engine.submit(cm.RefuseLogIn(person=person))
        else:
            await engine.submit(cm.RefuseLogIn(person="unknown"))
        raise LinesideError(
            "people.wrong_pin",
            "Badge or name and PIN do not fit together.",
            effect="Nothing was changed; the batch goes on.",
            todo="Try again. After five wrong PINs the person is locked for 15 minutes.",
        )

    # Signatures ---------------------------------------------------------------------------------------------

    async def _sign(self, request: wire.SignStep) -> None:
        self._need_session()
        line = self.desk.engine.line
        batch = line.batches.get(request.batch)
        step = line.recipe(batch).steps().get(request.step) if batch else None
        run = batch.steps.get(request.step) if batch else None
        meaning, role = "", Role.AUDITOR
        if batch is not None and step is not None and run is not None:
            ask = open_ask(line.recipe(batch), batch, step, run)
            if ask is not None and ask.kind == "sign":
                meaning, role = ask.meaning, ask.role
        person = await self._signer(request.person, request.pin)
        command = partial(
            cm.SignStep,
            batch=request.batch,
            step=request.step,
            iteration=request.iteration,
            part=request.part,
        )
        await self._submit(request.id, command, person, role, meaning)

    async def _continue(self, request: wire.ContinueBatch) -> None:
        person = await self._signer(request.person, request.pin)
        command = partial(cm.ContinueBatch, batch=request.batch, reason=await self.desk.hide(request.reason))
        await self._submit(request.id, command, person, _role_for(person, Permission.CONTINUE), CONTINUED)

    async def _add_result(self, request: wire.AddResult) -> None:
        person = await self._signer(request.person, request.pin)
        batch = self.desk.engine.line.batches.get(request.batch)
        opened = batch.open_results.get(request.result) if batch else None
        text = await self.desk.hide(request.text)
        meaning = f"Result added: {opened.title} = {text}" if opened else ""
        command = partial(cm.AddResult, batch=request.batch, result=request.result, text=text)
        await self._submit(request.id, command, person, _role_for(person, Permission.RESULT), meaning)

    async def _correct(self, request: wire.CorrectValue) -> None:
        person = await self._signer(request.person, request.pin)
        command = partial(
            cm.CorrectValue,
            batch=request.batch,
            name=request.name,
            was_seq=request.was_seq,
            text=await self.desk.hide(request.text),
            reason=await self.desk.hide(request.reason),
        )
        await self._submit(request.id, command, person, _role_for(person, Permission.CORRECT), CORRECTED)

    async def _offer_recipe(self, request: wire.OfferRecipe) -> dict[str, Any]:
        self._need_session()
        session = self.desk.engine.line.sessions[self.session]
        if not permitted(session.roles, Permission.SUBMIT):
            raise recipes_not_permitted(session.person, Permission.SUBMIT)
        approvals = self.desk.approvals
        if request.again:
            return await approvals.offer_again(request.again)
        return await (approvals.offer_file(request.file) if request.file else approvals.offer(request.text))

    async def _sign_recipe(self, request: wire.SignRecipe) -> None:
        person, act = await self._signer(request.person, request.pin), RecipeAct(request.act)
        approvals, reason = self.desk.approvals, await self.desk.hide(request.reason)
        if act is RecipeAct.RELEASE and state_of(self.desk.engine.line, request.seal) is RecipeState.APPROVED:
            await approvals.ready(request.seal)
        command = partial(
            cm.ChangeRecipe,
            act=act,
            seal=request.seal,
            compared_with=request.compared_with,
            reason=reason,
            offered=approvals.offered(request.seal) if act is RecipeAct.SUBMIT else None,
        )
        says = meaning_of(act, *approvals.named(request.seal), request.seal)
        role = _role_for(person, PERMISSION[act], rather=Role.QUALITY)  # of whom a signature of quality is asked
        await self._submit(request.id, command, person, role, says)

    async def _request_amendment(self, request: wire.RequestAmendment) -> None:
        person = await self._signer(request.person, request.pin)
        changes = [
            Change(one.kind, one.subject, one.field, new=await self.desk.hide(one.text)) for one in request.changes
        ]
        command = partial(
            cm.RequestAmendment,
            batch=request.batch,
            changes=tuple(changes),
            adopts=request.adopts,
            from_step=request.from_step,
            proposal=request.proposal,
            reason=await self.desk.hide(request.reason),
        )
        await self._submit(request.id, command, person, _role_for(person, Permission.REQUEST), AMENDED)

    async def _settle_amendment(self, request: wire.SettleAmendment) -> None:
        person = await self._signer(request.person, request.pin)
        batch = self.desk.engine.line.batches.get(request.batch)
        needs = batch.requested.needs if batch and batch.requested else ()
        role = next((one for need in needs for one in person.roles if one.value in need.split("|")), person.roles[0])
        meaning = f"Amendment {request.amendment} " + ("is right and may be made" if request.agree else "is refused")
        command = partial(
            cm.SettleAmendment,
            batch=request.batch,
            amendment=request.amendment,
            agree=request.agree,
            reason=await self.desk.hide(request.reason),
        )
        await self._submit(request.id, command, person, role, meaning)

    async def _switch_mode(self, request: wire.SwitchMode) -> None:
        person, act = await self._signer(request.person, request.pin), HandAct(request.act)
        command = partial(
            cm.SwitchMode,
            batch=request.batch,
            step=request.step,
            iteration=request.iteration,
            act=act,
            reason=await self.desk.hide(request.reason),
        )
        await self._submit(request.id, command, person, _role_for(person, PERMITTED_BY[act]), SWITCHED[act])

    async def _enter_by_hand(self, request: wire.EnterByHand) -> None:
        person = await self._signer(request.person, request.pin)
        command = partial(
            cm.EnterByHand,
            batch=request.batch,
            step=request.step,
            iteration=request.iteration,
            part=request.part,
            text=await self.desk.hide(request.text),
            verifies=request.verifies,
        )
        act = HandAct.VERIFY if request.verifies else HandAct.ENTER
        await self._submit(request.id, command, person, _role_for(person, PERMITTED_BY[act]), BY_HAND[act])
        _raise_differing(self.desk.engine.shown.answered.get(request.id, ""))

    async def _enter_dark(self, request: wire.EnterDark) -> None:
        person = await self._signer(request.person, request.pin)
        command = partial(cm.EnterDark, batch=request.batch, minutes=request.minutes, verifies=request.verifies)
        role = _role_for(person, darkness.PERMISSION[request.verifies])
        await self._submit(request.id, command, person, role, darkness.MEANING[request.verifies])
        _raise_differing(self.desk.engine.shown.answered.get(request.id, ""))

    async def _answer_question(self, request: wire.AnswerQuestion) -> None:
        person = await self._signer(request.person, request.pin)
        batch = self.desk.engine.line.batches.get(request.batch)
        question = batch.questions.get(request.question) if batch else None
        written = question is None or question.tag
        happened, again = ("it happened", "do it again") if written else ("it goes on", "it begins anew")
        meaning = {"happened": happened, "again": again, "abort": "abort"}[request.answer]
        reading = self.desk.engine.reading(question.tag) if question else None
        command = partial(
            cm.AnswerQuestion,
            batch=request.batch,
            question=request.question,
            answer=request.answer,
            reading=reading.value if reading is not None and reading.good else None,
        )
        await self._submit(request.id, command, person, _role_for(person, Permission.ANSWER), meaning)

    async def _signer(self, person: str, pin: str) -> Person:
        """Who signs, with a PIN that is right, at a terminal at which somebody is logged in."""
        self._need_session()
        await self._verify(person, pin)
        return self.desk.directory.people[person]

    async def _submit(
        self, request_id: str, command: Callable[..., cm.Command], person: Person, role: Role, meaning: str
    ) -> None:
        """Have `command` decided with this person's signature on it."""
        session = self.session

        def make(at: Stamp, seq: int, row_hash: bytes) -> cm.Command:
            signed = attested(self.desk.signer, person, role, meaning, session, at, seq, row_hash)
            return command(command_id=request_id, session=session, signed=signed)

        await self.desk.engine.submit_signed(make)

    # The follower -------------------------------------------------------------------------------------------

    def _receipt(self, text: str) -> Receipt:
        if self.desk.hub_public is None:
            raise LinesideError("receipt.no_hub", "This box has no hub configured.", todo="Check lineside.toml.")
        return read_receipt(text.encode()[: RECEIPT_BYTES_MAX + 1], self.desk.hub_public)

    async def _prune(self, request: wire.PruneRows) -> int:
        if self.desk.pruner is None:
            raise LinesideError(
                "archive.not_set",
                "This box keeps no archive: every row stays in its journal.",
                todo="To archive old rows, add [archive] to lineside.toml; see docs/how-to/archive.md.",
            )
        receipt = self._receipt(request.receipt) if request.receipt else None
        return await self.desk.pruner.prune(request.through_seq, receipt, request.receipt)

    async def _take_receipt(self, request: wire.GiveReceipt) -> None:
        receipt = self._receipt(request.receipt)
        if receipt.stored_seq > self.desk.journal.durable_seq:
            raise LinesideError(
                "receipt.ahead",
                "The hub holds rows that this journal does not have.",
                effect="The receipt was not taken.",
                todo="Look whether the journal was restored from a backup.",
            )
        await self.desk.engine.submit(
            cm.TakeReceipt(
                hub=receipt.hub,
                incarnation=receipt.incarnation,
                stored_seq=receipt.stored_seq,
                head_hash=receipt.head_hash,
                receipt=request.receipt,
            )
        )


def attested(
    signer: Signer, person: Person, role: Role, meaning: str, session: str, at: Stamp, seq: int, row_hash: bytes
) -> cm.Signed:
    """A person's signature about row `seq`, made at `at` in a session, with what the device attests of it."""
    methods = ("name", "PIN")
    message = attested_bytes(
        subject_seq=seq,
        subject_hash=row_hash.hex(),
        person=person.id,
        role=role.value,
        meaning=meaning,
        methods=methods,
        session=session,
        utc=at.utc,
    )
    return cm.Signed(
        person=person.id,
        roles=person.roles,
        role=role,
        methods=methods,
        meaning=meaning,
        session=session,
        subject_seq=seq,
        subject_hash=row_hash.hex(),
        attestation=signer.sign(SIGNATURE_DOMAIN, message).hex(),
    )


def _role_for(person: Person, permission: Permission, *, rather: Role | None = None) -> Role:
    """The role in which a person signs, `rather` than another; one that does not permit it is refused by the line."""
    roles = sorted(person.roles, key=lambda role: role is not rather)
    return next((role for role in roles if permitted((role,), permission)), person.roles[0])


def _view(person: Person) -> wire.PersonView:
    return wire.PersonView(person=person.id, name=person.name, roles=tuple(role.value for role in person.roles))


def _raise_differing(why: str) -> None:
    """As with a scan: that two entries differ is a row first, then it is said."""
    if why:
        raise LinesideError(
            "hand.differs",
            why,
            effect="What was asked for is still asked for. The refusal is in the record.",
            todo="Look again, both, one after the other, and enter it.",
        )


def _raise_refused_scan(why: str) -> None:
    """The refusal is a row first; then it is said, also when the same request is repeated."""
    if why.startswith(EXPIRED):
        raise LinesideError(
            "scan.expired",
            why,
            effect="The step is unchanged and the batch goes on waiting. The refusal is in the record.",
            todo="Put this material aside so that nobody uses it, and scan another one.",
        )
    if why:
        raise LinesideError(
            "scan.refused",
            why,
            effect="The step is unchanged and the batch goes on waiting. The refusal is in the record.",
            todo="Put this item aside and scan the right one.",
        )


async def _refuse_live(path: Path) -> None:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return
    writer.close()
    raise LinesideError(
        "desk.in_use",
        f"Another runtime is answering at {path}.",
        effect="This one does not start; the other goes on.",
        todo="Stop the other runtime first.",
    )
