"""What only other processes know, as samples: read from their heartbeats and from Redis. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from projections.state import State
from services.assembly import OF_EVERY_BUS
from services.exporter.catalogue import Sample
from services.queries.stalled import engines, stalled_s
from services.snapshots.projector import due_after
from services.store.heartbeat import Beat
from services.store.snapshot_record import SnapshotRecord

KEPT_S = 600.0
STEP_S = 0.1
# What processes count since they began: the heartbeat's name, and the metric's.
COUNTED = {
    "turns": "asb_turns",
    "conflicts": "asb_turn_conflicts",
    "refused": "asb_rejected_entries",
    "rebuilds": "asb_rebuilds",
    "outages": "asb_redis_outages",
}


class Polled(msgspec.Struct, frozen=True):
    """What was asked of Redis, at ``elapsed`` by our monotonic clock. Sizes in bytes."""

    elapsed: float = 0.0
    up: bool = False
    beats: tuple[Beat, ...] = ()
    log_entries: int = 0
    dead_letters: int = 0
    dead_letters_dropped: int = 0
    snapshot: SnapshotRecord = msgspec.field(default_factory=SnapshotRecord)
    memory: int = 0
    memory_limit: int = 0


class Places:
    """How far the log reached a while ago, by our monotonic clock: ids tell nothing about age."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def reached(self, events: int, elapsed: float) -> None:
        """The log reaches so far now. One that reaches less far went back."""
        if self._seen and events < self._seen[-1][1]:
            self._seen.clear()
        if self._seen and self._seen[-1][1] == events:
            return
        if len(self._seen) > 1 and elapsed - self._seen[-2][0] < STEP_S:
            self._seen.pop()
        self._seen.append((elapsed, events))
        while len(self._seen) > 1 and elapsed - self._seen[1][0] > KEPT_S:
            self._seen.popleft()

    def lag(self, folded: int, when: float) -> tuple[int, float]:
        """How many events a process was behind that had folded ``folded`` of them at ``when``, and
        for how many seconds the first of these had been there (at least)."""
        there = [(at, events) for at, events in self._seen if at <= when and events > folded]
        if not there:
            return 0, 0.0
        return there[-1][1] - folded, when - there[0][0]


class Counted:
    """Sums over processes that come and go: what each counted since we first saw it."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(COUNTED, 0)
        self._last: dict[str, dict[str, int]] = {}

    def saw(self, beats: Sequence[Beat]) -> None:
        """Add what the processes counted since the last look."""
        newest = {beat.process: beat for beat in beats}
        for process, beat in newest.items():
            before = self._last.get(process, {})
            now = {name: beat.number(name) for name in COUNTED}
            for name, number in now.items():
                self.sums[name] += max(0, number - before.get(name, 0))
            self._last[process] = now
        self._last = {process: self._last[process] for process in newest}


def samples(
    polled: Polled, state: State, now: int, places: Places, counted: Counted, every_events: int
) -> Iterator[Sample]:
    """Everything that the fold does not know. ``every_events``: the setting of snapshots."""
    yield from _services(polled, state, places)
    for name, metric in COUNTED.items():
        yield Sample(metric, (), counted.sums[name])
    yield from _engine(polled.beats)
    yield Sample("asb_log_entries", (), polled.log_entries)
    yield from _archive([beat for beat in polled.beats if beat.service == "archive"])
    yield Sample("asb_dead_letters", (), polled.dead_letters)
    yield Sample("asb_dead_letters_dropped", (), polled.dead_letters_dropped)
    yield from _snapshot(polled.snapshot, state, now, every_events)
    yield Sample("asb_redis_up", (), int(polled.up))
    yield Sample("asb_redis_memory_bytes", (), polled.memory)
    yield Sample("asb_redis_memory_limit_bytes", (), polled.memory_limit)


def _services(polled: Polled, state: State, places: Places) -> Iterator[Sample]:
    furthest = max((beat.number("folded") for beat in polled.beats), default=0)
    for service in OF_EVERY_BUS:
        beats = [beat for beat in polled.beats if beat.service == service]
        lags = [places.lag(x.number("folded"), polled.elapsed - x.age_s) for x in beats]
        events, seconds = max(lags, default=(0, 0.0))
        if service == "exporter" and furthest > state.meta.events:
            events = max(events, furthest - state.meta.events)
        yield Sample("asb_service_processes", (service,), len(beats))
        yield Sample("asb_service_lag_events", (service,), events)
        yield Sample("asb_service_lag_seconds", (service,), seconds)


def _engine(beats: Sequence[Beat]) -> Iterator[Sample]:
    waiting = max((engine.number("waiting") for engine in engines(beats)), default=0)
    held_up = {beat.service for beat in beats if beat.figures.get("holding")}
    yield Sample("asb_intake_waiting", (), waiting)
    yield Sample("asb_engine_stalled_seconds", (), stalled_s(beats))
    yield Sample("asb_service_held_up", (), len(held_up))


def _archive(beats: Sequence[Beat]) -> Iterator[Sample]:
    for metric, figure in (
        ("asb_log_retention_entries", "keep_entries"),
        ("asb_archive_segments", "segments"),
        ("asb_archive_failures", "archive_failures"),
    ):
        yield Sample(metric, (), max((beat.number(figure) for beat in beats), default=0))


def _snapshot(
    record: SnapshotRecord, state: State, now: int, every_events: int
) -> Iterator[Sample]:
    tail = record.tail(state.meta.events)
    age = max(0, now - record.at) / 1_000_000 if tail and record.at else 0.0
    yield Sample("asb_snapshot_tail_events", (), tail)
    yield Sample("asb_snapshot_due_events", (), due_after(every_events, len(state.tasks)))
    yield Sample("asb_snapshot_age_seconds", (), age)
    yield Sample("asb_snapshot_failures", (), record.failures)
    yield Sample("asb_snapshot_bytes", (), record.size)
