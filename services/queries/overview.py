"""The whole fleet at one moment, typed: what `asb top` and the page show, and print as JSON. PURE.

Money is in nano-dollars, times in µs of the server's clock; lengths of time as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from events.harmless import harmless
from events.money import dollars
from events.task import PRIORITIES
from projections import budgets, forecast, usage
from projections.days import day_of
from projections.format import limit_name
from projections.records import BACKOFF, BLOCKED, QUEUED, RUNNING, SUBMITTED, Cell, TaskRecord
from projections.shares import share_of
from projections.state import State
from projections.views import iso, percent_text
from projections.windows import HOUR, MINUTE
from services.queries.accounts import account_text, limited
from services.queries.figures import running_count, waiting_count
from services.queries.fleet import (
    Burn,
    Counts,
    Need,
    Overview,
    Plot,
    Queue,
    Series,
    Surroundings,
    TaskRow,
    Today,
    WindowRow,
)
from services.queries.notices import level_of, notices
from services.queries.urgency import sign_of, title_of, worker_rows
from services.queries.waiting import Waiting

QUEUE_ROWS = 50
WINDOW_ROWS = 40
PLOT_HOURS = 24
PLOT_AGENTS = 8  # the rest of them share one line
SPARK_MINUTES = 60


NOTHING_AROUND = Surroundings()


def places_of_texts(state: State) -> dict[str, str]:
    """Where the prompts of the tasks lie that an overview names: task id → log id."""
    return {task.id: task.log_id for task in tasks_shown(state)}


def tasks_shown(state: State) -> list[TaskRecord]:
    """The tasks that an overview names."""
    return [*_first_waiting(state), *_running(state)]


def overview(
    state: State,
    now: int,
    texts: Mapping[str, str],
    beside: Surroundings = NOTHING_AROUND,
    *,
    live: bool = True,
) -> Overview:
    """The fleet at ``now`` (µs). ``texts``: prompts by task id, as ``places_of_texts`` asks."""
    total, meta = usage.total(state.lifetime.values()), state.meta
    level, reason = level_of(state, "global", now)
    why = Waiting(state, now, beside.missing, beside.errors)
    rows = _windows(state, now)
    queue = _queue(state, now, texts, why)
    return Overview(
        as_of=meta.log_id,
        events=meta.events,
        at=iso(now),
        now=now,
        event_at=meta.at,
        live=live,
        level=budgets.LEVELS[level],
        level_reason=reason,
        tasks=Counts(
            waiting_count(state),
            running_count(state),
            meta.submitted,
            meta.completed,
            meta.failed,
            meta.cancelled,
        ),
        tokens=total.tokens,
        cost_nanos=total.nanos,
        cost=dollars(total.nanos),
        disputed_tokens=total.disputed_tokens,
        today=_today(state, now),
        burn=_burn(state, now, rows),
        windows=rows[:WINDOW_ROWS],
        windows_left_out=max(0, len(rows) - WINDOW_ROWS),
        queue=queue,
        needs=_needs(state, now, beside, total, rows),
        workers=worker_rows(state, now, texts),
        running=[_task_row(state, task, now, texts, "") for task in _running(state)],
        plot=_plot(state, now),
        notices=notices(state),
    )


# -- money and limits ------------------------------------------------------------------------------


def _today(state: State, now: int) -> Today:
    date = day_of(now, state.zone).date
    cell = usage.total(state.days.get(date, {}).values())
    return Today(
        date,
        cell.tokens,
        cell.nanos,
        cell.input_tokens,
        cell.cache_read_tokens,
        cell.cache_write_tokens,
        cell.output_tokens,
    )


def _windows(state: State, now: int) -> list[WindowRow]:
    """All limits: the overall ones first, then those that are in use, the fullest in front."""
    rows = [
        WindowRow(
            r.scope,
            r.unit,
            r.window,
            r.used,
            r.held,
            r.limit,
            budgets.LEVELS[budgets.level(r.used + r.held, r.limit)],
            percent_text(r.used + r.held, r.limit),
            r.resets_at,
            r.at if r.before_reset else 0,
            _whole(state, r.scope, r.unit, r.window),
        )
        for r in forecast.reaches(state, now)
        if r.scope == "global" or r.used or r.held
    ]
    return sorted(rows, key=_fullest)


def _whole(state: State, scope: str, unit: str, window: str) -> int:
    share = share_of(state.policy, scope, unit, window)
    return 0 if share is None else share.whole


def _fullest(row: WindowRow) -> tuple[bool, int]:
    share = 1_000_000 * (row.used + row.held) // max(1, row.limit)
    return (True, -share) if row.scope != "global" else (False, 0)


def _burn(state: State, now: int, rows: list[WindowRow]) -> Burn:
    rate = forecast.rate(state, "global", now)
    ends = [row for row in rows if row.scope == "global" and row.full_at]
    first = min(ends, key=lambda row: row.full_at, default=None)
    scope, last = state.scopes.get("global"), now // MINUTE
    minutes = range(last - SPARK_MINUTES + 1, last + 1)
    buckets = [scope.minutes.get(i) if scope else None for i in minutes]
    return Burn(
        rate.tokens,
        rate.nanos,
        rate.minutes,
        [bucket.tokens if bucket else 0 for bucket in buckets],
        [bucket.nanos if bucket else 0 for bucket in buckets],
        first.full_at if first else 0,
        limit_name(first.unit, first.window, first.scope) if first else "",
    )


def _plot(state: State, now: int) -> Plot:
    last = now // HOUR
    hours = range(last - PLOT_HOURS + 1, last + 1)
    series = [
        Series(
            key.removeprefix("agent:"),
            [scope.hours[h].tokens if h in scope.hours else 0 for h in hours],
            [scope.hours[h].nanos if h in scope.hours else 0 for h in hours],
        )
        for key, scope in state.scopes.items()
        if key.startswith("agent:")
    ]
    series = sorted((s for s in series if any(s.tokens) or any(s.cost_nanos)), key=_largest)
    return Plot([h * HOUR for h in hours], [*series[:PLOT_AGENTS], *_rest(series[PLOT_AGENTS:])])


def _largest(series: Series) -> tuple[int, str]:
    return -sum(series.tokens), series.agent


def _rest(series: list[Series]) -> list[Series]:
    if not series:
        return []
    tokens = [sum(column) for column in zip(*(s.tokens for s in series), strict=True)]
    nanos = [sum(column) for column in zip(*(s.cost_nanos for s in series), strict=True)]
    return [Series(f"{len(series)} others", tokens, nanos)]


# -- tasks -----------------------------------------------------------------------------------------


def _running(state: State) -> list[TaskRecord]:
    names = sorted({t for worker in state.workers.values() for t in worker.running})
    tasks = (state.tasks.get(name) for name in names)
    return sorted((t for t in tasks if t is not None), key=lambda t: (t.dispatched_at, t.n))


def _waiting(state: State) -> list[TaskRecord]:
    return [t for t in state.tasks.values() if t.status not in RUNNING]


def _first_waiting(state: State) -> list[TaskRecord]:
    """The first of those that wait, in the order they are tried; and the oldest of all."""
    waiting = _waiting(state)
    rows = heapq.nsmallest(QUEUE_ROWS, waiting, key=lambda t: (t.status != QUEUED, t.rank, t.n))
    oldest = min(waiting, key=lambda t: (t.submitted_at, t.n), default=None)
    return [*rows, oldest] if oldest is not None and oldest not in rows else rows


def _queue(state: State, now: int, texts: Mapping[str, str], why: Waiting) -> Queue:
    rows = _first_waiting(state)
    oldest = min(rows, key=lambda t: (t.submitted_at, t.n), default=None)
    counts = state.indexes.standing.counts
    waits = (SUBMITTED, BLOCKED, QUEUED, BACKOFF)
    return Queue(
        {
            PRIORITIES[p]: sum(counts.get((status, p), 0) for status in waits)
            for p in reversed(range(len(PRIORITIES)))
        },
        {status: state.indexes.standing.in_status(status) for status in waits},
        oldest.id if oldest else "",
        max(0, now - oldest.submitted_at) if oldest else 0,
        why.reason(oldest) if oldest else "",
        [_task_row(state, t, now, texts, why.reason(t)) for t in rows[:QUEUE_ROWS]],
    )


def _task_row(
    state: State, task: TaskRecord, now: int, texts: Mapping[str, str], why: str
) -> TaskRow:
    runs = task.status in RUNNING
    evidence, at = sign_of(state, task) if runs else ("", now)
    return TaskRow(
        task=task.id,
        title=title_of(texts, task.id),
        status=task.status,
        priority=task.priority_name,
        kind=task.kind,
        agent=task.run_agent if runs else task.agent,
        model=task.run_model if runs else task.model,
        worker=task.worker if runs else task.given_worker,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        age=max(0, now - (task.dispatched_at if runs else task.submitted_at)),
        why=why,
        estimate_tokens=task.estimate,
        tokens=task.spent_tokens + task.used_tokens,
        cost_nanos=task.spent_nanos + task.used_nanos,
        evidence=evidence,
        sign_age=max(0, now - at),
    )


# -- what waits for a person -----------------------------------------------------------------------


def _needs(
    state: State, now: int, beside: Surroundings, total: Cell, rows: list[WindowRow]
) -> list[Need]:
    needs: list[Need] = []
    if beside.no_engine:
        needs.append(Need("engine", beside.no_engine, "asb doctor"))
    needs += [
        Need("limit", f"account {account_text(known, now)}", "asb account")
        for known in limited(state)
    ]
    for row in rows:
        if row.level in ("HARD", "CRITICAL"):
            name = limit_name(row.unit, row.window, row.scope)
            needs.append(Need("budget", f"{name} at {row.percentage}", "asb limits"))
    needs += _never(state)
    if total.disputed_tokens or total.disputed_nanos:
        much = f"{total.disputed_tokens:,} tokens, {dollars(total.disputed_nanos)}"
        needs.append(Need("disputed", f"{much} reported and not charged", "asb correct"))
    if beside.dead_letters:
        letters = "1 entry was refused" if beside.dead_letters == 1 else ""
        text = letters or f"{beside.dead_letters:,} entries were refused"
        needs.append(Need("deadletter", text, "asb deadletter"))
    if state.meta.large_step:
        needs.append(Need("clock", "the clock stepped and nobody has confirmed it", "asb doctor"))
    return needs


def _never(state: State) -> list[Need]:
    """Tasks that no limit in force would ever admit."""
    names = [name for name in state.never_fits if name in state.tasks]
    if not names:
        return []
    text = f"{names[0]} fits no limit" + (f" (+{len(names) - 1})" if len(names) > 1 else "")
    return [Need("never fits", text, f"asb task {names[0]}", task=names[0])]


def plain(view: Any) -> Any:
    """A view as JSON-able values; texts hold nothing that turns or hides what is beside them."""
    return _harmless(msgspec.to_builtins(view))


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _harmless(item) for key, item in items}
    if isinstance(value, list):
        return [_harmless(item) for item in cast("list[Any]", value)]
    return value
