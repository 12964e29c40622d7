"""A real process that writes a journal until it is killed: writes "SEQ HASH" for each acknowledged append."""

import asyncio
import sys
from pathlib import Path

from edge.journal import open_journal
from tests.crash.runs import body


async def main(folder: Path) -> None:
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        number = 0
        while True:
            appended = journal.append([body(str(number), "x" * 300) for _ in range(1 + number % 7)])
            await appended.durable()
            number += 1
            sys.stdout.write(f"{appended.last_seq} {appended.last_hash.hex()}\n")
            sys.stdout.flush()


asyncio.run(main(Path(sys.argv[1])))
