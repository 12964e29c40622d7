"""Real parts for the hub's tests: Debian's mosquitto, processes, rows."""

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
from pathlib import Path

from edge.config import Config
from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.events import RowBody, ValueRecorded
from edge.core.record import ZERO_HASH, Row, row_hash
from edge.core.terms import ClockQuality, Stamp
from edge.identity import DeviceKey, public_text, read_public
from edge.journal import open_journal
from edge.mqtt import read_address
from edge.tail import open_tail
from edge.uplink import Timing, Uplink
from hub.config import init_hub
from hub.receive import Receiver
from hub.store import open_store
from hub.trust import Trust

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """Debian's mosquitto with persistence, on one loopback port that outlives its death."""

    def __init__(self, folder: Path, extra: str = ""):
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = folder / "mosquitto.conf"
        owner = f"user {Path('/proc/self').owner()}\n"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n{owner}persistence true\npersistence_location {folder}/\n"
            f"autosave_on_changes true\nautosave_interval 1\n{extra or 'allow_anonymous true'}\n"
        )
        self._process = None

    async def start(self):
        assert MOSQUITTO
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(self._config), stderr=asyncio.subprocess.DEVNULL
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert self._process.returncode is None, "mosquitto did not start"
            await asyncio.sleep(0)

    async def kill(self):
        """SIGKILL: nothing is said to anyone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


JOURNAL, EPOCH = b"j" * 16, b"e" * 16


def chained(encoded, *, first=1, previous=ZERO_HASH, epoch=EPOCH, journal=JOURNAL):
    rows = []
    for seq, body in enumerate(encoded, first):
        previous = row_hash(journal, epoch, seq, previous, body)
        rows.append(Row(seq, epoch, previous, body))
    return rows


async def give(store, trust, key, rows, previous=ZERO_HASH, made_seq=None):
    data, count = frame.make(rows, journal=JOURNAL, previous=previous, made_seq=made_seq or rows[-1].seq, signer=key)
    assert count == len(rows)
    return await store.ingest(data, trust.keys)


def bodies(count, start=0, batch="B-1", event=None):
    """Rows of an ordinary batch."""
    at = Stamp("2026-11-21T10:00:00.000000Z", ClockQuality.SYNCED, 1.0, "boot")
    return [
        RowBody(
            event(n)
            if event
            else ValueRecorded(
                batch=batch,
                step="050",
                name=f"value-{n}",
                value=n * 0.5,
                unit="degC",
                source="entered",
                quality="good",
                low=None,
                high=None,
                within=True,
            ),
            at,
            "ana",
        )
        for n in range(start, start + count)
    ]


class Box:
    """A box folder with a real journal, and the real follower over it."""

    def __init__(self, folder, broker_url, hub_public, mirror=None):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "state").mkdir()
        self.key = DeviceKey.create(folder / "device.key")
        (folder / "hub.pub").write_text(public_text(hub_public))
        self.journal_path = folder / "state" / "journal.db"
        self.config = Config(
            folder=folder,
            box="line-1",
            state_dir=folder / "state",
            plant=folder / "plant.yaml",
            recipes=folder,
            directory=folder / "directory.toml",
            device_key=folder / "device.key",
            desk_socket=folder / "state" / "desk.sock",
            broker={"url": broker_url},
            hub={"public_key": folder / "hub.pub"},
            mirror={"path": mirror} if mirror else None,
        )

    def journal(self):
        return open_journal(self.journal_path, self.folder / "state" / "epoch")

    @contextlib.asynccontextmanager
    async def uplink(self, give=None, key=None, give_order=None, **settings):
        """The uplink alone, with short waits."""

        async def nobody(_receipt):
            raise LinesideError("desk.unreachable", "No runtime.")

        changed = asyncio.Event()
        async with open_tail(self.journal_path, key or self.key) as tail:
            settings = {"timing": Timing(0.4, 1.0, 1.0), "retry_s": (0.01, 0.1), **settings}
            made = Uplink(
                tail,
                signer=key or self.key,
                hub_public=read_public(self.folder / "hub.pub"),
                address=read_address(self.config.broker.url, None),
                state_path=self.folder / "state" / "uplink.json",
                give=give or nobody,
                give_order=give_order or nobody,
                on_change=changed.set,
                **settings,
            )
            made.changed = changed
            tasks = [asyncio.create_task(made.run()), asyncio.create_task(tail.keep_looking(0.02))]
            try:
                yield made
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                for error in ended:
                    if not isinstance(error, asyncio.CancelledError):
                        raise error


async def until(condition, changed, timeout_s=30):
    async with asyncio.timeout(timeout_s):
        while not condition():
            changed.clear()
            await changed.wait()


@contextlib.asynccontextmanager
async def hub_in_process(folder, key, broker, trusted=()):
    """Store and receiver of a hub, as `lineside hub run` puts them together."""
    (folder / "devices").mkdir(parents=True, exist_ok=True)
    for number, public in enumerate(trusted):
        (folder / "devices" / f"box-{number}.pub").write_text(public_text(public))
    trust = Trust(folder / "devices")
    async with open_store(folder / "hub.db", key) as store:
        changed = asyncio.Event()
        address = read_address(broker.url, None)
        receiver = Receiver(store, trust, address, on_change=changed.set, retry_s=(0.01, 0.1))
        receiver.changed = changed
        receiving = asyncio.create_task(receiver.run())
        try:
            yield receiver, store
        finally:
            receiving.cancel()
            (ended,) = await asyncio.gather(receiving, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise ended


class HubProcess:
    """`lineside hub run` in a process of its own."""

    def __init__(self, folder, broker_url):
        self.folder = folder
        init_hub(folder)
        self.public = read_public(folder / "hub.pub")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = (folder / "hub.toml").read_text()
        settings = settings.replace("mqtt://127.0.0.1:1883", broker_url).replace(":8080", f":{self.port}")
        (folder / "hub.toml").write_text(settings)
        self._process = None

    def trust(self, public, name="box-0"):
        (self.folder / "devices" / f"{name}.pub").write_text(public_text(public))

    async def start(self):
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge", "hub", "run", "--hub", str(self.folder), stdout=asyncio.subprocess.PIPE
        )
        assert (await self._process.stdout.readline()).startswith(b"hub ")

    async def end(self, number=signal.SIGTERM):
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()
            return self._process.returncode
        return None
