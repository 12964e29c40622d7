"""Real parts for the hub's tests: Debian's mosquitto, processes, rows."""

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

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


