"""The hub's folder: hub.toml, its key, and the public keys of the boxes that it trusts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from edge.config import Broker, Document, read_document, read_text
from edge.core.errors import LinesideError, Place
from edge.identity import DeviceKey, public_text

CONFIG_NAME: Final = "hub.toml"
_LISTEN: Final = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+):[0-9]{1,5}$"

SETTINGS: Final = """\
# Settings of this hub. Paths are relative to this folder.

# Where the web pages are shown. They need no log-in yet: leave this on loopback, or put a proxy that asks before it.
listen = "127.0.0.1:8080"

# The database.
database = "hub.db"

# Public keys of the boxes that are trusted here, one file NAME.pub each, as "lineside device init" made it.
devices = "devices"

# The MQTT 5 broker between boxes and hub. Over a network: mqtts://HOST:PORT, and the CA that signed its certificate.
[broker]
url = "mqtt://127.0.0.1:1883"
# ca = "ca.pem"
"""


class HubConfig(Document):
    """All settings of one hub; every path is absolute. `folder` is where the file stood."""

    folder: Path = Field(exclude=True)
    listen: Annotated[str, StringConstraints(pattern=_LISTEN)] = Field(
        default="127.0.0.1:8080", description="Address and port of the web pages."
    )
    database: Path = Field(default=Path("hub.db"), description="The SQLite database.")
    devices: Path = Field(default=Path("devices"), description="Folder of the trusted boxes' public keys, NAME.pub.")
    broker: Broker = Field(description="The broker between boxes and hub.")

    @property
    def key(self) -> Path:
        """The hub's private key."""
        return self.folder / "hub.key"


def read_hub(folder: Path) -> HubConfig:
    """The settings in `folder`/hub.toml. Raises a `config.*` code otherwise."""
    folder = folder.absolute()
    file = folder / CONFIG_NAME
    config = read_document(file, read_text(file), HubConfig, folder=folder)
    broker = config.broker
    if broker.ca is not None:
        broker = broker.model_copy(update={"ca": folder / broker.ca})
    return config.model_copy(
        update={"database": folder / config.database, "devices": folder / config.devices, "broker": broker}
    )


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT". Raises `hub.listen`."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(_LISTEN, text) or int(port) > 65_535:
        raise LinesideError(
            "hub.listen",
            f"{text[:80]!r} is not an address to listen on.",
            todo='Write it as HOST:PORT, for example "127.0.0.1:8080".',
        )
    return host.strip("[]"), int(port)


def read_key(config: HubConfig) -> DeviceKey:
    """The hub's own key. Raises `hub.key`."""
    try:
        return DeviceKey.load(config.key)
    except LinesideError as error:
        raise LinesideError(
            "hub.key",
            f"The hub's key {config.key} cannot be used: {error.what}",
            todo=f"Put back the file that boxes trust, readable by its owner only (chmod 600 {config.key}).",
            place=Place(str(config.key)),
        ) from error


def init_hub(folder: Path) -> str:
    """Make a hub folder; returns what to tell the person. Raises `hub.exists` and overwrites nothing."""
    folder = folder.absolute()
    for name in (CONFIG_NAME, "hub.key", "hub.pub", "hub.db"):
        if (folder / name).exists():
            raise LinesideError(
                "hub.exists",
                f"There is a hub in {folder} already ({name}).",
                todo="Choose another folder, or use the hub that is there.",
            )
    try:
        (folder / "devices").mkdir(parents=True, exist_ok=True)
        key = DeviceKey.create(folder / "hub.key")
        (folder / "hub.pub").write_text(public_text(key.public))
        with (folder / CONFIG_NAME).open("x") as file:
            file.write(SETTINGS)
    except OSError as error:
        raise LinesideError(
            "hub.init",
            f"The hub's folder {folder} cannot be made: {error.strerror}.",
            effect="What was begun is still there.",
            todo="Choose a folder that this account may write to.",
        ) from error
    return (
        f"Made a hub in {folder}\n"
        f"  fingerprint  {key.fingerprint}\n"
        f"  next         copy {folder / 'hub.pub'} to each box\n"
        f"               copy each box's device.pub to {folder / 'devices'}/NAME.pub\n"
        f"               set the broker in {folder / CONFIG_NAME}\n"
        f"               lineside hub run --hub {folder}\n"
    )
