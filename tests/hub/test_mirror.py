"""The copy on a second medium: whole, read back, and never in anyone's way."""

import asyncio
import contextlib
import os

import pytest
from sync_parts import Box, bodies, until

from edge.core.errors import LinesideError
from edge.mirror import Mirror, read_mirror
from edge.tail import open_tail


@pytest.fixture
def box(tmp_path, hub_key):
    return Box(tmp_path / "box", "mqtt://127.0.0.1:1", hub_key.public)


@contextlib.asynccontextmanager
async def mirroring(box, folder):
    changed = asyncio.Event()
    async with open_tail(box.journal_path, box.key) as tail:
        made = Mirror(tail, folder, signer=box.key, on_change=changed.set, retry_s=(0.01, 0.05), every_s=0.0)
        made.changed = changed
        tasks = [asyncio.create_task(made.run()), asyncio.create_task(tail.keep_looking(0.01))]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def copied(box, folder):
    (path,) = folder.glob("*.frames")
    return path, [row for got in read_mirror(path, {box.key.fingerprint: box.key.public}) for row in got.rows]


async def test_every_row_is_copied_also_over_restarts(box, tmp_path):
    async with box.journal() as journal:
        await journal.append(bodies(700)).durable()
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: mirror.copied_seq == 700, mirror.changed)
            assert (mirror.state, mirror.detail) == ("ok", "")
            await journal.append(bodies(10)).durable()
            await until(lambda: mirror.copied_seq == 710, mirror.changed)
        await journal.append(bodies(10)).durable()
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: mirror.copied_seq == 720, mirror.changed)
            rows = await mirror._tail.rows(0, 1000)
    assert copied(box, tmp_path)[1] == rows


async def test_a_missing_medium_is_said_and_tried_again(box, tmp_path):
    medium = tmp_path / "stick"
    async with box.journal() as journal, mirroring(box, medium) as mirror:
        await journal.append(bodies(5)).durable()
        await until(lambda: "No such file" in mirror.detail, mirror.changed)
        assert (mirror.state, mirror.copied_seq) == ("failed", 0)
        assert not medium.exists()
        medium.mkdir()
        await until(lambda: mirror.copied_seq == 5 and mirror.state == "ok", mirror.changed)


async def test_a_copy_cut_short_by_a_power_cut_goes_on_from_its_last_whole_frame(box, tmp_path):
    async with box.journal() as journal:
        for n in range(3):
            await journal.append(bodies(20, n * 20)).durable()
            async with mirroring(box, tmp_path) as mirror:
                await until(lambda n=n, mirror=mirror: mirror.copied_seq == n * 20 + 20, mirror.changed)
        path, whole = copied(box, tmp_path)
        for cut in (1, 3, 4, 5, 100):
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - cut)
            with pytest.raises(LinesideError) as caught:
                copied(box, tmp_path)
            assert caught.value.code == "mirror.cut"
            async with mirroring(box, tmp_path) as mirror:
                await until(lambda mirror=mirror: mirror.copied_seq == 60, mirror.changed)
            assert copied(box, tmp_path)[1] == whole


async def test_what_reads_back_differently_does_not_count_as_copied(box, tmp_path, monkeypatch):
    lies = [True]

    def pread(descriptor, size, start):
        data = real(descriptor, size, start)
        return bytes([data[0] ^ 1]) + data[1:] if lies[0] else data

    real = os.pread
    monkeypatch.setattr("edge.mirror.os.pread", pread)
    async with box.journal() as journal, mirroring(box, tmp_path) as mirror:
        await journal.append(bodies(5)).durable()
        await until(lambda: "read back" in mirror.detail, mirror.changed)
        assert mirror.copied_seq == 0
        lies[0] = False
        await until(lambda: mirror.copied_seq == 5, mirror.changed)
    assert len(copied(box, tmp_path)[1]) == 5


async def test_a_copy_that_knows_more_than_the_journal_is_left_as_it_is(box, tmp_path):
    async with box.journal() as journal:
        await journal.append(bodies(5)).durable()
    backup = box.journal_path.read_bytes()
    async with box.journal() as journal:
        await journal.append(bodies(5, 5)).durable()
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: mirror.copied_seq == 10, mirror.changed)
    path, _ = copied(box, tmp_path)
    before = path.read_bytes()
    box.journal_path.write_bytes(backup)
    async with box.journal() as journal:
        await journal.append(bodies(1, 100)).durable()
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: "not in this journal" in mirror.detail, mirror.changed)
            assert mirror.state == "failed"
    (kept,) = tmp_path.glob("*.frames")
    assert kept.read_bytes() == before


async def test_a_foreign_file_is_left_as_it_is(box, tmp_path):
    async with box.journal() as journal:
        file = tmp_path / f"{journal.journal_id.hex()}.frames"
        file.write_text("something else")
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: "not a copy" in mirror.detail, mirror.changed)
        assert file.read_text() == "something else"


async def test_a_changed_copy_is_found(box, tmp_path):
    async with box.journal() as journal:
        await journal.append(bodies(10)).durable()
        async with mirroring(box, tmp_path) as mirror:
            await until(lambda: mirror.copied_seq == 10, mirror.changed)
    path, _ = copied(box, tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LinesideError) as caught:
        copied(box, tmp_path)
    assert caught.value.code == "frame.signature"
