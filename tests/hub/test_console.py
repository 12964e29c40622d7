"""The hub's pages: rendered here, escaped, read-only, with nothing from outside."""

import asyncio
import contextlib
import re
from dataclasses import replace

import httpx
import pytest
from sync_parts import bodies, chained, give

from edge.core.events import (
    BatchQueued,
    BatchStarted,
    BatchStateChanged,
    ExceptionRaised,
    RuntimeStarted,
    StepActivated,
    encode,
)
from edge.mqtt import Address
from hub.app import Changes
from hub.console.pages import Console, make_app
from hub.receive import Receiver
from hub.store import open_store
from hub.trust import Trust

API = ("/api/batches", "/api/training")
EVIL = "<script>alert('x')</script>"


def started(batch):
    return lambda _: BatchStarted(
        batch=batch,
        order=EVIL,
        patient="P-1",
        recipe="CART-B1",
        version="1",
        seal="a" * 64,
        semantics=1,
        units={"reactor": "BR-1"},
        speed=60.0,
    )


def rows_of_a_batch(batch):
    made = [
        *bodies(1, event=started(batch)),
        *bodies(
            1,
            event=lambda _: StepActivated(
                batch=batch, step="050", phase="record", title=EVIL, iteration=1, attempt=1, duration_s=0, timeout_s=0
            ),
        ),
        *bodies(2, batch=batch),
        *bodies(1, event=lambda _: RuntimeStarted(version="0.1.0", clean=False, dark_low_s=3, dark_high_s=9)),
        *bodies(
            1,
            event=lambda _: ExceptionRaised(
                batch=batch, exception="E-1", step="050", category="limit", code="limit.out", what=f"It was {EVIL}."
            ),
        ),
    ]
    future = b'{"kind":"FromTheFuture","v":9,"batch":"%s","facts":{}}' % batch.encode()
    return chained([*(encode(body) for body in made), future])


@pytest.fixture
async def hub(tmp_path, hub_key, device_key):
    """(client, store, trust): the web application over a real store, without a broker."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "line-1.pub").write_text(device_key.public.hex())
    trust = Trust(tmp_path / "devices")
    trust.refresh()
    async with open_store(tmp_path / "hub.db", hub_key) as store:
        receiver = Receiver(store, trust, Address("127.0.0.1", 1, None))
        console = Console(store, receiver, trust, Changes().follow, asyncio.Event())
        transport = httpx.ASGITransport(app=make_app(console))
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            yield client, store, trust


async def test_pages_render_and_escape_what_rows_say(hub, device_key):
    client, store, trust = hub
    batch = "B<1>/é"
    await give(store, trust, device_key, rows_of_a_batch(batch))
    pages = {path: await client.get(path) for path in ("/", "/batches", "/quarantine")}
    link = re.search(r'href="(/batches/[^"]+)"', pages["/batches"].text)[1]
    pages[link] = await client.get(link)
    for path, page in pages.items():
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe-inline" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?! src=\"/static/)", page.text)
        assert not re.search(r"\son\w+=|style=", page.text)
        assert "http" not in re.sub(r"http://www\.w3\.org", "", page.text)
    text = pages[link].text
    assert "&lt;script&gt;alert" in text
    assert "B&lt;1&gt;/é" in text
    assert "value-0" in text
    assert "Not for release" in text
    assert "no runtime was there" in text
    assert "Row 7" in text
    assert "in step" in pages["/"].text


async def test_training_batches_stand_on_a_page_of_their_own(hub, device_key):
    client, store, trust = hub
    learnt = replace(started("TRAINING-0001")(0), training=True)
    rows = [*bodies(1, event=started("B-1")), *bodies(1, event=lambda _: learnt)]
    await give(store, trust, device_key, chained([encode(body) for body in rows]))
    listed = {path: [one["batch"] for one in (await client.get(path)).json()["batches"]] for path in API}
    assert listed == {"/api/batches": ["B-1"], "/api/training": ["TRAINING-0001"]}
    pages = {path: (await client.get(path)).text for path in ("/batches", "/training")}
    assert "TRAINING-0001" not in pages["/batches"]
    assert "B-1" not in pages["/training"]
    assert "Training batches" in pages["/training"]
    (link,) = re.findall(r'href="(/batches/[^"]+TRAINING[^"]*)"', pages["/training"])
    assert "This is no record of a product" in (await client.get(link)).text


async def test_the_equation_is_shown_as_the_box_told_it(hub, device_key):
    client, store, trust = hub
    await give(store, trust, device_key, chained([b"{}"] * 5), made_seq=12)
    (box,) = (await client.get("/api/boxes")).json()["boxes"]
    assert (box["made"], box["received"], box["pending"], box["health"]) == (12, 5, 7, "pending")
    assert box["made"] == box["received"] + box["pending"]
    assert "pending" in (await client.get("/")).text


async def test_a_fork_is_first_and_red(hub, device_key):
    client, store, trust = hub
    await give(store, trust, device_key, chained([b"{}"] * 5))
    await give(store, trust, device_key, chained([b'{"other":1}'] * 5))
    (box,) = (await client.get("/api/boxes")).json()["boxes"]
    assert box["health"] == "fork"
    page = (await client.get("/")).text
    assert "FORK" in page
    assert 'class="card fork"' in page


async def test_an_untrusted_and_a_silent_box_are_said(hub, device_key, tmp_path):
    client, store, trust = hub
    assert (await client.get("/api/boxes")).json()["boxes"][0]["health"] == "never"
    await give(store, trust, device_key, chained([b"{}"] * 5))
    (tmp_path / "devices" / "line-1.pub").unlink()
    trust.refresh()
    assert (await client.get("/api/boxes")).json()["boxes"][0]["health"] == "untrusted"


async def test_json_of_a_batch_and_verification(hub, device_key):
    client, store, trust = hub
    await give(store, trust, device_key, rows_of_a_batch("B-1"))
    (one,) = (await client.get("/api/batches")).json()["batches"]
    assert (one["batch"], one["exceptions"], one["box"]) == ("B-1", 1, "line-1")
    built = (await client.get(f"/api/batches/{one['device']}/B-1")).json()
    assert [datum["name"] for datum in built["steps"][0]["data"]] == ["value-0", "value-1"]
    assert len(built["unreadable"]) == 1
    assert (await client.get("/api/verify")).json()["verified"] is True
    health = await client.get("/healthz")
    assert (health.status_code, health.json()["ok"]) == (503, False)


async def test_what_is_not_there_is_said_and_nothing_can_be_posted(hub):
    client, _, _ = hub
    assert (await client.get("/batches/x/y")).status_code == 404
    assert (await client.get("/api/batches/x/y")).json()["error"]["code"] == "hub.absent"
    assert (await client.get("/static/../pages.py")).status_code == 404
    for path in ("/", "/batches", "/api/boxes"):
        assert (await client.post(path)).status_code == 405


async def test_a_state_change_of_a_batch_shows(hub, device_key):
    client, store, trust = hub
    held = bodies(
        1, event=lambda _: BatchStateChanged(batch="B-1", was="running", now="held", cause="person", reason="a reason")
    )
    rows = chained([*(encode(body) for body in [*bodies(1, event=started("B-1")), *held])])
    await give(store, trust, device_key, rows)
    assert 'class="badge held"' in (await client.get("/batches")).text


async def test_a_batch_that_waits_shows_and_says_what_for(hub, device_key):
    client, store, trust = hub
    about = {"order": "O-1", "patient": "", "recipe": "R", "version": "1", "seal": "a" * 64, "speed": 1.0}
    waits = "Waits for BR-1, used by batch B-1; place 1"
    made = bodies(1, event=lambda _: BatchQueued(batch="B-2", waits=waits, **about))
    await give(store, trust, device_key, chained([encode(body) for body in made]))
    assert 'class="badge idle"' in (await client.get("/batches")).text
    (one,) = (await client.get("/api/batches")).json()["batches"]
    record = (await client.get(f"/batches/{one['device']}/B-2")).text
    assert waits in record
    assert "<dt>Started</dt><dd>–</dd>" in record


async def test_changes_are_told_and_may_be_missed_but_never_all():
    changes = Changes()
    follower = changes.follow()
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    changes.happened()
    changes.happened()
    await waiting
    with contextlib.suppress(StopAsyncIteration):
        await follower.aclose()
