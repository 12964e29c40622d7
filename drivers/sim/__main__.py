"""One simulated device: `python -m drivers.sim reactor|pump|scale|printer|scanner ...`. Prints its port, a scanner its
serial line, when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from edge.core.errors import LinesideError


def _device(name: str, arguments: argparse.Namespace) -> AbstractAsyncContextManager[int | str]:
    # Only the protocol that is served is loaded.
    where = (arguments.host, arguments.port)
    how = {"seed": arguments.seed, "speed": arguments.speed, "control": arguments.control}
    if name == "reactor":
        from drivers.sim.reactor import serve_bioreactor

        return serve_bioreactor(*where, **how, certificate=arguments.certificate)
    if name == "scanner":
        from drivers.sim.scanner import serve_scanner

        return serve_scanner(arguments.control)
    if name == "printer":
        from drivers.sim.printer import serve_printer

        return serve_printer(*where, **how)
    if name == "scale":
        from drivers.sim.scale import serve_scale

        return serve_scale(*where, **how)
    from drivers.sim.pump import serve_pump_and_balance

    return serve_pump_and_balance(*where, **how, serial=arguments.serial, framing=arguments.framing)


async def _serve(arguments: argparse.Namespace) -> None:
    """Until the parent closes our standard input or dies, or until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def heard() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, heard)
    async with _device(arguments.device, arguments) as where:
        found = {"port" if isinstance(where, int) else "line": where}
        sys.stdout.write(json.dumps({"device": arguments.device, **found, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """Run one device; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["reactor", "pump", "scale", "printer", "scanner"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--certificate", type=Path, help="reactor: offer encrypted connections with this one (DER)")
    parser.add_argument("--serial", type=Path, help="pump: serve at this serial port instead (RTU, 19200 baud)")
    parser.add_argument("--framing", choices=["tcp", "rtu"], default="tcp", help="pump: rtu is RTU over TCP")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments))
    except LinesideError as error:
        sys.stdout.write(json.dumps(error.as_json()) + "\n")
        return 2
    except OSError as error:
        what = (
            f"The simulated {arguments.device} cannot listen at {arguments.host}:{arguments.port} ({error.strerror})."
        )
        refusal = LinesideError("sim.port", what, todo="Choose another port, or 0 for a free one.")
        sys.stdout.write(json.dumps(refusal.as_json()) + "\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
