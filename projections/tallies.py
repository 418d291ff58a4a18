"""What has happened so far, counted: for metrics, which are the same after any restart.

Counts and histograms are integers of the fold. ``Standing`` is an index: how many open tasks are in
each status, by priority, kept as they move so that nobody has to walk them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from events.task import Charge

if TYPE_CHECKING:
    from projections.state import State
    from projections.tasks import TaskRecord

FINEST_US = 10_000  # the upper bound of the first bucket; each further one is twice as long
BUCKETS = 21  # with finite bounds, up to nearly three hours; one more has none
PAIRS_MAX = 1_000  # agents × models whose returned charges are told apart


class Histogram(msgspec.Struct, array_like=True, gc=False):
    """Durations: how many in each bucket, and their sum in µs."""

    counts: dict[int, int] = {}
    total_us: int = 0


class Returned(msgspec.Struct, array_like=True, gc=False):
    """What was taken back of earlier charges, as amounts ≥ 0: charges so far are the sums of the
    fold plus these, and never fall."""

    tokens: int = 0
    nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Difference(msgspec.Struct, array_like=True, gc=False):
    """Two sources of usage spoke of the same attempt: how often, and by how many tokens apart."""

    reports: int = 0
    tokens: int = 0


class Tallies(msgspec.Struct, gc=False):
    """All counts. ``events`` by wire type, ``alerts`` by unit and level, ``durations`` by what was
    timed and a label, ``returned`` by agent and model, ``differences`` by the better source."""

    events: dict[str, int] = {}
    alerts: dict[str, int] = {}
    durations: dict[str, Histogram] = {}
    returned: dict[str, Returned] = {}
    differences: dict[str, Difference] = {}


AMOUNTS = Returned.__struct_fields__


def bucket(us: int) -> int:
    """The index of the bucket that holds a duration: bounds are 10 ms, 20 ms, 40 ms, …"""
    return min(max(0, (us - 1) // FINEST_US).bit_length(), BUCKETS)


def bound_s(index: int) -> float:
    """The upper bound of a bucket in seconds."""
    return (FINEST_US << index) / 1_000_000


def timed(state: State, what: str, label: str, us: int) -> None:
    """A duration of ``what`` was ``us``; what a clock step made negative counts as none."""
    durations = state.tallies.durations
    key = f"{what} {label}"
    histogram = durations.get(key)
    if histogram is None:
        histogram = Histogram({})
        state.journal.put(durations, key, histogram)
    us = max(0, us)
    state.journal.touch(histogram)
    histogram.total_us += us
    index = bucket(us)
    state.journal.put(histogram.counts, index, histogram.counts.get(index, 0) + 1)


def alerted(state: State, unit: str, level: str) -> None:
    """An alert was raised."""
    alerts, key = state.tallies.alerts, f"{unit} {level}"
    state.journal.put(alerts, key, alerts.get(key, 0) + 1)


def gave_back(state: State, charge: Charge) -> None:
    """What of ``charge`` is negative takes back something that was charged before."""
    lowest = min(
        charge.tokens,
        charge.nanos,
        charge.input_tokens,
        charge.output_tokens,
        charge.cache_read_tokens,
        charge.cache_write_tokens,
    )
    if lowest >= 0:
        return
    amounts = [max(0, -getattr(charge, name)) for name in AMOUNTS]
    returned, key = state.tallies.returned, f"{charge.agent}\x1f{charge.model}"
    if key not in returned and len(returned) >= PAIRS_MAX:
        key = "other\x1fother"
    before = returned.get(key, Returned())
    sums = (getattr(before, n) + x for n, x in zip(AMOUNTS, amounts, strict=True))
    state.journal.put(returned, key, Returned(*sums))


def differed(state: State, against: str, tokens: int) -> None:
    """A source of usage says ``tokens`` more (or fewer) than the better one, ``against``."""
    if not against:
        return
    differences = state.tallies.differences
    before = differences.get(against, Difference())
    after = Difference(before.reports + 1, before.tokens + abs(tokens))
    state.journal.put(differences, against, after)


class Standing:
    """How many open tasks are in each status, by priority."""

    __slots__ = ("counts",)

    def __init__(self, tasks: Iterable[TaskRecord] = ()) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        for task in tasks:
            self.enter(task)

    def enter(self, task: TaskRecord) -> None:
        key = (task.status, task.priority)
        self.counts[key] = self.counts.get(key, 0) + 1

    def leave(self, task: TaskRecord) -> None:
        self.counts[task.status, task.priority] -= 1

    def in_status(self, *statuses: str) -> int:
        """How many tasks are in any of these."""
        return sum(n for (status, _), n in self.counts.items() if status in statuses)


def canonical(tallies: Tallies, ordered: Any) -> Tallies:
    """``tallies`` with every dict in it sorted; ``ordered`` sorts one."""
    durations = {
        key: Histogram(ordered(histogram.counts), histogram.total_us)
        for key, histogram in sorted(tallies.durations.items())
    }
    return Tallies(
        ordered(tallies.events),
        ordered(tallies.alerts),
        durations,
        ordered(tallies.returned),
        ordered(tallies.differences),
    )
