"""Single figures of a state that several screens show. PURE."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from events.money import cost_nanos, hold_nanos
from events.tokens import TokenParts
from projections import usage
from projections.records import ALIVE, Cell, Worker
from projections.state import State

STATUS_WINDOWS = (("tokens", "hour"), ("tokens", "day"), ("money", "hour"), ("money", "day"))


def worker_word(worker: Worker) -> str:
    """IDLE or BUSY as in the seed; PAUSED, LOST and LEFT where that is what keeps it from work,
    ASKS where it waits for a person, DEAD where its agent is."""
    if worker.status != ALIVE:
        return worker.status.upper()
    if worker.asks or worker.agent_state == "dead":
        return "ASKS" if worker.asks else "DEAD"
    if worker.paused:
        return "PAUSED"
    return "BUSY" if worker.running or worker.agent_state == "busy" else "IDLE"


def by_name(state: State) -> list[Worker]:
    """All workers in the order people count: w2 before w10."""
    return sorted(state.workers.values(), key=lambda w: natural(w.name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which numbers within names count as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p[0].isdecimal() else (1, 0, p) for p in parts]


def waiting_count(state: State) -> int:
    """Tasks taken in and not yet with a worker."""
    return len(state.tasks) - running_count(state)


def running_count(state: State) -> int:
    return sum(len(w.running) for w in state.workers.values())


def average(amount: int, tasks: int) -> int:
    return amount // tasks if tasks else 0


def savings(state: State, cells: dict[str, Cell] | None = None) -> dict[str, Any] | None:
    """What measured usage cost, and what the same tokens cost on the dearest model of the price
    book. What was estimated stays out: an estimate saves nothing.

    For all time, or for ``cells``.
    None without data: nothing completed, or nothing measured at a known price.
    """
    prices = state.policy.prices
    done = state.meta.completed if cells is None else usage.total(cells.values()).completed
    if not prices or not done:
        return None
    cells = state.lifetime if cells is None else cells
    dearest = max(sorted(prices), key=lambda model: prices[model].dearest)
    actual = uniform = tokens = 0
    for model, cell in usage.by(cells, "model").items():
        if model in prices:
            guessed = hold_nanos(cell.estimated_tokens, prices[model])
            actual += max(0, cell.nanos - guessed)
            uniform += _priced_as(state, cell, dearest)
            tokens += cell.tokens - cell.estimated_tokens
    if not uniform:
        return None
    return {"model": dearest, "cost_nanos": actual, "uniform_nanos": uniform, "tokens": tokens}


def _priced_as(state: State, cell: Cell, model: str) -> int:
    price = state.policy.prices[model]
    if price.flat:
        return hold_nanos(cell.tokens - cell.estimated_tokens, price)
    parts = TokenParts(
        cell.input_tokens, cell.output_tokens, cell.cache_read_tokens, cell.cache_write_tokens
    )
    return cost_nanos(parts, price)


def names_text(names: Sequence[str], shown: int) -> str:
    """The first ``shown`` of ``names``, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")
