"""Process values: bytes a sample and samples a second of each kind of series, and what 1,500 values a second cost.

Samples are of windows of ten minutes at 1 Hz, 64 tags that one poll brings: their time stamps are kept once.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import Figure, Say
from edge.core import commands as cm
from edge.core.plant import Plant
from edge.core.samples import NO_SOURCE_TIME, Scale, encode
from edge.core.terms import Quality, Reading
from edge.history import History, HistoryReader, Packer

TAGS = 64
SAMPLES = 600
ROUNDS = 3
BYTES_MAX, DOUBLE_BYTES_MAX = 2.0, 3.0
VALUES_A_SECOND = 1_500
STORE_SHARE_MAX = 1.0
START_US = 1_763_800_000_000_000

Make = Callable[[random.Random], Iterator[float]]


def stepped(chance: random.Random) -> Iterator[float]:
    """A set-point: the same for minutes, then another."""
    value = 0.0
    while True:
        value = float(chance.randrange(0, 400, 5))
        for _ in range(chance.randint(40, 240)):
            yield value


def slow(chance: random.Random) -> Iterator[float]:
    """A controlled temperature: it drifts by hundredths."""
    value, drift = 37.0, 0.0
    while True:
        drift = 0.98 * drift + chance.gauss(0, 0.0005)
        value += drift + 0.002 * (37.0 - value)
        yield value + chance.gauss(0, 0.002)


def noisy(chance: random.Random) -> Iterator[float]:
    """A flow: the noise is thirty times the resolution."""
    while True:
        yield chance.gauss(50.0, 0.3)


def converted(chance: random.Random) -> Iterator[float]:
    """Full doubles as instruments give them: 16 bits of a converter, calibrated, all 52 bits of the mantissa in use."""
    gain, offset, wanted = chance.uniform(0.9, 1.1) / 655.35, chance.uniform(-1, 1), 37.0
    for value in slow(chance):
        wanted = value
        yield round((wanted + chance.gauss(0, 0.01)) / gain) * gain + offset


def random_mantissa(chance: random.Random) -> Iterator[float]:
    """Full doubles whose last bits are noise: nothing can make them small, and nothing may drop them."""
    for value in slow(chance):
        yield value + chance.gauss(0, 0.01)


SERIES: tuple[tuple[str, Make, str, float | None], ...] = (
    ("stepped", stepped, "0.01", BYTES_MAX),
    ("slow", slow, "0.01", BYTES_MAX),
    ("noisy", noisy, "0.01", BYTES_MAX),
    ("full doubles of a 16-bit converter", converted, "", DOUBLE_BYTES_MAX),
    ("full doubles of random mantissa", random_mantissa, "", None),
)


def measure(say: Say) -> list[Figure]:
    """Bytes a sample and samples/s for each kind of series, then the share of a core for collecting and storing."""
    figures: list[Figure] = []
    for name, make, resolution, goal in SERIES:
        say(name)
        size, packing, reading = _packed(make, resolution)
        figures += [
            Figure(f"{name}: size", size, "bytes", at_most=goal),
            Figure(f"{name}: packing", packing, "/s"),
            Figure(f"{name}: reading", reading, "/s"),
        ]
    say(f"{VALUES_A_SECOND:,} values a second")
    with TemporaryDirectory(dir="build") as folder:
        shares = [asyncio.run(_share(Path(folder, f"{n}.db"))) for n in range(ROUNDS)]
        figures += [
            Figure("taking 1,500 readings/s, of a core", median(s[0] for s in shares), "%"),
            Figure("encoding and storing them, of a core", median(s[1] for s in shares), "%", at_most=STORE_SHARE_MAX),
            Figure("raw, until the follower packs it", median(s[2] for s in shares), "bytes"),
        ]
        path = Path(folder, "0.db")
        begun_s = time.process_time()
        with closing(Packer(path)) as packer:
            while packer.pack_next():
                pass
        spent_s = time.process_time() - begun_s
        with HistoryReader(path) as reader:
            samples = sum(info.samples for info in reader.tags())
        figures.append(Figure("packing 1,500 tags, compared with what it was", samples / spent_s, "/s"))
    return figures


def _packed(make: Make, resolution: str) -> tuple[float, float, float]:
    from edge.slices import Vectors, pack, unpack

    scale, chance = Scale(resolution), random.Random(7)
    times = [START_US + n * 1_000_000 + chance.randint(0, 3_000) for n in range(SAMPLES)]
    tags = []
    for _ in range(TAGS):
        values = make(chance)
        tags.append(b"".join(encode(at, NO_SOURCE_TIME, next(values), Quality.GOOD, "", scale) for at in times))
    packing, reading, size = [], [], 0
    for _ in range(ROUNDS):
        vectors = Vectors()
        begun_s = time.process_time()
        slices = [pack(data, vectors) for data in tags]
        packing.append(TAGS * SAMPLES / (time.process_time() - begun_s))
        held = dict(enumerate(vectors.packed))
        begun_s = time.process_time()
        assert [unpack(each, held) for each in slices] == tags
        reading.append(TAGS * SAMPLES / (time.process_time() - begun_s))
        size = sum(map(len, slices)) + sum(map(len, vectors.packed))
    return size / (TAGS * SAMPLES), median(packing), median(reading)


async def _share(path: Path) -> tuple[float, float, float]:
    """What one minute of readings costs, in percent of a core: taking them on the loop, and all the rest."""
    seconds = 60
    names = [f"t{n}" for n in range(VALUES_A_SECOND)]
    tags = {name: {"connection": "c", "address": name, "resolution": 0.01} for name in names}
    plant = Plant.model_validate(
        {"plant": "P", "connections": {"c": {"driver": "modbus"}}, "units": {"U": {"class": "x", "tags": tags}}}
    )
    now_us = START_US
    history = History(path, plant, now_us=lambda: now_us)
    chance = random.Random(7)
    names = [f"U.{name}" for name in names]
    pool = [Reading(37 + chance.gauss(0, 0.3), "", Quality.GOOD, "", 0.0) for _ in range(5_000)]
    stop, taking_s = asyncio.Event(), 0.0

    async def submit(_command: cm.Command) -> None:
        """The journal has a bench of its own."""

    begun_s = _cpu_s()
    for second in range(seconds):
        now_us += 1_000_000
        first_s = time.process_time()
        for index, name in enumerate(names):
            history.take(name, pool[(second * 37 + index) % 5_000])
        taking_s += time.process_time() - first_s
        if second % 4 == 3:
            pending, history._pending = history._pending, []  # noqa: SLF001  the flush without waiting for its time
            history._flush(pending, frozenset({"U"}), False, {})  # noqa: SLF001
    raw = path.stat().st_size + path.with_name(path.name + "-wal").stat().st_size
    stop.set()
    await history.run(submit, dict, lambda: True, stop)
    spent_s = _cpu_s() - begun_s - taking_s
    return taking_s / seconds * 100, spent_s / seconds * 100, raw / (seconds * VALUES_A_SECOND)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
