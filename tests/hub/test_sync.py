"""Rows made = rows received + rows pending, whatever happens between box and hub."""

import asyncio
import signal

import httpx
import pytest
from sync_parts import Box, HubProcess, bodies, hub_in_process, until

from edge.core.events import ReceiptStored, Sealed
from edge.core.frame import read_receipt


async def stored(store):
    """(seq, hash) of all rows that the hub holds, in its own order."""
    found = []
    for chain in await store.chains():
        found += [(row.seq, row.hash) for row in await store._chain_rows(chain, 0)]
    return found


async def journaled(box, count, start=0):
    async with box.journal() as journal:
        await journal.append(bodies(count, start)).durable()
        return journal.durable_seq


async def test_two_thousand_rows_arrive_once_and_in_order(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    await journaled(box, 2000)
    async with hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]) as (_, store), box.uplink() as up:
        await until(lambda: up.state.received_seq == 2000, up.changed)
        assert up.state.hub == "connected"
        assert up.state.detail == ""
        rows = await up._tail.rows(0, 5000)
        assert await stored(store) == [(row.seq, row.hash) for row in rows]
        (chain,) = await store.chains()
        assert (chain.made_seq, chain.stored_seq, chain.pending) == (2000, 2000, 0)
        assert [one.fault async for one in store.verify()] == [None]


async def test_rows_made_while_connected_follow_at_once(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    async with (
        box.journal() as journal,
        hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]),
        box.uplink() as up,
    ):
        for n in range(30):
            await journal.append(bodies(1, n)).durable()
            await until(lambda n=n: up.state.received_seq == n + 1, up.changed)


async def test_a_broker_killed_in_the_middle_loses_and_doubles_nothing(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    async with (
        box.journal() as journal,
        hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]) as (_, store),
        box.uplink() as up,
    ):
        for n in range(10):
            await journal.append(bodies(200, n * 200)).durable()
            if n in {3, 6}:
                await broker.kill()
                await until(lambda: up.state.hub != "connected", up.changed)
            if n in {4, 7}:
                await broker.start()
        await until(lambda: up.state.received_seq == 2000, up.changed)
        assert [seq for seq, _ in await stored(store)] == list(range(1, 2001))


async def test_a_hub_process_killed_in_the_middle_loses_and_doubles_nothing(broker, tmp_path):
    hub = HubProcess(tmp_path / "hub", broker.url)
    box = Box(tmp_path / "box", broker.url, hub.public)
    hub.trust(box.key.public)
    try:
        async with box.journal() as journal, box.uplink() as up:
            await journal.append(bodies(500)).durable()
            await hub.start()
            await until(lambda: up.state.received_seq >= 100, up.changed)
            await hub.end(signal.SIGKILL)
            await journal.append(bodies(1500, 500)).durable()
            await hub.start()
            await until(lambda: up.state.received_seq == 2000, up.changed)
            async with httpx.AsyncClient() as client:
                verified = (await client.get(f"{hub.url}/api/verify")).json()
                assert (verified["verified"], verified["rows"]) == (True, 2000)
                (shown,) = (await client.get(f"{hub.url}/api/boxes")).json()["boxes"]
                assert (shown["made"], shown["received"], shown["pending"]) == (2000, 2000, 0)
                assert (await client.get(f"{hub.url}/healthz")).status_code == 200
        assert await hub.end() == 0
    finally:
        await hub.end(signal.SIGKILL)


async def test_the_cursor_survives_a_restart_of_the_follower(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    await journaled(box, 300)
    async with hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]), box.uplink() as up:
        await until(lambda: up.state.received_seq == 300, up.changed)
    await broker.kill()
    async with box.uplink() as up:
        await until(lambda: up.state.received_seq == 300, up.changed)
        assert up.state.hub == "away"
        assert up.state.received_utc


async def test_a_new_hub_database_rewinds_the_box(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    await journaled(box, 700)
    async with box.uplink() as up:
        async with hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]):
            await until(lambda: up.state.received_seq == 700, up.changed)
        async with hub_in_process(tmp_path / "hub2", hub_key, broker, [box.key.public]) as (_, store):
            await until(lambda: up.state.received_seq < 700, up.changed)
            await until(lambda: up.state.received_seq == 700, up.changed)
            assert [seq for seq, _ in await stored(store)] == list(range(1, 701))
        assert up._window.superseded


async def test_an_untrusted_box_pends_until_it_is_trusted(broker, tmp_path, hub_key):
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    await journaled(box, 10)
    async with hub_in_process(tmp_path / "hub", hub_key, broker) as (_, store), box.uplink() as up:
        await until(lambda: "does not answer" in up.state.detail, up.changed)
        assert up.state.hub == "never"
        assert box.key.fingerprint in up.state.detail
        assert await stored(store) == []
        (refused,) = await store.quarantined()
        assert refused.code == "frame.unknown_device"
        (tmp_path / "hub" / "devices" / "new.pub").write_text(box.key.public.hex())
        await until(lambda: up.state.received_seq == 10, up.changed)


async def test_receipts_reach_the_desk_only_when_they_cover_work(broker, tmp_path, hub_key):
    """Otherwise a receipt's row would be receipted, which would be a row, for ever."""
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    given = asyncio.Queue()
    async with box.journal() as journal:

        async def desk(text):
            receipt = read_receipt(text, hub_key.public)
            event = ReceiptStored(
                hub=receipt.hub,
                incarnation=receipt.incarnation,
                stored_seq=receipt.stored_seq,
                head_hash=receipt.head_hash,
                receipt=text,
            )
            (body,) = bodies(1, event=lambda _: event)
            await journal.append([body]).durable()
            given.put_nowait(receipt.stored_seq)

        await journal.append(bodies(50)).durable()
        async with (
            hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]),
            box.uplink(give=desk) as up,
        ):
            first = await given.get()
            while first < 50:
                first = await given.get()
            made = journal.durable_seq
            await until(lambda: up.state.received_seq == made, up.changed)
            assert await up._covers_work(made) is False
            assert given.empty()
            await journal.append(bodies(1)).durable()
            assert await given.get() == made + 1
            seal = Sealed(sealed_seq=1, sealed_hash="00" * 32, public_key="00" * 32, signature="00" * 64)
            await journal.append(bodies(1, event=lambda _: seal)).durable()
            made = journal.durable_seq
            await until(lambda: up.state.received_seq == made, up.changed)
            assert await up._covers_work(made) is False
            assert (given.empty(), journal.durable_seq) == (True, made)


@pytest.mark.parametrize("change", ["wrong_hub_key", "garbage", "other_device"])
async def test_what_is_no_receipt_of_ours_moves_nothing_and_is_said(broker, tmp_path, hub_key, device_key, change):
    from edge.core.frame import Receipt, make_receipt
    from edge.core.record import fingerprint
    from edge.mqtt import read_address, session

    box = Box(tmp_path / "box", broker.url, hub_key.public)
    await journaled(box, 5)
    connected = asyncio.Event()
    async with (
        box.uplink() as up,
        session(read_address(broker.url, None), "liar", on_change=connected.set) as liar,
    ):
        await until(lambda: liar.connected, connected)
        signer = device_key if change == "wrong_hub_key" else hub_key
        receipt = Receipt(
            hub=fingerprint(hub_key.public),
            incarnation="1" * 32,
            device="2" * 32 if change == "other_device" else box.key.fingerprint,
            journal=up._tail.journal_id.hex(),
            epoch="0" * 32,
            stored_seq=5,
            safe_seq=0,
            head_hash="ab" * 32,
            wanted_seq=0,
            utc="2026-11-21T10:00:00.000000Z",
        )
        text = b"x" if change == "garbage" else make_receipt(receipt, signer).encode()
        await liar.publish(f"lineside/1/down/{box.key.fingerprint}/receipt", text, retain=True)
        words = {"wrong_hub_key": "not signed by", "garbage": "not a receipt", "other_device": "another journal"}
        await until(lambda: words[change] in up.state.detail, up.changed)
        assert up.state.received_seq == 0
