"""Servers and clients in one loop on virtual time: nothing waits, and nothing is late because the machine is busy.

Every connection passes a `Wire` where what the server sends can be lost, held back, changed or cut off. Bytes go
through pairs of Unix sockets: what was sent is there at once, so time passes only when nobody has anything left to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

STUCK_S: Final = 120.0
"""Real time in which some thread or process must have answered."""
LONGEST_S: Final = 1_200.0
"""Of its own time: what has not ended by then never does."""
OWN_CLOCKS: Final = (
    "drivers.sim.control.time",
    "drivers.sim.pump.time",
    "drivers.sim.reactor.time",
    "asyncua.server.internal_subscription.time",
)
"""Where somebody looks at a clock that is not the loop's."""

Answer = Callable[[bytes, Callable[[bytes], None]], None]


class Wire:
    """The way to one server."""

    def __init__(self, serve: Callable[[], asyncio.BaseProtocol]) -> None:
        self.serve = serve
        self.up = True
        """Whether connections are taken."""
        self.made = 0
        """Connections so far."""
        self.ask: Answer | None = None
        """Given what a client sends and the way on; it stands for what happens between."""
        self.answer: Answer | None = None
        """The same for what the server sends."""
        self._open: list[tuple[asyncio.Transport, asyncio.Transport]] = []
        """Client and server of each."""

    def cut(self) -> None:
        """The server ends every connection without a word."""
        for _, server in self._open:
            server.abort()

    def close(self) -> None:
        """Nothing of it is left, at either end."""
        for end in (end for pair in self._open for end in pair):
            end.abort()

    def opened(self, client: asyncio.Transport, server: asyncio.Transport) -> None:
        self.made += 1
        self._open = [pair for pair in self._open if not all(end.is_closing() for end in pair)] + [(client, server)]
        _between(client, lambda: self.ask)
        _between(server, lambda: self.answer)


def _between(transport: asyncio.Transport, what: Callable[[], Answer | None]) -> None:
    send = transport.write

    def on(data: bytes) -> None:
        if not transport.is_closing():
            send(data)

    def write(data: bytes) -> None:
        between = what()
        if between is None:
            send(data)
        else:
            between(bytes(data), on)

    transport.write = write  # type: ignore[method-assign, assignment]


class _Selector(selectors.DefaultSelector):
    """Lets the loop's time pass when there is nothing to be done now."""

    loop: Loop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self.loop.outside or self.loop.busy():
            ready = super().select(STUCK_S)
            if not ready:
                raise RuntimeError(f"Nothing has happened for {STUCK_S} s.")
            return ready
        self.loop.now_s += timeout
        if self.loop.now_s > self.loop.ends_s:
            self.loop.ends_s = float("inf")  # said once: what is left is ended
            raise RuntimeError(f"It has not ended after {LONGEST_S:g} s of its own time.")
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a time and a network of its own."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now_s = 1000.0
        self.outside = 0
        """Work in threads of which the loop waits for the end."""
        self.ends_s = self.now_s + LONGEST_S
        self.busy: Callable[[], bool] = lambda: False
        """Whether somebody else will wake the loop: no time passes meanwhile."""
        self.wires: dict[int, Wire] = {}
        """The servers, by port."""
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    async def let_pass(self, seconds: float) -> None:
        """Let so much of its time pass."""
        over = asyncio.Event()
        self.call_later(seconds, over.set)
        await over.wait()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        self.outside += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self._inside())
        return future

    def _inside(self) -> None:
        self.outside -= 1

    async def create_server(self, protocol_factory: Any, *args: Any, **how: Any) -> asyncio.Server:
        server = await super().create_server(protocol_factory, *args, **how)
        self.wires[server.sockets[0].getsockname()[1]] = Wire(protocol_factory)
        return server

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: Any = None, port: Any = None, **_how: Any
    ) -> tuple[Any, Any]:
        wire = self.wires.get(port)
        if wire is None or not wire.up:
            raise ConnectionRefusedError(f"Nobody listens at {host}:{port}.")
        near, far = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
        server, _ = await self.connect_accepted_socket(wire.serve, far)
        client, protocol = await super().create_connection(protocol_factory, sock=near)
        wire.opened(client, server)
        return client, protocol


def run(main: Callable[[Loop], Coroutine[Any, Any, None]]) -> None:
    """Run it on a new loop, on which all clocks of devices go by the loop's time. For a thread without a loop."""
    loop = Loop()
    try:
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda _loop, _context: None)  # of libraries; it shows in what follows
        with virtual_clocks(loop):
            try:
                loop.run_until_complete(main(loop))
            finally:
                loop.run_until_complete(_ended(loop))
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _ended(loop: Loop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for wire in loop.wires.values():
        wire.close()
    for _ in range(3):
        await asyncio.sleep(0)


@contextlib.contextmanager
def virtual_clocks(loop: Loop) -> Iterator[None]:
    clock = SimpleNamespace(monotonic=loop.time)
    with contextlib.ExitStack() as stack:
        for name in OWN_CLOCKS:
            stack.enter_context(mock.patch(name, clock))
        yield
