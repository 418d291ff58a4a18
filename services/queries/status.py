"""Status, metrics and throttle as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from events.envelope import text_of
from events.money import dollars
from projections import budgets, usage, views
from projections.format import first_line
from projections.records import RUNNING, Cell, Worker
from projections.state import State
from services.client.bus import Bus
from services.queries.accounts import accounts_view
from services.queries.figures import (
    average,
    by_name,
    running_count,
    savings,
    waiting_count,
    worker_word,
)
from services.queries.notices import level_of, notices_view


def status_view(state: State, now: int, texts: Mapping[str, str]) -> dict[str, Any]:
    """``asb status --json``."""
    total = usage.total(state.lifetime.values())
    cells = usage.by(state.lifetime, "worker")
    meta = state.meta
    level, reason = level_of(state, "global", now)
    return {
        "as_of": meta.log_id,
        "at": views.iso(now),
        "tasks": {
            "in_queue": waiting_count(state),
            "running": running_count(state),
            "submitted": meta.submitted,
            "completed": meta.completed,
            "failed": meta.failed,
            "cancelled": meta.cancelled,
        },
        "tokens_used": total.tokens,
        "cost": dollars(total.nanos),
        "cost_nanos": total.nanos,
        "disputed_tokens": total.disputed_tokens,
        "disputed_cost_nanos": total.disputed_nanos,
        "level": budgets.LEVELS[level],
        "accounts": [a for a in accounts_view(state, now, {})["accounts"] if a["limited"]],
        "level_reason": reason or None,
        "notices": notices_view(state),
        "throttle": [r for r in throttle_view(state, now)["windows"] if r["scope"] == "global"],
        "workers": [
            _worker_view(state, w, cells.get(w.name, Cell()), now, texts) for w in by_name(state)
        ],
    }


def _worker_view(
    state: State, worker: Worker, cell: Cell, now: int, texts: Mapping[str, str]
) -> dict[str, Any]:
    key = "worker:" + worker.name
    return {
        "worker": worker.name,
        "status": worker_word(worker),
        "agent": worker.agent or None,
        "agent_state": _agent_state(worker, now),
        "models": list(worker.models),
        "capacity": worker.capacity,
        "completed": worker.completed,
        "failed": worker.failed,
        "tokens_used": cell.tokens,
        "cost_nanos": cell.nanos,
        "level": budgets.LEVELS[budgets.scope_level(state, key, now)],
        "tokens_hour": budgets.used(state, key, "hour", now).tokens,
        "tokens_day": budgets.used(state, key, "day", now).tokens,
        "held_tokens": budgets.held(state, key, "tokens"),
        "tasks": [
            {"task": t, "attempt": a, "text": first_line(texts.get(t, ""))}
            for t, a in sorted(worker.running.items())
        ],
        "session": worker.session,
        "joined_at": views.iso(worker.joined_at),
    }


def _agent_state(worker: Worker, now: int) -> dict[str, Any] | None:
    """What its agent says of itself, since when, by whose word; None where it says nothing."""
    if not worker.agent_state:
        return None
    return {
        "state": worker.agent_state,
        "since": views.iso(worker.agent_since),
        "age_s": max(0, now - worker.agent_since) // 1_000_000,
        "evidence": worker.agent_by or None,
        "about": worker.agent_about or None,
    }


def metrics_view(state: State, now: int) -> dict[str, Any]:
    """``asb metrics --json``: totals, and sums by worker, agent, model, kind and project."""
    total = usage.total(state.lifetime.values())
    done = state.meta.completed
    return {
        "as_of": state.meta.log_id,
        "at": views.iso(now),
        "total": {
            **views.cell_view(total),
            "tasks": done,
            "cost": dollars(total.nanos),
            "average_tokens_per_task": average(total.tokens, done),
            "average_cost_nanos_per_task": average(total.nanos, done),
        },
        **{
            f"by_{dimension}": {
                name: {**views.cell_view(cell), "cost": dollars(cell.nanos)}
                for name, cell in usage.by(state.lifetime, dimension).items()
            }
            for dimension in usage.DIMENSIONS
        },
        "flags": {
            agent: {"count": flagged.count, "last": flagged.flag, "log_id": flagged.log_id}
            for agent, flagged in sorted(state.flags.items())
        },
        "notices": notices_view(state),
        "savings": savings(state),
    }


def throttle_view(state: State, now: int) -> dict[str, Any]:
    """``asb throttle --json``: as in the key ``asb:throttle``, at this moment."""
    return views.throttle_view(state, now)


def throttle_stats(state: State, now: int, worker: str | None = None) -> dict[str, Any]:
    """The level, use and holds of all work, and of each worker; or of one worker."""
    if worker is not None:
        return _scope_stats(state, f"worker:{worker}", now)
    workers = {w.name: _scope_stats(state, f"worker:{w.name}", now) for w in by_name(state)}
    return {"global": _scope_stats(state, "global", now), "workers": workers}


def _scope_stats(state: State, key: str, now: int) -> dict[str, Any]:
    used = {window: budgets.used(state, key, window, now) for window in ("hour", "day", "month")}
    return {
        "level": budgets.LEVELS[budgets.scope_level(state, key, now)],
        **{f"tokens_{window}": use.tokens for window, use in used.items()},
        **{f"cost_{window}": use.nanos / 1e9 for window, use in used.items()},
        "held_tokens": budgets.held(state, key, "tokens"),
    }


def running_texts(state: State) -> dict[str, str]:
    """Where the prompts of the tasks lie that the status screen names: task id → log id."""
    return {
        task.id: task.log_id
        for worker in state.workers.values()
        for t in sorted(worker.running)[:1]
        if (task := state.tasks.get(t)) is not None and task.status in RUNNING
    }


def prompts(bus: Bus, places: dict[str, str]) -> dict[str, str]:
    """The prompts of tasks; ``places`` maps a task to the log id of its submission."""
    events = bus.events_at(list(places.values()))
    return {
        task: text_of(events[place], "text") for task, place in places.items() if place in events
    }
