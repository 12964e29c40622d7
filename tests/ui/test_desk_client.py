"""The desk's client against desks that go, babble and refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from edge.core.errors import LinesideError
from edge.desk_client import connect
from edge.wire import LINE_BYTES_MAX, AskStatus, ConfirmStep
from tests.ui.scripted import HOLD, make_batch, make_picture, scripted_desk

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_desk(path: Path, serve: Serve):
    ended = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_unix_server(once, path)
    try:
        yield
        await ended.wait()
    finally:
        server.close()


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match="not answering") as refused:
        async with connect(tmp_path / "desk.sock"):
            pass
    assert refused.value.code == "desk.unreachable"
    assert refused.value.todo


async def test_a_refusal_keeps_its_words(tmp_path: Path) -> None:
    async with scripted_desk(tmp_path / "desk.sock", make_picture()) as desk:

        def refuse(_: object) -> None:
            raise LinesideError("step.gone", "That step is over.", effect="Nothing.", todo="Look again.")

        desk.on = refuse
        async with connect(desk.path) as client:
            with pytest.raises(LinesideError) as refused:
                await client.ask(ConfirmStep(id="1", batch="B", step="005"))
            error = refused.value
            assert (error.code, error.what, error.effect, error.todo) == (
                "step.gone",
                "That step is over.",
                "Nothing.",
                "Look again.",
            )
            assert (await client.ask(AskStatus(id="2")))["ok"] is True


async def test_pictures_are_the_newest_ones(tmp_path: Path) -> None:
    async with scripted_desk(tmp_path / "desk.sock", make_picture()) as desk, connect(desk.path) as client:
        pictures = client.pictures()
        assert (await anext(pictures)).batches == ()
        desk.tell(make_picture(as_of_seq=413))
        desk.tell(make_picture(make_batch(HOLD), as_of_seq=414))
        seen = [await anext(pictures)]
        while seen[-1].as_of_seq < 414:
            seen.append(await anext(pictures))
        assert seen[-1].batches[0].batch == "B-2026-014"
        await pictures.aclose()


async def test_whoever_waits_is_told_when_the_desk_goes(tmp_path: Path) -> None:
    async def go(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readline()

    async with raw_desk(tmp_path / "desk.sock", go), connect(tmp_path / "desk.sock") as client:
        with pytest.raises(LinesideError) as lost:
            await client.ask(AskStatus(id="1"))
        assert lost.value.code == "desk.lost"
        with pytest.raises(LinesideError):
            await client.ask(AskStatus(id="2"))


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe not json\n",
        b"[1, 2]\n",
        orjson.dumps({"picture": {"box": 7}}) + b"\n",
        b"x" * (LINE_BYTES_MAX + 10) + b"\n",
    ],
    ids=["bytes", "list", "picture", "long"],
)
async def test_what_cannot_be_read_ends_the_connection_in_words(tmp_path: Path, line: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        await reader.read()

    async with raw_desk(tmp_path / "desk.sock", babble):
        async with connect(tmp_path / "desk.sock") as client:
            with pytest.raises(LinesideError) as refused:
                await client.ask(AskStatus(id="1"))
        assert refused.value.code == "desk.garbled"
