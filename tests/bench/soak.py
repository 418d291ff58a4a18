"""Does memory follow what is kept, and not what was ever done?

Tasks come for minutes, one stays open from the first of them, one worker is paused. ``soak``: at a
rate, the log kept short. ``million``: as fast as they are done, all limits as they come. What
intakes and inboxes hold for an hour, whatever the rate, is told apart.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from services.runtime.settings_around import ArchiveSettings
from services.store.history import read_mark
from tests.bench.children import ARCHIVES, KEPT
from tests.bench.ground import LIFE, Bus, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread
from tests.bench.titles import titles

RATE = 250  # tasks a second
TASKS = 150_000  # ten minutes of them
SHORT_LOG = 20_000  # entries
MILLION = 1_000_000
UNDER_WAY = 2_000  # tasks at most, of a million
SAMPLE_S = 5.0
PARTS = 5


class Sample(msgspec.Struct, frozen=True):
    """What a bus took at one moment, in bytes; the streams that keep an hour apart; the log's
    entries, and the keys of its namespace."""

    redis: int
    hourly: int
    engine: int
    log: int
    keys: int
    archive: int

    @property
    def kept(self) -> int:
        return self.redis - self.hourly


# Of seconds passed and tasks ended: how many shall have been submitted.
Pace = Callable[[float, int], int]


def soak(ground: Ground, plan: Plan) -> list[Figure]:
    """Tasks at a rate for ten minutes, when as many have ended as a state remembers."""
    return _measured(
        ground, "soak", plan.tasks or TASKS, SHORT_LOG, lambda elapsed, _: int(elapsed * RATE)
    )


def million(ground: Ground, plan: Plan) -> list[Figure]:
    """A million tasks with the limits that a bus has by itself."""
    kept = ArchiveSettings().keep_events
    return _measured(
        ground, "million", plan.tasks or MILLION, kept, lambda _, ended: ended + UNDER_WAY
    )


def _measured(ground: Ground, name: str, total: int, kept: int, pace: Pace) -> list[Figure]:
    """The last fifth of the time against the one before: what Redis holds, and the engine's
    process."""
    with TemporaryDirectory(prefix="asb-bench-") as folder:
        os.environ |= {ARCHIVES: folder, KEPT: str(kept)}
        try:
            bus, began = Bus(ground), time.monotonic()
            samples = list(_samples(bus, Path(folder), total, pace))
            rate = total / (time.monotonic() - began)
            mark = read_mark(bus.client, bus.keys)
            _end(bus)
        finally:
            del os.environ[ARCHIVES], os.environ[KEPT]
    cut = mark.cut if mark is not None else 0
    notes = (
        f"{total:,} tasks at {rate:,.0f}/s, {kept:,} entries kept, {cut} segments cut: "
        f"{_rows(samples)}"
    )
    redis, engine = [sample.kept for sample in samples], [sample.engine for sample in samples]
    return [
        _figure(f"{name}: Redis, last ÷ fourth fifth", _growth(redis), notes),
        _figure(f"{name}: engine, last ÷ fourth fifth", _growth(engine), notes),
    ]


def _samples(bus: Bus, folder: Path, total: int, pace: Pace) -> Iterator[Sample]:
    _open_forever(bus)
    began, sent, due, before = time.monotonic(), 0, SAMPLE_S, bus.added
    texts = titles(1_000)
    while sent < total:
        elapsed = time.monotonic() - began
        ended = (bus.added - before) // LIFE
        count = min(pace(elapsed, ended) - sent, total - sent, len(texts))
        if count > 0:
            bus.submit(texts[:count])
            sent += count
        if elapsed >= due:
            due += SAMPLE_S
            yield _sample(bus, folder)
        time.sleep(0.05)


def _open_forever(bus: Bus) -> None:
    """A task that nobody takes, and a worker that gets none."""
    tell = bus.client.call
    text = msgspec.json.encode({"text": "wait for me", "worker": "nobody"})
    tell("XADD", bus.keys.main_intake, "*", "type", "task.submitted", "data", text)
    joined = ("type", "worker.joined", "worker", "resting", "heartbeat", "no")
    tell("XADD", bus.keys.main_intake, "*", *joined)
    tell("XADD", bus.keys.main_intake, "*", "type", "worker.paused", "worker", "resting")


def _sample(bus: Bus, folder: Path) -> Sample:
    hourly = (bus.keys.main_intake, bus.keys.inbox("w1"))
    sizes = [bus.client.call("MEMORY", "USAGE", key, "SAMPLES", 50) or 0 for key in hourly]
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Sample(
        redis=int(bus.ground.info("memory")["used_memory"]),
        hourly=sum(sizes),
        engine=bus.engine.resident,
        log=bus.length,
        keys=bus.client.call("DBSIZE"),
        archive=sum(files),
    )


def _end(bus: Bus) -> None:
    bus.worker.stop()
    bus.engine.stop()


def _growth(values: list[int]) -> float:
    """The median of the last fifth by that of the one before."""
    size = max(1, len(values) // PARTS)
    return statistics.median(values[-size:]) / statistics.median(values[-2 * size : -size])


def _rows(samples: list[Sample]) -> str:
    shown = [samples[len(samples) * part // PARTS] for part in range(PARTS)] + samples[-1:]
    return "; ".join(
        f"{s.kept / 2**20:.1f}+{s.hourly / 2**20:.1f} MiB in Redis, engine "
        f"{s.engine / 2**20:.0f} MiB, log {s.log:,}, keys {s.keys:,}, files {s.archive / 2**20:.1f}"
        for s in shown
    )


def _figure(name: str, ratio: float, notes: str) -> Figure:
    spread = Spread.of([ratio])
    return Figure(name, "×", spread, 1.1, "≤ 1.1", False, notes=notes, load=load_now())
