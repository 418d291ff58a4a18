"""What was spent, by who and for what: the numbers of status, metrics and reports.

Spending is added up in *cells*, one per combination of agent, model, kind, worker and project, once
for all time and once per report day. Every breakdown is a sum over cells, so all of them agree.
"""

from __future__ import annotations

from collections.abc import Iterable

from events.task import Charge, add_figures
from projections import flags, reports, tallies
from projections.days import DAYS_KEPT, day_of
from projections.records import Cell
from projections.state import State

CELLS_PER_DAY = 10_000
SEPARATOR = "\x1f"  # cannot occur in a name: control characters are refused at the intake
DIMENSIONS = ("agent", "model", "kind", "worker", "project")


def day_cells(state: State, at: int) -> dict[str, Cell]:
    """The cells of the report day of ``at``, opened when new."""
    day = state.day
    if not day.start <= at < day.end:
        day = state.day = day_of(at, state.zone)
    cells = state.days.get(day.date)
    if cells is None:
        for old in sorted(state.days)[: max(0, len(state.days) - DAYS_KEPT + 1)]:
            state.journal.drop(state.days, old)
        cells = {}
        state.journal.put(state.days, day.date, cells)
    return cells


def _cell(state: State, cells: dict[str, Cell], key: str) -> Cell:
    cell = cells.get(key)
    if cell is None and len(cells) >= CELLS_PER_DAY:
        key = key.rpartition(SEPARATOR)[0] + SEPARATOR + "other"
        cell = cells.get(key)
    if cell is None:
        cell = Cell()
        state.journal.put(cells, key, cell)
    state.journal.touch(cell)
    return cell


def charge(
    state: State,
    at: int,
    charged: Charge,
    completed: int = 0,
    failed: int = 0,
    *,
    replaced: int = 0,
) -> None:
    """Add a charge, and how the attempt ended, for all time and for its report day.

    ``replaced`` tokens had been estimated before, and are not any more."""
    key = SEPARATOR.join(
        (charged.agent, charged.model, charged.kind, charged.worker, charged.project)
    )
    estimated = (charged.tokens if charged.estimated else 0) - replaced
    for cells in (state.lifetime, day_cells(state, charged.day_at or charged.window_at or at)):
        cell = _cell(state, cells, key)
        add_figures(cell, charged)
        cell.estimated_tokens = max(0, cell.estimated_tokens + estimated)
        cell.completed += completed
        cell.failed += failed
    flags.add(state, charged.agent, at, charged.flag)
    tallies.gave_back(state, charged)
    if state.day.date <= state.meta.reported:
        reports.late(state, state.day.date, at)


def by(cells: dict[str, Cell], dimension: str) -> dict[str, Cell]:
    """Cells summed by one of DIMENSIONS, sorted by name; work that has none is left out."""
    index = DIMENSIONS.index(dimension)
    sums: dict[str, Cell] = {}
    for key in sorted(cells):
        name = key.split(SEPARATOR)[index]
        if name:
            sums.setdefault(name, Cell()).add(cells[key])
    return sums


def total(cells: Iterable[Cell]) -> Cell:
    sums = Cell()
    for cell in cells:
        sums.add(cell)
    return sums
