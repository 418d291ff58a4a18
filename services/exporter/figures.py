"""A state's figures as samples. PURE.

Nothing here walks the open tasks: what would have to be counted task by task the fold counts as it
goes (``projections/tallies``), so that the cost of a scrape does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nlargest
from typing import NamedTuple

from events.envelope import known_types
from events.policy import UNITS
from events.task import PRIORITIES
from projections import budgets, clock, usage
from projections.budgets import LEVELS
from projections.records import (
    ALIVE,
    BACKOFF,
    BLOCKED,
    CANCELLED,
    COMPLETED,
    DISPATCHED,
    FAILED,
    LEFT,
    LOST,
    QUEUED,
    STARTED,
    SUBMITTED,
    Cell,
    Histogram,
    Returned,
    Scope,
)
from projections.shares import share_of_limit
from projections.state import State
from projections.tallies import BUCKETS, bound_s
from projections.usage import SEPARATOR
from projections.windows import HOUR
from services.exporter.catalogue import Durations, Sample

STATUSES = (SUBMITTED, BLOCKED, QUEUED, BACKOFF, DISPATCHED, STARTED)
OUTCOMES = (COMPLETED, FAILED, CANCELLED)
ATTEMPT_OUTCOMES = (*OUTCOMES, "requeued")
PARTS = ("input", "cache_read", "cache_write", "output")
SCOPES_SHOWN = 100
PAIRS_SHOWN = 500  # agents × models; what comes later is summed as "other"
OTHER = ("other", "other")
EMPTY = Histogram({})
NANO = 1_000_000_000
US_PER_S = 1_000_000


class Charged(NamedTuple):
    """What agent and model were charged, as the fold has it, and what was taken back before."""

    cell: Cell
    returned: Returned

    def so_far(self, field: str) -> int:
        """All that was ever charged: never less than before."""
        return getattr(self.cell, field) + getattr(self.returned, field)


class Pairs:
    """Agents and models that have series of their own: the first come, for as long as we run."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def of(self, key: str) -> tuple[str, str]:
        agent, model = key.split(SEPARATOR, 2)[:2]
        pair = (agent, model)
        if pair not in self._known:
            if len(self._known) >= PAIRS_SHOWN:
                return OTHER
            self._known.add(pair)
        return pair

    def charged(self, state: State) -> dict[tuple[str, str], Charged]:
        """Charges by agent and model; the sum of all is the sum of the fold."""
        sums: dict[tuple[str, str], Charged] = {}
        for key, cell in state.lifetime.items():
            pair = self.of(key)
            if pair not in sums:
                sums[pair] = Charged(Cell(), Returned())
            sums[pair].cell.add(cell)
        for key, returned in state.tallies.returned.items():
            pair = self.of(key)
            so_far = sums.setdefault(pair, Charged(Cell(), Returned())).returned
            for name in Returned.__struct_fields__:
                setattr(so_far, name, getattr(so_far, name) + getattr(returned, name))
        return sums


def samples(state: State, now: int, pairs: Pairs) -> Iterator[Sample | Durations]:
    """Everything that the fold knows, at ``now`` (µs)."""
    yield from _tasks(state, now)
    yield from _durations(state)
    yield from _charges(pairs.charged(state))
    yield from _usage(state)
    yield from _budgets(state, now)
    yield from _workers(state)
    yield from _log(state)


# -- tasks -------------------------------------------------------------------------------------


def _tasks(state: State, now: int) -> Iterator[Sample]:
    for status in STATUSES:
        for rank, priority in enumerate(PRIORITIES):
            number = state.indexes.standing.counts.get((status, rank), 0)
            yield Sample("asb_tasks", (status, priority), number)
    meta = state.meta
    yield Sample("asb_tasks_submitted", (), meta.submitted)
    for outcome in OUTCOMES:
        yield Sample("asb_tasks_ended", (outcome,), getattr(meta, outcome))
    oldest = dict.fromkeys(range(len(PRIORITIES)), now)
    for *_, key, head in state.indexes.queues.by_rank():
        oldest[key.priority] = min(oldest[key.priority], head.submitted_at)
    for rank, priority in enumerate(PRIORITIES):
        yield Sample("asb_queue_oldest_seconds", (priority,), _age(oldest[rank], now))
    running = [
        task.dispatched_at
        for worker in state.workers.values()
        for name in worker.running
        if (task := state.tasks.get(name)) is not None
    ]
    yield Sample("asb_holds", (), state.indexes.standing.in_status(DISPATCHED, STARTED))
    yield Sample("asb_hold_oldest_seconds", (), _age(min(running, default=now), now))


def _age(since: int, now: int) -> float:
    return max(0, now - since) / US_PER_S


def _durations(state: State) -> Iterator[Durations]:
    for what, name, labels in (
        ("dispatch", "asb_task_dispatch_seconds", PRIORITIES),
        ("start", "asb_task_start_seconds", PRIORITIES),
        ("attempt", "asb_attempt_duration_seconds", ATTEMPT_OUTCOMES),
        ("task", "asb_task_duration_seconds", OUTCOMES),
    ):
        for label in labels:
            histogram = state.tallies.durations.get(f"{what} {label}", EMPTY)
            yield Durations(name, (label,), _cumulative(histogram), histogram.total_us / US_PER_S)


def _cumulative(histogram: Histogram) -> tuple[tuple[str, int], ...]:
    so_far, rows = 0, list[tuple[str, int]]()
    for index in range(BUCKETS + 1):
        so_far += histogram.counts.get(index, 0)
        rows.append(("+Inf" if index == BUCKETS else repr(bound_s(index)), so_far))
    return tuple(rows)


# -- tokens and money --------------------------------------------------------------------------


def _charges(charged: dict[tuple[str, str], Charged]) -> Iterator[Sample]:
    for pair, sums in charged.items():
        for part in PARTS:
            field = f"{part}_tokens"
            yield Sample("asb_tokens", (*pair, part), sums.so_far(field))
            yield Sample("asb_tokens_returned", (*pair, part), getattr(sums.returned, field))
        yield Sample("asb_counted_tokens", pair, sums.so_far("tokens"))
        yield Sample("asb_counted_tokens_returned", pair, sums.returned.tokens)
        yield Sample("asb_cost_dollars", pair, sums.so_far("nanos") / NANO)
        yield Sample("asb_cost_returned_dollars", pair, sums.returned.nanos / NANO)
        yield Sample("asb_estimated_tokens", pair, sums.cell.estimated_tokens)
        yield from _gen_ai(pair, sums)


def _gen_ai(pair: tuple[str, str], sums: Charged) -> Iterator[Sample]:
    labels = ("invoke_agent", *pair)
    read, written = sums.so_far("cache_read_tokens"), sums.so_far("cache_write_tokens")
    whole = sums.so_far("input_tokens") + read + written
    prefix = "gen_ai_client_inference_usage_"
    yield Sample(f"{prefix}input_tokens", labels, whole)
    yield Sample(f"{prefix}output_tokens", labels, sums.so_far("output_tokens"))
    yield Sample(f"{prefix}cache_read_input_tokens", labels, read)
    yield Sample(f"{prefix}cache_write_input_tokens", labels, written)


def _usage(state: State) -> Iterator[Sample]:
    total = usage.total(state.lifetime.values())
    yield Sample("asb_disputed_tokens", (), total.disputed_tokens)
    yield Sample("asb_disputed_dollars", (), total.disputed_nanos / NANO)
    learnt = state.learnt.values()
    yield Sample("asb_estimates", (), sum(x.samples for x in learnt))
    yield Sample("asb_estimate_error_tokens", (), sum(x.error_tokens for x in learnt))
    yield Sample("asb_overruns", (), sum(x.overruns for x in learnt))
    for agent, flagged in state.flags.items():
        yield Sample("asb_usage_flags", (agent,), flagged.count)
    for source, difference in state.tallies.differences.items():
        yield Sample("asb_usage_differences", (source,), difference.reports)
        yield Sample("asb_usage_difference_tokens", (source,), difference.tokens)


# -- budgets -----------------------------------------------------------------------------------


def _budgets(state: State, now: int) -> Iterator[Sample]:
    keys, omitted = _scopes(state, now)
    for key in keys:
        for limit in budgets.limits_for(state, key):
            window = budgets.used(state, key, limit.window, now)
            used, held = window.of(limit.unit), budgets.held(state, key, limit.unit)
            scale = NANO if limit.unit == "money" else 1
            labels = (key, limit.unit, limit.window)
            ratio = (used + held) / limit.amount if limit.amount else 1.0
            level = budgets.level(used + held, limit.amount)
            yield Sample("asb_budget_used", labels, used / scale)
            yield Sample("asb_budget_held", labels, held / scale)
            yield Sample("asb_budget_limit", labels, limit.amount / scale)
            share = share_of_limit(state.policy, limit)
            if share is not None:
                yield Sample("asb_budget_whole", labels, share.whole / scale)
            yield Sample("asb_budget_used_ratio", labels, ratio)
            yield Sample("asb_budget_level", labels, level)
            yield Sample("asb_budget_reset_timestamp_seconds", labels, window.end / US_PER_S)
    yield Sample("asb_throttle_level", (), budgets.scope_level(state, "global", now))
    yield Sample("asb_budget_scopes_omitted", (), omitted)
    alerts = state.tallies.alerts
    for unit in UNITS:
        for level in LEVELS[1:]:
            yield Sample("asb_alerts", (unit, level), alerts.get(f"{unit} {level}", 0))
    yield Sample("asb_reports", (), state.tallies.events.get("report.issued", 0))


def _scopes(state: State, now: int) -> tuple[list[str], int]:
    """The scopes whose windows are served, the global one first, and how many are not."""
    limited = {key for key in state.scopes if budgets.limits_for(state, key)} - {"global"}
    shown = limited
    if len(limited) > SCOPES_SHOWN:
        hour = now // HOUR
        shown = nlargest(SCOPES_SHOWN, limited, lambda key: (_fill(state.scopes[key], hour), key))
    return ["global", *sorted(shown)], len(limited) - len(shown)


def _fill(scope: Scope, hour: int) -> int:
    bucket = scope.hours.get(hour)
    return scope.held_tokens + (bucket.tokens if bucket is not None else 0)


# -- workers, the log --------------------------------------------------------------------------


def _workers(state: State) -> Iterator[Sample]:
    numbers: dict[str, int] = dict.fromkeys(("busy", "idle", "paused", LOST, LEFT), 0)
    slots = 0
    for worker in state.workers.values():
        if worker.status != ALIVE:
            numbers[worker.status] += 1
            continue
        slots += worker.capacity
        numbers["paused" if worker.paused else "busy" if worker.running else "idle"] += 1
    for status, number in numbers.items():
        yield Sample("asb_workers", (status,), number)
    yield Sample("asb_worker_slots", (), slots)
    paused = sum(account.limited for account in state.accounts.values())
    yield Sample("asb_accounts_paused", (), paused)


def _log(state: State) -> Iterator[Sample]:
    meta = state.meta
    # A series that begins with its first event has not grown for Prometheus: all begin with 0.
    for kind, number in {**dict.fromkeys(known_types(), 0), **state.tallies.events}.items():
        yield Sample("asb_events", (kind,), number)
    yield Sample("asb_log_events", (), meta.events)
    yield Sample("asb_foreign_entries", (), meta.foreign)
    yield Sample("asb_clock_unconfirmed", (), int(clock.doubted(state)))
