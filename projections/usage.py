"""What was spent, by who and for what: the numbers of status, metrics and reports.

Spending is added up in *cells*, one per combination of agent, model, kind, worker and project, once
for all time and once per report day. Every breakdown is a sum over cells, so all of them agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from events.task import Charge
from projections import flags, reports, tallies
from projections.days import DAYS_KEPT, day_of

if TYPE_CHECKING:
    from projections.state import State

CELLS_PER_DAY = 10_000
SEPARATOR = "\x1f"  # cannot occur in a name: control characters are refused at the intake
DIMENSIONS = ("agent", "model", "kind", "worker", "project")


class Cell(msgspec.Struct, array_like=True, gc=False):
    """Sums of one combination. ``tokens`` are counted tokens, ``nanos`` nano-dollars."""

    tokens: int = 0
    nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated_tokens: int = 0
    completed: int = 0
    failed: int = 0
    disputed_tokens: int = 0  # reported beyond the plausibility bound, and charged to nobody
    disputed_nanos: int = 0

    def add(self, other: Cell) -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    def negative(self) -> Cell:
        return Cell(*(-getattr(self, field) for field in self.__struct_fields__))


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
    found = cells.get(key)
    if found is None and len(cells) >= CELLS_PER_DAY:
        key = key.rpartition(SEPARATOR)[0] + SEPARATOR + "other"
        found = cells.get(key)
    if found is None:
        found = Cell()
        state.journal.put(cells, key, found)
    state.journal.touch(found)
    return found


def book(
    state: State, at: int, charge: Charge, completed: int = 0, failed: int = 0, *, replaced: int = 0
) -> None:
    """Add a charge, and how the attempt ended, for all time and for its report day.

    ``replaced`` tokens had been estimated before, and are not any more."""
    key = SEPARATOR.join((charge.agent, charge.model, charge.kind, charge.worker, charge.project))
    estimated = (charge.tokens if charge.estimated else 0) - replaced
    for cells in (state.lifetime, day_cells(state, charge.day_at or charge.window_at or at)):
        cell = _cell(state, cells, key)
        cell.tokens += charge.tokens
        cell.nanos += charge.nanos
        cell.input_tokens += charge.input_tokens
        cell.output_tokens += charge.output_tokens
        cell.cache_read_tokens += charge.cache_read_tokens
        cell.cache_write_tokens += charge.cache_write_tokens
        cell.estimated_tokens = max(0, cell.estimated_tokens + estimated)
        cell.completed += completed
        cell.failed += failed
        cell.disputed_tokens += charge.disputed_tokens
        cell.disputed_nanos += charge.disputed_nanos
    flags.add(state, charge.agent, at, charge.flag)
    tallies.gave_back(state, charge)
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
