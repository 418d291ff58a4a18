"""What has happened so far, counted: for metrics, which are the same after any restart.

Counts and histograms are integers of the fold.
"""

from __future__ import annotations

from events.task import Charge
from projections.records import Difference, Histogram, Returned
from projections.state import State

FINEST_US = 10_000  # the upper bound of the first bucket; each further one is twice as long
BUCKETS = 21  # with finite bounds, up to nearly three hours; one more has none
PAIRS_MAX = 1_000  # agents × models whose returned charges are told apart


AMOUNTS = Returned.__struct_fields__


def bucket(us: int) -> int:
    """The index of the bucket that holds a duration: bounds are 10 ms, 20 ms, 40 ms, …"""
    return min(((us - 1) // FINEST_US).bit_length(), BUCKETS) if us > 0 else 0


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
    us = us if us > 0 else 0
    state.journal.touch(histogram)
    histogram.total_us += us
    state.journal.count(histogram.counts, bucket(us))


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
