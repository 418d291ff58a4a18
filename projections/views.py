"""Views: the state as people and programs read it. PURE; plain JSON-able values.

Each names the log id it stands for (``as_of``), so nobody has to guess how fresh it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from events.money import dollars
from projections import budgets, usage
from projections.records import Cell
from projections.state import State


def iso(at: int) -> str:
    """Server time in µs as ``2026-11-22T06:30:42Z``, "" for 0."""
    if not at:
        return ""
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def percent_text(part: int, whole: int) -> str:
    """A share as people read it: one decimal from 1 % on, two below; in integers, half up."""
    if whole <= 0:
        return "100.0%" if part > 0 else "0.00%"
    if 100 * part >= whole:
        tenths = (2000 * part + whole) // (2 * whole)
        return f"{tenths // 10}.{tenths % 10}%"
    hundredths = (20_000 * part + whole) // (2 * whole)
    return f"{hundredths // 100}.{hundredths % 100:02d}%"


def throttle_view(state: State, now: int) -> dict[str, Any]:
    """``asb:throttle``: every limited window of every scope, and the level of each scope."""
    rows = budgets.window_rows(state, now)
    levels: dict[str, int] = {}
    for row in rows:
        row["percentage"] = percent_text(row["used"] + row["held"], row["limit"])
        row["starts_at"] = iso(row["starts_at"])
        row["resets_at"] = iso(row["resets_at"])
        rank = budgets.LEVELS.index(row["level"])
        levels[row["scope"]] = max(levels.get(row["scope"], 0), rank)
    return {
        "as_of": state.meta.log_id,
        "at": iso(now),
        "levels": {scope: budgets.LEVELS[rank] for scope, rank in levels.items()},
        "windows": rows,
    }


def cell_view(cell: Cell) -> dict[str, Any]:
    """Sums as a person expects them; exact amounts beside the ``"$0.90"`` text."""
    return {
        "tasks": cell.completed,
        "tokens": cell.tokens,
        "cost": dollars(cell.nanos, 2),
        "cost_nanos": cell.nanos,
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "cache_read_tokens": cell.cache_read_tokens,
        "cache_write_tokens": cell.cache_write_tokens,
        "estimated_tokens": cell.estimated_tokens,
        "failed": cell.failed,
        "disputed_tokens": cell.disputed_tokens,
        "disputed_cost_nanos": cell.disputed_nanos,
    }


def token_usage_view(state: State) -> dict[str, Any]:
    """``asb:agents:token:usage``: totals per agent and overall, since the log began."""
    agents = usage.by(state.lifetime, "agent")
    total = usage.total(state.lifetime.values())
    return {
        "as_of": state.meta.log_id,
        "at": iso(state.meta.at),
        "agents": {name: cell_view(cell) for name, cell in agents.items()},
        "total": {
            "tasks_completed": total.completed,
            "tokens_used": total.tokens,
            "cost": dollars(total.nanos, 2),
            "cost_nanos": total.nanos,
            "avg_tokens_per_task": total.tokens // total.completed if total.completed else 0,
        },
    }
