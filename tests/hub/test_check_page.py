"""What the hub says of a draft is what the command line says of it, and a browser shows it."""

import asyncio
import contextlib
import subprocess
import sys
from importlib.resources import files

import httpx
import pytest
import uvicorn
from starlette.responses import Response
from starlette.routing import Route

from edge.mqtt import Address
from hub.app import Changes
from hub.console.pages import DRAFT_BYTES_MAX, HERE, Console, make_app
from hub.receive import Receiver
from hub.store import open_store
from hub.trust import Trust

SHIPPED = files("edge.core.recipe").joinpath("shipped")
GOOD = SHIPPED.joinpath("cart-b1.yaml").read_text()
BAD = GOOD.replace("phase: record", "phase: recrd", 1).replace("phase: scan", "phase: scam", 1)

CHECK_JS = HERE / "static" / "check.js"


class Server(uvicorn.Server):
    """Says when it listens; signals are the tests' own."""

    def __init__(self, config):
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest.fixture
async def app(tmp_path, hub_key):
    (tmp_path / "devices").mkdir()
    trust = Trust(tmp_path / "devices")
    async with open_store(tmp_path / "hub.db", hub_key) as store:
        receiver = Receiver(store, trust, Address("127.0.0.1", 1, None))
        yield make_app(Console(store, receiver, trust, Changes().follow, asyncio.Event()))


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as client:
        yield client


def at_the_command_line(recipe, tmp_path):
    """Word for word, but for the name of the file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    words = [sys.executable, "-m", "edge", "recipe", "check", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).replace(str(path), path.name).rstrip("\n")


@pytest.mark.parametrize(("recipe", "code"), [(GOOD, 0), (BAD, 2), ("a: [", 2)])
async def test_the_hub_says_of_a_draft_what_the_command_line_says(client, tmp_path, recipe, code):
    answer = await client.post("/api/check", json={"recipe": recipe})
    assert answer.status_code == 200
    assert (code, answer.json()["text"]) == at_the_command_line(recipe, tmp_path)
    assert answer.json()["ok"] is (code == 0)


async def test_a_draft_is_checked_against_a_plant(client):
    found = (await client.post("/api/check", json={"recipe": GOOD, "plant": "plant: X\nunits: {}\n"})).json()
    assert not found["ok"]
    assert found["text"] != (await client.post("/api/check", json={"recipe": GOOD})).json()["text"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "hub.draft"),
        (b"{", "hub.draft"),
        (b'{"recipe": 1}', "hub.draft"),
        (b'{"recipe": "", "more": 1}', "hub.draft"),
        (b'{"recipe": "\\ud800"}', "hub.draft"),
        (b'{"recipe": "\xff"}', "hub.draft"),
        (b"[" * 100_000, "hub.draft"),
        (b" " * (DRAFT_BYTES_MAX + 1), "hub.draft_too_long"),
    ],
)
async def test_what_is_no_draft_is_refused(client, body, code):
    answer = await client.post("/api/check", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_a_browser_shows_what_is_wrong(app, tmp_path, needs_program):
    """The page with its own script, which here also types and taps: a browser without hands does neither."""
    chromium = needs_program("chromium")
    taps = "recipe.value = 'recipe: ['; button.click();"
    script = CHECK_JS.read_text() + taps
    app.router.routes.insert(0, Route("/static/check.js", lambda _: Response(script, media_type="text/javascript")))
    app.router.routes.insert(0, Route("/changes", lambda _: Response(status_code=204)))  # else the page is never loaded
    server = Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        await server.listens.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"http://127.0.0.1:{port}/check",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        shown, _ = await process.communicate()
    finally:
        server.should_exit = True
        await serving
    assert "✗ Something is wrong." in shown.decode()
    assert "recipe.yaml:1" in shown.decode()
