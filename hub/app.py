"""The hub's composition: store, receiver and web console in one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import uvicorn

from edge import mqtt, notify
from edge.core.errors import LinesideError
from hub.config import listen_address, read_hub, read_key
from hub.console.pages import Console, make_app
from hub.receive import Receiver
from hub.store import Store, open_store
from hub.trust import Trust

BEAT_S: Final = 15.0


async def run(folder: Path, listen: str, stop: asyncio.Event) -> None:
    """Run the hub of `folder` until `stop`. Raises what `read_hub`, `open_store` and `mqtt.read_address` raise,
    `hub.key`, `hub.listen` and `hub.port`."""
    config = read_hub(folder)
    signer = read_key(config)
    address = mqtt.read_address(config.broker.url, config.broker.ca)
    trust = Trust(config.devices)
    trust.refresh()
    with _listening(*listen_address(listen or config.listen)) as server_socket:
        async with open_store(config.database, signer) as store, asyncio.TaskGroup() as tasks:
            changes = Changes()
            receiver = Receiver(store, trust, address, on_change=changes.happened)
            console = Console(store, receiver, trust, changes.follow, stop)
            server = _Server(
                uvicorn.Config(
                    make_app(console),
                    log_level="warning",
                    access_log=False,
                    lifespan="off",
                    server_header=False,
                    timeout_graceful_shutdown=2,
                )
            )
            receiving = tasks.create_task(receiver.run(), name="hub receiver")
            beating = tasks.create_task(_beat(store), name="hub watchdog")
            serving = tasks.create_task(server.serve(sockets=[server_socket]), name="hub console")
            notify.ready(f"Listening on {_where(server_socket)}.")
            print(f"hub {store.hub} shows its pages on http://{_where(server_socket)}", flush=True)  # noqa: T201
            await stop.wait()
            notify.stopping()
            receiving.cancel()
            beating.cancel()
            server.should_exit = True
            await serving


async def _beat(store: Store) -> None:
    """Tell systemd that the hub works, for as long as its database answers."""
    while True:
        await store.count_chains()
        notify.watchdog()
        await asyncio.sleep(BEAT_S)


class Changes:
    """Tells any number of followers that something changed; they may miss how often, never that."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def happened(self) -> None:
        """Something changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def follow(self) -> AsyncIterator[None]:
        """Yields after each change, at most as often as it is asked."""
        seen = self._next
        while True:
            await seen.wait()
            seen = self._next
            yield


class _Server(uvicorn.Server):
    """Signals belong to the command line, which sets `stop`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _port(host, port, error) from error
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
            made.listen(64)
        except OSError as error:
            raise _port(host, port, error) from error
        made.setblocking(False)
        yield made


def _port(host: str, port: int, error: OSError) -> LinesideError:
    return LinesideError(
        "hub.port",
        f"The web pages cannot be shown on {host}:{port}: {error.strerror or error}.",
        todo="Choose another port with --listen HOST:PORT, or stop what uses this one.",
    )


def _where(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
