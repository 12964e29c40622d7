"""Which boxes are trusted: the public keys in the devices folder, read again when they change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge.core.errors import LinesideError
from edge.core.record import fingerprint
from edge.identity import read_public

DEVICES_MAX: Final = 100_000


class Trust:
    """`keys` (device id -> public key) and `names` (device id -> file's name) as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self.keys: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.faults: tuple[str, ...] = ()
        """Files that could not be read, in words."""
        self._folder = folder
        self._seen: list[tuple[str, int, int]] | None = None

    def refresh(self) -> bool:
        """Look at the folder; True when it had changed. A file that cannot be read trusts nobody and is a fault."""
        try:
            with os.scandir(self._folder) as entries:
                found = [
                    (entry.name, stat.st_mtime_ns, stat.st_size)
                    for entry in entries
                    if entry.name.endswith(".pub") and (stat := entry.stat())
                ]
        except OSError as error:
            found = []
            self.faults = (f"The devices folder {self._folder} cannot be read: {error.strerror}.",)
        found = sorted(found)[:DEVICES_MAX]
        if found == self._seen:
            return False
        self._seen = found
        keys, names, faults = {}, {}, []
        for name, _, _ in found:
            try:
                public = read_public(self._folder / name)
            except LinesideError as error:
                faults.append(error.what)
            else:
                keys[fingerprint(public)] = public
                names[fingerprint(public)] = name.removesuffix(".pub")
        self.keys, self.names = keys, names
        if found:
            self.faults = tuple(faults)
        return True
