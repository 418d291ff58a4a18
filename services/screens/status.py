"""The screens status, metrics and throttle, filled from the state. PURE."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from events.money import dollars
from events.policy import Limit
from projections import budgets, usage, views
from projections.format import SYMBOLS, first_line, limit_name, limit_text, span
from projections.records import ALIVE, LEFT, Cell, Worker
from projections.state import State
from services.queries.accounts import account_text, limited
from services.queries.figures import (
    STATUS_WINDOWS,
    average,
    by_name,
    natural,
    savings,
    waiting_count,
    worker_word,
)
from services.queries.notices import level_of, notices, present
from services.screens.limits import of_whole
from services.screens.text import clip, pad

RULE = "=" * 80
FULL_SHOWN = 5  # limits of agents, models and projects that a screen names
ABSENT = "absent"  # of a worker that is expected and never joined


NAME_CELLS = (20, 40)  # the seed's column for names, and how far long names may widen it


UNIT_WORDS = {"tokens": "Tokens", "money": "Cost", "tasks": "Tasks"}


WINDOW_ORDER = {"hour": 1, "day": 2, "week": 3, "month": 4}


NO_WORKERS = "  no workers yet: asb worker w1 -- my-agent"


class Shown(msgspec.Struct, frozen=True):
    """Which workers a screen lists: ``everyone``, those that left as well; ``absent`` ones where
    no other is."""

    everyone: bool = False
    absent: tuple[str, ...] = ()

    def of(self, state: State) -> tuple[list[Worker], str]:
        """The workers, and a line for those that are left out ("" for none)."""
        here, gone = (by_name(state), "") if self.everyone else present(state)
        return here or [Worker(name, "", status=ABSENT) for name in self.absent], gone


PRESENT = Shown()


def status_screen(state: State, now: int, texts: Mapping[str, str], shown: Shown = PRESENT) -> str:
    """The screen of ``asb status``. ``texts``: prompts of running tasks, by task id."""
    total = usage.total(state.lifetime.values())
    waiting = waiting_count(state)
    why = "  (asb tasks --waiting says what each waits for)" if waiting else ""
    workers, gone = shown.of(state)
    return "\n".join(
        [
            "CONCURRENT TASK MANAGER STATUS",
            RULE,
            f"Tasks in queue: {waiting:,}{why}",
            f"Total completed: {state.meta.completed:,}",
            f"Total tokens used: {total.tokens:,}",
            f"Estimated cost: {dollars(total.nanos)}",
            *notices(state),
            "",
            *_global_lines(state, now, STATUS_WINDOWS),
            "",
            *_worker_lines(state, texts, workers, gone),
            *agent_lines(workers, now),
            *(f"  🟠 Account {account_text(known, now)}" for known in limited(state)),
            "",
            *_level_lines(state, now, workers),
        ]
    )


def metrics_screen(state: State, shown: Shown = PRESENT) -> str:
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
        f"  Average tokens/task:    {average(total.tokens, done):,}",
        f"  Average cost/task:      {_floored(average(total.nanos, done))}",
        *(f"  {line}" for line in notices(state)),
        "",
        "Per-Worker Metrics:",
    ]
    cells = usage.by(state.lifetime, "worker")
    listed, gone = shown.of(state)
    left_out = {w.name for w in state.workers.values()} - {w.name for w in listed}
    names = sorted({w.name for w in listed} | set(cells) - left_out, key=natural)
    if not names:
        lines.append("  none yet")
    for name in names:
        cell = cells.get(name, Cell())
        lines += [
            f"  {name}",
            f"    Tasks completed:  {cell.completed:,}",
            f"    Tokens used:      {cell.tokens:,}",
            f"    Estimated cost:   {dollars(cell.nanos)}",
            f"    Avg tokens/task:  {average(cell.tokens, cell.completed):,}",
            "",
        ]
    if gone:
        lines += [f"  {gone}", ""]
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


def throttle_screen(state: State, now: int, shown: Shown = PRESENT) -> str:
    """The screen of ``asb throttle``: the seed's two throttle blocks, and cost per month."""
    workers, gone = shown.of(state)
    windows = [*STATUS_WINDOWS, ("money", "month")]
    limits = budgets.limits_for(state, "global")
    more = sorted(
        {(x.unit, x.window) for x in limits} - set(windows),
        key=lambda w: (list(UNIT_WORDS).index(w[0]), WINDOW_ORDER.get(w[1], 0), w[1]),
    )
    lines = [*_global_lines(state, now, (*windows, *more)), "", *_level_lines(state, now, workers)]
    return "\n".join([*lines, f"  {gone}"] if gone else lines)


def _global_lines(state: State, now: int, windows: tuple[tuple[str, str], ...]) -> list[str]:
    limits = {(x.unit, x.window): x for x in budgets.limits_for(state, "global")}
    labels = [f"{UNIT_WORDS[unit]}/{window}:" for unit, window in windows]
    rows = [_global_row(state, now, w, limits.get(w)) for w in windows]
    label_cells = max(len(label) for label in labels)
    of_cells = max(len(of) for of, _ in rows)
    level, reason = level_of(state, "global", now)
    why = f": {reason}" if reason else ""
    return (
        [f"Global Throttle Status: {SYMBOLS[level]} {budgets.LEVELS[level]}{why}"]
        + [
            f"  {label:<{label_cells}} {of:<{of_cells}} {share}".rstrip()
            for label, (of, share) in zip(labels, rows, strict=True)
        ]
        + _other_lines(state, now)
    )


def _other_lines(state: State, now: int) -> list[str]:
    """Limits of agents, models and projects that are nearly or wholly used: workers have lines of
    their own."""
    rows = budgets.window_rows(state, now)
    full = [
        row
        for row in rows
        if row["scope"].partition(":")[0] in ("agent", "model", "project")
        and row["level"] != "NONE"
    ]
    full.sort(key=lambda row: (-budgets.LEVELS.index(row["level"]), row["scope"]))
    lines = [
        f"  {SYMBOLS[budgets.LEVELS.index(row['level'])]} {row['level']:<9} "
        f"{limit_name(row['unit'], row['window'], row['scope'])} (asb limits)"
        for row in full[:FULL_SHOWN]
    ]
    more = len(full) - FULL_SHOWN
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def _global_row(
    state: State, now: int, window: tuple[str, str], limit: Limit | None
) -> tuple[str, str]:
    """``48,523 / 500K`` and ``(9.7%) + 1,010 held`` for one window of the global scope; its level
    where that is more than NONE."""
    unit, length = window
    spent = budgets.used(state, "global", length, now).of(unit)
    held = budgets.held(state, "global", unit)
    shown = _unit_text(unit, spent)
    after = f"+ {_unit_text(unit, held)} held" if held else ""
    if limit is None:
        return f"{shown} / no limit", after
    share = f"({views.percent_text(spent, limit.amount)})"
    level = budgets.level(spent + held, limit.amount)
    mark = f"{SYMBOLS[level]} {budgets.LEVELS[level]}" if level else ""
    bound = limit_text(unit, limit.amount) + of_whole(state, limit)
    return f"{shown} / {bound}", f"{share} {after}".rstrip() + f"  {mark}"


def _unit_text(unit: str, amount: int) -> str:
    return dollars(amount, 2) if unit == "money" else f"{amount:,}"


def _worker_lines(
    state: State, texts: Mapping[str, str], workers: list[Worker], gone: str
) -> list[str]:
    folded = [f"  {gone}"] if gone else []
    if not workers:
        return ["Worker Status:", NO_WORKERS, *folded]
    cells = usage.by(state.lifetime, "worker")
    name_cells = _name_cells(workers)
    tokens = [f"{cells.get(w.name, Cell()).tokens:,}" for w in workers]
    token_cells = max(len(t) for t in tokens)
    done_cells = max(2, *(len(f"{w.completed:,}") for w in workers))
    return (
        ["Worker Status:"]
        + [
            f"  {_name(w, name_cells)} {symbol(w)} {worker_word(w):<8}"
            f" | Done: {w.completed:>{done_cells},}"
            f" | Tokens: {used:>{token_cells}} | Task: {_task(w, texts)}"
            for w, used in zip(workers, tokens, strict=True)
        ]
        + folded
    )


def agent_lines(workers: list[Worker], now: int) -> list[str]:
    """What agents say of themselves that a person should know, since when and by whose word."""
    words = {
        "permission": "waits for a person: permission for {about}",
        "limited": "is refused by its provider",
        "dead": "has no agent: it is dead",
        "unknown": "has an agent of which nothing is known",
    }
    return [
        f"  🟠 {w.name} {words[w.agent_state].format(about=w.agent_about or 'a tool')}, "
        f"{span(max(0, now - w.agent_since))} (by its {w.agent_by or 'silence'})"
        for w in workers
        if w.status == ALIVE and w.agent_state in words
    ]


def _level_lines(state: State, now: int, workers: list[Worker]) -> list[str]:
    if not workers:
        return ["Throttle Levels:", NO_WORKERS]
    name_cells = _name_cells(workers)
    hours = [f"{_tokens(state, w, 'hour', now):,}" for w in workers]
    days = [f"{_tokens(state, w, 'day', now):,}" for w in workers]
    hour_cells, day_cells = max(map(len, hours)), max(map(len, days))
    lines = ["Throttle Levels:"]
    for w, hour, day in zip(workers, hours, days, strict=True):
        key = "worker:" + w.name
        level = budgets.scope_level(state, key, now)
        held = budgets.held(state, key, "tokens")
        lines.append(
            f"  {_name(w, name_cells)} {SYMBOLS[level]} {budgets.LEVELS[level]:<10}"
            f" | Hour: {hour:>{hour_cells}} | Day: {day:>{day_cells}}"
            + (f" + {held:,} held" if held else "")
        )
    return lines


def _tokens(state: State, worker: Worker, window: str, now: int) -> int:
    return budgets.used(state, "worker:" + worker.name, window, now).tokens


def _name_cells(workers: list[Worker]) -> int:
    low, high = NAME_CELLS
    return min(high, max(low, *(len(w.name) for w in workers)))


def _name(worker: Worker, cells: int) -> str:
    return pad(clip(worker.name, cells), cells)


def symbol(worker: Worker) -> str:
    if worker.status != ALIVE:
        return "⚪" if worker.status == LEFT else "⚫"
    if worker.asks or worker.agent_state == "dead":
        return "🟠"
    if worker.running or worker.agent_state == "busy":
        return "🔴"
    return "🟡" if worker.paused else "🟢"


def _task(worker: Worker, texts: Mapping[str, str]) -> str:
    if not worker.running:
        return "None"
    first, *others = sorted(worker.running)
    title = clip(first_line(texts.get(first, "")), 60) or first
    return f"{title} (+{len(others)})" if others else title


def _floored(nanos: int) -> str:
    """Money with four decimals, floored: an average never claims more than was spent."""
    return dollars(nanos - nanos % 100_000)


def savings_line(state: State, cells: dict[str, Cell] | None = None) -> str:
    saved = savings(state, cells)
    if saved is None:
        return "⏳ Measured savings: not enough data yet"
    actual, uniform = saved["cost_nanos"], saved["uniform_nanos"]
    against = f"all on {saved['model']} ({dollars(actual)}, not {dollars(uniform)})"
    if actual > uniform:
        return (
            f"❗ No savings: {views.percent_text(actual - uniform, uniform)} dearer than {against}"
        )
    return f"✅ Measured savings: {views.percent_text(uniform - actual, uniform)} vs {against}"
