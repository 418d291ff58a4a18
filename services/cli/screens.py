"""The seed's screens, filled from the state: State → text, and the same figures for programs. PURE.

Every figure is a fold of the log. Shares are of what is used; what is held stands after its line.
Totals are in $ with four decimals, the throttle lines with two; averages are floored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from events.money import Usage, cost_nanos, dollars, hold_nanos
from events.policy import Limit
from projections import throttle, usage, views
from projections.state import State
from projections.tasks import RUNNING
from projections.usage import Cell
from projections.workers import ALIVE, LOST, Worker
from services.cli.out import clip, first_line, pad
from services.cli.words import SYMBOLS, limit_text

RULE = "=" * 80
NAME_CELLS = (20, 40)  # the seed's column for names, and how far long names may widen it
STATUS_WINDOWS = (("tokens", "hour"), ("tokens", "day"), ("money", "hour"), ("money", "day"))
UNIT_WORDS = {"tokens": "Tokens", "money": "Cost", "tasks": "Tasks"}
WINDOW_ORDER = {"hour": 1, "day": 2, "week": 3, "month": 4}


def status(state: State, now: int, texts: Mapping[str, str]) -> str:
    """The screen of ``asb status``. ``texts``: prompts of running tasks, by task id."""
    total = usage.total(state.lifetime.values())
    return "\n".join(
        [
            "CONCURRENT TASK MANAGER STATUS",
            RULE,
            f"Tasks in queue: {waiting_count(state):,}",
            f"Total completed: {state.meta.completed:,}",
            f"Total tokens used: {total.tokens:,}",
            f"Estimated cost: {dollars(total.nanos)}",
            *disputed_lines(total),
            "",
            *_global_lines(state, now, STATUS_WINDOWS),
            "",
            *_worker_lines(state, texts),
            "",
            *_level_lines(state, now),
        ]
    )


def metrics(state: State) -> str:
    """The screen of ``asb metrics``."""
    total = usage.total(state.lifetime.values())
    done = state.meta.completed
    lines = [
        "TOKEN USAGE & COST METRICS",
        RULE,
        "Global Metrics:",
        f"  Total tasks completed:  {done:,}",
        f"  Total tokens used:      {total.tokens:,}",
        f"  Estimated total cost:   {dollars(total.nanos)}",
        f"  Average tokens/task:    {_average(total.tokens, done):,}",
        f"  Average cost/task:      {_floored(_average(total.nanos, done))}",
        *_flag_lines(state),
        *(f"  {line}" for line in disputed_lines(total)),
        "",
        "Per-Worker Metrics:",
    ]
    cells = usage.by(state.lifetime, "worker")
    names = sorted({*state.workers, *cells}, key=natural)
    if not names:
        lines.append("  none yet")
    for name in names:
        cell = cells.get(name, Cell())
        lines += [
            f"  {name}",
            f"    Tasks completed:  {cell.completed:,}",
            f"    Tokens used:      {cell.tokens:,}",
            f"    Estimated cost:   {dollars(cell.nanos)}",
            f"    Avg tokens/task:  {_average(cell.tokens, cell.completed):,}",
            "",
        ]
    if lines[-1]:
        lines.append("")
    return "\n".join(
        [
            *lines,
            "Cost Optimization:",
            "  ✅ Task delegation enabled - routing to optimal models",
            f"  {savings_line(state)}",
        ]
    )


def _flag_lines(state: State) -> list[str]:
    """Usage that contradicts itself or cannot be read, where there was any."""
    ever = sum(flagged.count for flagged in state.flags.values())
    return [f"  Reports with a flag:    {ever:,} (`asb doctor` says which)"] if ever else []


def disputed_lines(total: Cell) -> list[str]:
    """What was reported beyond the plausibility bound and waits for a correction, if anything."""
    if not total.disputed_tokens and not total.disputed_nanos:
        return []
    money = dollars(total.disputed_nanos)
    return [f"Disputed: {total.disputed_tokens:,} tokens, {money}, not charged (asb correct)"]


def throttle_screen(state: State, now: int) -> str:
    """The screen of ``asb throttle``: the seed's two throttle blocks, and cost per month."""
    shown = [*STATUS_WINDOWS, ("money", "month")]
    limits = throttle.limits_for(state, "global")
    more = sorted(
        {(x.unit, x.window) for x in limits} - set(shown),
        key=lambda w: (list(UNIT_WORDS).index(w[0]), WINDOW_ORDER.get(w[1], 0), w[1]),
    )
    return "\n".join([*_global_lines(state, now, (*shown, *more)), "", *_level_lines(state, now)])


# -- blocks ----------------------------------------------------------------------------------


def _global_lines(state: State, now: int, windows: tuple[tuple[str, str], ...]) -> list[str]:
    limits = {(x.unit, x.window): x for x in throttle.limits_for(state, "global")}
    labels = [f"{UNIT_WORDS[unit]}/{window}:" for unit, window in windows]
    rows = [_global_row(state, now, w, limits.get(w)) for w in windows]
    label_cells = max(len(label) for label in labels)
    of_cells = max(len(of) for of, _ in rows)
    return ["Global Throttle Status:"] + [
        f"  {label:<{label_cells}} {of:<{of_cells}} {share}".rstrip()
        for label, (of, share) in zip(labels, rows, strict=True)
    ]


def _global_row(
    state: State, now: int, window: tuple[str, str], limit: Limit | None
) -> tuple[str, str]:
    """``48,523 / 500K`` and ``(9.7%) + 1,010 held`` for one window of the global scope; its level
    where that is more than NONE."""
    unit, length = window
    spent = throttle.used(state, "global", length, now).of(unit)
    held = throttle.held(state, "global", unit)
    shown = _unit_text(unit, spent)
    after = f"+ {_unit_text(unit, held)} held" if held else ""
    if limit is None:
        return f"{shown} / no limit", after
    share = f"({views.percent_text(spent, limit.amount)})"
    level = throttle.level(spent + held, limit.amount)
    mark = f"{SYMBOLS[level]} {throttle.LEVELS[level]}" if level else ""
    return f"{shown} / {limit_text(unit, limit.amount)}", f"{share} {after}".rstrip() + f"  {mark}"


def _unit_text(unit: str, amount: int) -> str:
    return dollars(amount, 2) if unit == "money" else f"{amount:,}"


def _worker_lines(state: State, texts: Mapping[str, str]) -> list[str]:
    workers = by_name(state)
    if not workers:
        return ["Worker Status:", "  no workers yet"]
    cells = usage.by(state.lifetime, "worker")
    name_cells = _name_cells(workers)
    tokens = [f"{cells.get(w.name, Cell()).tokens:,}" for w in workers]
    token_cells = max(len(t) for t in tokens)
    done_cells = max(2, *(len(f"{w.completed:,}") for w in workers))
    return ["Worker Status:"] + [
        f"  {_name(w, name_cells)} {symbol(w)} {word(w):<8} | Done: {w.completed:>{done_cells},}"
        f" | Tokens: {used:>{token_cells}} | Task: {_task(w, texts)}"
        for w, used in zip(workers, tokens, strict=True)
    ]


def _level_lines(state: State, now: int) -> list[str]:
    workers = by_name(state)
    if not workers:
        return ["Throttle Levels:", "  no workers yet"]
    name_cells = _name_cells(workers)
    hours = [f"{_tokens(state, w, 'hour', now):,}" for w in workers]
    days = [f"{_tokens(state, w, 'day', now):,}" for w in workers]
    hour_cells, day_cells = max(map(len, hours)), max(map(len, days))
    lines = ["Throttle Levels:"]
    for w, hour, day in zip(workers, hours, days, strict=True):
        key = "worker:" + w.name
        level = throttle.scope_level(state, key, now)
        held = throttle.held(state, key, "tokens")
        lines.append(
            f"  {_name(w, name_cells)} {SYMBOLS[level]} {throttle.LEVELS[level]:<10}"
            f" | Hour: {hour:>{hour_cells}} | Day: {day:>{day_cells}}"
            + (f" + {held:,} held" if held else "")
        )
    return lines


def _tokens(state: State, worker: Worker, window: str, now: int) -> int:
    return throttle.used(state, "worker:" + worker.name, window, now).tokens


def _name_cells(workers: list[Worker]) -> int:
    low, high = NAME_CELLS
    return min(high, max(low, *(len(w.name) for w in workers)))


def _name(worker: Worker, cells: int) -> str:
    return pad(clip(worker.name, cells), cells)


def symbol(worker: Worker) -> str:
    if worker.status != ALIVE:
        return "⚫" if worker.status == LOST else "⚪"
    if worker.running:
        return "🔴"
    return "🟡" if worker.paused else "🟢"


def word(worker: Worker) -> str:
    """IDLE or BUSY as in the seed; PAUSED, LOST and LEFT where that is what keeps it from work."""
    if worker.status != ALIVE:
        return worker.status.upper()
    if worker.paused:
        return "PAUSED"
    return "BUSY" if worker.running else "IDLE"


def _task(worker: Worker, texts: Mapping[str, str]) -> str:
    if not worker.running:
        return "None"
    first, *others = sorted(worker.running)
    title = clip(first_line(texts.get(first, "")), 60) or first
    return f"{title} (+{len(others)})" if others else title


def by_name(state: State) -> list[Worker]:
    """All workers in the order people count: w2 before w10."""
    return sorted(state.workers.values(), key=lambda w: natural(w.name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which numbers within names count as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p[0].isdecimal() else (1, 0, p) for p in parts]


# -- figures ---------------------------------------------------------------------------------


def waiting_count(state: State) -> int:
    """Tasks taken in and not yet with a worker."""
    return len(state.tasks) - running_count(state)


def running_count(state: State) -> int:
    return sum(len(w.running) for w in state.workers.values())


def _average(amount: int, tasks: int) -> int:
    return amount // tasks if tasks else 0


def _floored(nanos: int) -> str:
    """Money with four decimals, floored: an average never claims more than was spent."""
    return dollars(nanos - nanos % 100_000)


def savings(state: State, cells: dict[str, Cell] | None = None) -> dict[str, Any] | None:
    """What was spent, and what the same tokens cost on the dearest model of the price book.

    For all time, or for ``cells``.
    None without data: nothing completed, or nothing with a known price.
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
            actual += cell.nanos
            uniform += _priced_as(state, cell, dearest)
            tokens += cell.tokens
    if not uniform:
        return None
    return {"model": dearest, "cost_nanos": actual, "uniform_nanos": uniform, "tokens": tokens}


def _priced_as(state: State, cell: Cell, model: str) -> int:
    price = state.policy.prices[model]
    if price.flat:
        return hold_nanos(cell.tokens, price)
    parts = Usage(
        cell.input_tokens, cell.output_tokens, cell.cache_read_tokens, cell.cache_write_tokens
    )
    return cost_nanos(parts, price) + hold_nanos(cell.estimated_tokens, price)


def savings_line(state: State, cells: dict[str, Cell] | None = None) -> str:
    found = savings(state, cells)
    if found is None:
        return "⏳ Measured savings: not enough data yet"
    actual, uniform = found["cost_nanos"], found["uniform_nanos"]
    against = f"everything on {found['model']} ({dollars(actual)} instead of {dollars(uniform)})"
    if actual > uniform:
        return (
            f"❗ No savings: {views.percent_text(actual - uniform, uniform)} dearer than {against}"
        )
    return f"✅ Measured savings: {views.percent_text(uniform - actual, uniform)} vs {against}"


# -- for programs ------------------------------------------------------------------------------


def status_view(state: State, now: int, texts: Mapping[str, str]) -> dict[str, Any]:
    """``asb status --json``."""
    total = usage.total(state.lifetime.values())
    cells = usage.by(state.lifetime, "worker")
    meta = state.meta
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
        "level": throttle.LEVELS[throttle.scope_level(state, "global", now)],
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
        "status": word(worker),
        "agent": worker.agent or None,
        "models": list(worker.models),
        "capacity": worker.capacity,
        "completed": worker.completed,
        "failed": worker.failed,
        "tokens_used": cell.tokens,
        "cost_nanos": cell.nanos,
        "level": throttle.LEVELS[throttle.scope_level(state, key, now)],
        "tokens_hour": throttle.used(state, key, "hour", now).tokens,
        "tokens_day": throttle.used(state, key, "day", now).tokens,
        "held_tokens": throttle.held(state, key, "tokens"),
        "tasks": [
            {"task": t, "attempt": a, "text": first_line(texts.get(t, ""))}
            for t, a in sorted(worker.running.items())
        ],
        "session": worker.session,
        "joined_at": views.iso(worker.joined_at),
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
            "average_tokens_per_task": _average(total.tokens, done),
            "average_cost_nanos_per_task": _average(total.nanos, done),
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
        "savings": savings(state),
    }


def throttle_view(state: State, now: int) -> dict[str, Any]:
    """``asb throttle --json``: as in the key ``asb:throttle``, at this moment."""
    return views.throttle_view(state, now)


def running_texts(state: State) -> dict[str, str]:
    """Where the prompts of the tasks lie that the status screen names: task id → log id."""
    return {
        task.id: task.log_id
        for worker in state.workers.values()
        for t in sorted(worker.running)[:1]
        if (task := state.tasks.get(t)) is not None and task.status in RUNNING
    }
