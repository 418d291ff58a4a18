"""All buses of a server as a table. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from events.money import dollars
from services.queries.buses import BusRow
from services.screens.text import table

HEADS = ("NAMESPACE", "WAITING", "RUNNING", "DONE", "FAILED", "TOKENS", "COST", "LEVEL")


def buses_text(rows: Sequence[BusRow], width: int) -> str:
    """A line for each bus; what cannot be read says why."""
    return table(
        HEADS, [_cells(row) for row in rows], right="WAITING RUNNING DONE FAILED TOKENS COST",
        width=width,
    )  # fmt: skip


def _cells(row: BusRow) -> tuple[str, ...]:
    if row.problem:
        return (row.namespace, *[""] * 6, row.problem)
    figures = (row.waiting, row.running, row.completed, row.failed, row.tokens)
    reason = f" ({row.level_reason})" if row.level_reason else ""
    return (
        row.namespace,
        *(f"{figure:,}" for figure in figures),
        dollars(row.cost_nanos),
        f"{row.level}{reason}",
    )
