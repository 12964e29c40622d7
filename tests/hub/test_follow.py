"""The follower as a whole, and the hub as a process: what people and other programs see of them."""

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
from datetime import UTC, datetime

import httpx
import pytest
from sync_parts import Box, HubProcess, bodies, hub_in_process, until

from edge.core.errors import LinesideError
from edge.core.frame import read_receipt
from edge.core.orders import read_order
from edge.follow import follow
from edge.identity import DeviceKey, public_text
from edge.mqtt import Address, session
from hub.config import init_hub
from hub.orders import send_order, sign_order


class Runtime:
    """The desk's end of the socket: answers every request, keeps what it was told."""

    def __init__(self, path):
        self.path = path
        self.told = []
        self.receipts = []
        self.orders = []
        self.changed = asyncio.Event()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        while line := await reader.readline():
            request = json.loads(line)
            answer = {"id": request["id"], "ok": True}
            match request["do"]:
                case "sync":
                    self.told.append(request["sync"])
                case "receipt":
                    self.receipts.append(request["receipt"])
                case "give_order":
                    self.orders.append(request)
                case "status":  # verified a moment ago: no self-check is due
                    answer["picture"] = {"self_check": {"utc": datetime.now(UTC).isoformat()}}
            self.changed.set()
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


async def test_the_follower_sends_copies_and_tells_the_desk_which_may_come_and_go(broker, tmp_path, hub_key):
    medium = tmp_path / "stick"
    medium.mkdir()
    box = Box(tmp_path / "box", broker.url, hub_key.public, mirror=medium)
    stop = asyncio.Event()
    following = asyncio.create_task(follow(box.config, stop))
    async with hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]) as (_, store):
        async with box.journal() as journal:
            await journal.append(bodies(100)).durable()
            async with Runtime(box.config.desk_socket) as runtime:

                def in_step():
                    return runtime.told and runtime.told[-1]["received_seq"] == 100 == runtime.told[-1]["copied_seq"]

                await until(in_step, runtime.changed)
                assert runtime.told[-1]["hub"] == "connected"
                assert runtime.told[-1]["copied"] == "ok"
                await until(lambda: runtime.receipts, runtime.changed)
                assert read_receipt(runtime.receipts[0], hub_key.public).stored_seq > 0
            # No runtime: rows still flow, and the desk is told again when it is back.
            await journal.append(bodies(50)).durable()
            async with Runtime(box.config.desk_socket) as runtime:
                await until(lambda: runtime.told and runtime.told[-1]["received_seq"] == 150, runtime.changed)
        (chain,) = await store.chains()
        assert chain.stored_seq == 150
        stop.set()
        await following
    assert (box.folder / "state" / "uplink.json").exists()


async def test_an_order_that_the_hub_sent_waits_with_the_broker_until_the_box_is_there(broker, tmp_path):
    folder = tmp_path / "hub"
    init_hub(folder)
    hub_toml = folder / "hub.toml"
    hub_toml.write_text(re.sub(r"^url = .*$", f'url = "{broker.url}"', hub_toml.read_text(), flags=re.MULTILINE))
    box = Box(tmp_path / "box", broker.url, DeviceKey.load(folder / "hub.key").public)
    (folder / "devices" / "line-1.pub").write_text(public_text(box.key.public))
    signed, topic = sign_order(folder, "line-1", b"LSO1;O=ORD/1 #+;R=CART-B1")
    await send_order(folder, topic, signed)
    stop = asyncio.Event()
    following = asyncio.create_task(follow(box.config, stop))
    async with box.journal(), Runtime(box.config.desk_socket) as runtime:
        await until(lambda: runtime.orders, runtime.changed)
        (given,) = runtime.orders
        assert (given["way"], given["signature"]) == ("hub", json.loads(signed)["signature"])
        assert read_order(given["text"].encode()).order == "ORD/1 #+"
        stop.set()
        await following


async def test_a_follower_without_hub_or_journal_waits_and_stops(tmp_path, hub_key):
    box = Box(tmp_path / "box", "mqtt://127.0.0.1:1", hub_key.public)
    config = box.config.model_copy(update={"broker": None, "hub": None})
    stop = asyncio.Event()
    following = asyncio.create_task(follow(config, stop))
    async with Runtime(config.desk_socket) as runtime:
        async with box.journal():
            await until(lambda: runtime.told, runtime.changed)
            assert runtime.told[-1]["hub"] == "off"
        stop.set()
        await following


async def test_a_broker_without_a_hub_to_believe_is_refused(tmp_path, hub_key):
    box = Box(tmp_path / "box", "mqtt://127.0.0.1:1", hub_key.public)
    with pytest.raises(LinesideError) as caught:
        await follow(box.config.model_copy(update={"hub": None}), asyncio.Event())
    assert caught.value.code == "sync.no_hub"


async def test_a_copy_of_a_box_is_found_on_both_sides(broker, tmp_path, hub_key):
    """The same key, journal and epoch at work twice."""
    box = Box(tmp_path / "box", broker.url, hub_key.public)
    async with box.journal() as journal:
        await journal.append(bodies(20)).durable()
    copy = Box(tmp_path / "copy", broker.url, hub_key.public)
    shutil.copytree(box.folder / "state", copy.folder / "state", dirs_exist_ok=True)
    copy.key = box.key
    async with box.journal() as journal:
        await journal.append(bodies(10, 20)).durable()
    async with copy.journal() as journal:
        await journal.append(bodies(5, 500)).durable()
    async with hub_in_process(tmp_path / "hub", hub_key, broker, [box.key.public]) as (receiver, store):
        async with box.uplink() as up:
            await until(lambda: up.state.received_seq == 30, up.changed)
        async with copy.uplink() as up:
            await until(lambda: "FORK" in up.state.detail, up.changed)
            assert up.state.received_seq == 0

            async with asyncio.timeout(60):
                while not await store.forks():
                    await receiver.changed.wait()
                    receiver.changed.clear()
        (chain,) = await store.chains()
        assert chain.stored_seq == 30
        assert [one.fault async for one in store.verify()] == [None]


async def run_hub(folder, *more):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge",
        "hub",
        "run",
        "--hub",
        str(folder),
        *more,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, (out + err).decode()


async def test_a_second_hub_a_taken_port_and_bad_settings_are_refused(tmp_path):
    hub = HubProcess(tmp_path / "hub", "mqtt://127.0.0.1:1")
    try:
        await hub.start()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            second, port = await asyncio.gather(
                run_hub(hub.folder, "--listen", "127.0.0.1:0"),
                run_hub(hub.folder, "--listen", f"127.0.0.1:{taken.getsockname()[1]}"),
            )
        assert second[0] == port[0] == 2
        assert "hub.running" in second[1]
        assert "hub.port" in port[1]
        async with httpx.AsyncClient() as client:
            page = await client.get(hub.url)
            assert "No broker" in page.text
    finally:
        assert await hub.end(signal.SIGTERM) == 0


def test_bad_settings_are_refused_in_words(tmp_path):
    from hub.config import init_hub, listen_address, read_hub, read_key

    folder = tmp_path / "hub"
    said = init_hub(folder)
    assert "fingerprint" in said
    assert (folder / "hub.key").stat().st_mode & 0o777 == 0o600
    assert read_hub(folder).database == folder / "hub.db"

    def code(call, *args):
        with pytest.raises(LinesideError) as caught:
            call(*args)
        return caught.value.code

    assert code(init_hub, folder) == "hub.exists"
    assert code(read_hub, tmp_path / "absent") == "config.missing"
    (folder / "hub.toml").write_text('listn = "127.0.0.1:8080"\n[broker]\nurl = "mqtt://127.0.0.1"\n')
    assert code(read_hub, folder) == "config.unknown_key"
    (folder / "hub.toml").write_text('[broker]\nurl = "mqtt://127.0.0.1"\n')
    (folder / "hub.key").chmod(0o644)
    assert code(read_key, read_hub(folder)) == "hub.key"
    for bad in ("8080", "127.0.0.1:99999", "", "a b:1"):
        assert code(listen_address, bad) == "hub.listen"
    assert listen_address("[::1]:80") == ("::1", 80)


async def test_the_demos_broker_carries_frames_and_keeps_what_is_retained():
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "demo.broker", stdout=asyncio.subprocess.PIPE)
    try:
        port = int(await process.stdout.readline())
        changed = asyncio.Event()
        where = Address("127.0.0.1", port, None)
        async with session(where, "a", on_change=changed.set, retry_s=(0.01, 0.05)) as one:
            await until(lambda: one.connected, changed)
            await one.publish("lineside/1/down/x/receipt", b"x" * 66_000, retain=True)
            async with session(where, "b", subscribe=["lineside/1/down/x/receipt"]) as two:
                got = await anext(two)
                assert (len(got.payload), got.retained) == (66_000, True)
    finally:
        process.terminate()
        assert await process.wait() == 0
