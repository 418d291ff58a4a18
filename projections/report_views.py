"""Reports: what was spent in a day, a week or a month, in the seed's shape. PURE.

The seed's keys (``date``, ``agents``, ``total``) come first, with costs as ``"$0.90"``; exact
amounts and further breakdowns stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from events.money import dollars
from projections import usage
from projections.records import Cell
from projections.state import State

NAMES_MAX = 200  # of a breakdown; the rest shares "other", so sums stay exact
UNNAMED = "unknown"


def day_report(state: State, day: str, version: int = 0) -> dict[str, Any]:
    """The report of one day as it stands. ``version`` 0: not issued, made on demand."""
    return {**report({day: state.days.get(day, {})}, day), "version": version, **_zone(state)}


def period_report(state: State, days: Iterable[str], name: str) -> dict[str, Any]:
    """The same for several days; ``name`` is what stands under ``date``: 2026-W47, 2026-11."""
    chosen = {day: state.days[day] for day in days if day in state.days}
    by_day = {day: _sums(usage.total(cells.values())) for day, cells in sorted(chosen.items())}
    return {**report(chosen, name), "days": by_day, **_zone(state)}


def report(days: Mapping[str, Mapping[str, Cell]], name: str) -> dict[str, Any]:
    """What stands in the cells of ``days``, summed."""
    cells = merged(days.values())
    total = usage.total(cells.values())
    return {
        "date": name,
        "agents": {n: _sums(c) for n, c in breakdown(cells, "agent").items()},
        "total": {
            "tasks_completed": total.completed,
            "tokens_used": total.tokens,
            "cost": dollars(total.nanos, 2),
            "avg_tokens_per_task": total.tokens // total.completed if total.completed else 0,
            "cost_nanos": total.nanos,
            "attempts_failed": total.failed,
            "estimated_tokens": total.estimated_tokens,
            "input_tokens": total.input_tokens,
            "output_tokens": total.output_tokens,
            "cache_read_tokens": total.cache_read_tokens,
            "cache_write_tokens": total.cache_write_tokens,
            "disputed_tokens": total.disputed_tokens,
            "disputed_cost_nanos": total.disputed_nanos,
        },
        **{
            f"{dimension}s": {n: _sums(c) for n, c in breakdown(cells, dimension).items()}
            for dimension in ("model", "kind", "project", "worker")
        },
    }


def merged(several: Iterable[Mapping[str, Cell]]) -> dict[str, Cell]:
    """Cells of several days as those of one."""
    sums: dict[str, Cell] = {}
    for cells in several:
        for key, cell in cells.items():
            sums.setdefault(key, Cell()).add(cell)
    return sums


def breakdown(cells: dict[str, Cell], dimension: str) -> dict[str, Cell]:
    """Cells by one dimension. Agents add up to the total; work without a project has none."""
    sums = usage.by(cells, dimension)
    if dimension == "agent":
        rest = usage.total(cells.values())
        for cell in sums.values():
            rest.add(cell.negative())
        if rest != Cell():
            sums.setdefault(UNNAMED, Cell()).add(rest)
    if len(sums) > NAMES_MAX:
        ranked = sorted(sums, key=lambda n: (-sums[n].tokens, n))
        rest = sums.pop("other", Cell())
        for name in ranked[NAMES_MAX - 1 :]:
            if name != "other":
                rest.add(sums.pop(name))
        sums["other"] = rest
    return sums


def _sums(cell: Cell) -> dict[str, Any]:
    return {
        "tasks": cell.completed,
        "tokens": cell.tokens,
        "cost": dollars(cell.nanos, 2),
        "cost_nanos": cell.nanos,
    }


def _zone(state: State) -> dict[str, Any]:
    return {"timezone": state.policy.timezone}
