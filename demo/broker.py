"""The demo's broker: an MQTT 5 broker from PyPI in a process of its own, on loopback. `python -m demo.broker`.

Prints its port as the first line, then runs until SIGTERM. It keeps nothing over a restart and lets anyone in:
for the demo only; a site runs Debian's mosquitto.
"""

from __future__ import annotations

import argparse
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import Final

from iotcore import Broker

SETTINGS: Final = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 4

[v5.1]
name = "demo"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
    [v5.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 262144
    max_inflight_count = 200
    dynamic_filters = true
"""


def main() -> None:
    """Run the broker until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m demo.broker", description="The demo's MQTT 5 broker.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; a free one when 0")
    port = parser.parse_args().port or _free_port()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with tempfile.TemporaryDirectory(prefix="lineside-broker-") as folder:
        settings = Path(folder) / "broker.toml"
        settings.write_text(SETTINGS.format(port=port))
        with Broker(config_path=str(settings)):
            print(port, flush=True)  # whoever started it reads the port
            stop.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
