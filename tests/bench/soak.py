"""Does memory follow what is kept, and not what was ever done?

Tasks come for minutes, one stays open from the first of them, one worker is paused. ``soak``: at a
rate, the log kept short. ``million``: as fast as they are done, all limits as they come. What
intakes and inboxes hold for an hour, whatever the rate, is told apart.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from services.runtime.settings_around import ArchiveSettings
from services.store.history import read_mark
from tests.bench.children import ARCHIVES, KEPT
from tests.bench.ground import LIFE, Bus, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread
from tests.bench.titles import titles
from tests.wait import wait_blocking

RATE = 250  # tasks a second
TASKS = 150_000  # ten minutes of them
SHORT_LOG = 20_000  # entries
MILLION = 1_000_000
UNDER_WAY = 2_000  # tasks at most, of a million
SETTLED_S = 600.0
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
    """Tasks at a rate for ten minutes, when as many have ended as a state remembers: the last fifth
    of the time against the one before."""
    total = plan.tasks or TASKS
    with _soaked(ground, SHORT_LOG) as (bus, folder):
        samples = list(_samples(bus, folder, total, lambda elapsed, _: int(elapsed * RATE)))
        notes = f"{total:,} tasks at {RATE}/s, {SHORT_LOG:,} entries kept{_rows(bus, samples)}"
    return [
        _figure(f"soak: {name}, last ÷ fourth fifth", _growth(values), notes)
        for name, values in _by_process(samples)
    ]


def million(ground: Ground, plan: Plan) -> list[Figure]:
    """A million tasks as fast as they are done, with the limits that a bus has by itself: what it
    holds when the last cut is made, against when the log was first full."""
    total, policy = plan.tasks or MILLION, ArchiveSettings()
    full = policy.keep_events + policy.segment_events
    with _soaked(ground, policy.keep_events) as (bus, folder):
        began = time.monotonic()
        samples = list(_samples(bus, folder, total, lambda _, ended: ended + UNDER_WAY))
        rate, behind = total / (time.monotonic() - began), bus.length
        wait_blocking(lambda: bus.length < full, SETTLED_S, "the log is as short as it shall be")
        samples.append(_sample(bus, folder))
        notes = (
            f"{total:,} tasks at {rate:,.0f}/s, {policy.keep_events:,} entries kept; {behind:,} "
            f"stood there when the last task came{_rows(bus, samples)}"
        )
    first = next(at for at, sample in enumerate(samples) if sample.log >= policy.keep_events)
    return [
        _figure(f"million: {name}, in the end ÷ when full", values[-1] / values[first], notes)
        for name, values in _by_process(samples)
    ]


@contextlib.contextmanager
def _soaked(ground: Ground, kept: int) -> Generator[tuple[Bus, Path]]:
    """A bus whose log is cut, and the folder of its archive."""
    with TemporaryDirectory(prefix="asb-bench-") as folder:
        os.environ |= {ARCHIVES: folder, KEPT: str(kept)}
        try:
            bus = Bus(ground)
            yield bus, Path(folder)
            _end(bus)
        finally:
            del os.environ[ARCHIVES], os.environ[KEPT]


def _by_process(samples: Sequence[Sample]) -> tuple[tuple[str, list[int]], ...]:
    return (
        ("Redis", [sample.kept for sample in samples]),
        ("engine", [sample.engine for sample in samples]),
    )


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


def _rows(bus: Bus, samples: Sequence[Sample]) -> str:
    mark = read_mark(bus.client, bus.keys)
    cut = mark.cut if mark is not None else 0
    shown = [samples[len(samples) * part // PARTS] for part in range(PARTS)] + [samples[-1]]
    rows = "; ".join(
        f"{s.kept / 2**20:.1f}+{s.hourly / 2**20:.1f} MiB in Redis, engine "
        f"{s.engine / 2**20:.0f} MiB, log {s.log:,}, keys {s.keys:,}, files {s.archive / 2**20:.1f}"
        for s in shown
    )
    return f", {cut} segments cut: {rows}"


def _figure(name: str, ratio: float, notes: str) -> Figure:
    spread = Spread.of([ratio])
    return Figure(name, "×", spread, 1.1, "≤ 1.1", False, notes=notes, load=load_now())
