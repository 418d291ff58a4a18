"""What a person should know before the figures on a screen are trusted. PURE."""

from __future__ import annotations

from typing import Any

from events.money import dollars
from projections import budgets, usage, views
from projections.format import count, limit_name
from projections.prices import quote
from projections.records import ALIVE, LOST, Cell, Worker
from projections.state import State
from projections.usage import SEPARATOR
from services.queries.figures import by_name, names_text

NAMED = 3  # names that a line shows


def unpriced(cells: dict[str, Cell], state: State) -> list[str]:
    """Models that something was charged for and whose price nobody knows; "" for none named."""
    totals: dict[str, int] = {}
    for key, cell in cells.items():
        model = key.split(SEPARATOR)[1]
        totals[model] = totals.get(model, 0) + cell.tokens
    return sorted(m for m, tokens in totals.items() if tokens and quote(state, m) is None)


def foreign(cells: dict[str, Cell], state: State) -> dict[str, int]:
    """Agents that told usage of work that asb did not give out, and their tokens."""
    by_agent: dict[str, int] = {}
    for key, cell in cells.items():
        agent, _, _, worker, _ = key.split(SEPARATOR)
        if cell.tokens and worker not in state.workers:
            by_agent[agent] = by_agent.get(agent, 0) + cell.tokens
    return dict(sorted(by_agent.items(), key=lambda item: (-item[1], item[0])))


def notices(state: State, cells: dict[str, Cell] | None = None) -> list[str]:
    """A line for each thing that is not as the plain sums suggest; for all time, or ``cells``."""
    everything = cells is None
    cells = state.lifetime if cells is None else cells
    total = usage.total(cells.values())
    lines: list[str] = []
    if everything and state.meta.failed:
        lines.append(f"Failed:     {count(state.meta.failed, 'task')} (asb tasks --failed)")
    if total.estimated_tokens:
        lines.append(f"Estimated:  {total.estimated_tokens:,} of these tokens: no usage was told")
    if models := unpriced(cells, state):
        named = names_text([model or "(no model named)" for model in models], NAMED)
        lines.append(f"Unpriced:   {named} (asb prices)")
    if total.disputed_tokens or total.disputed_nanos:
        much = f"{total.disputed_tokens:,} tokens, {dollars(total.disputed_nanos)}"
        lines.append(f"Disputed:   {much}, not charged (asb correct)")
    agents = {key.split(SEPARATOR)[0] for key in cells}
    flagged = {a: flags.count for a, flags in state.flags.items() if everything or a in agents}
    if flagged:
        reports = count(sum(flagged.values()), "report")
        lines.append(f"Unreadable: {reports} of {names_text(sorted(flagged), NAMED)} (asb doctor)")
    if others := foreign(cells, state):
        tokens = sum(others.values())
        lines.append(f"Foreign:    {tokens:,} tokens that {names_text(list(others), NAMED)} told")
    return lines


def level_of(state: State, key: str, now: int) -> tuple[int, str]:
    """The strictest level over all windows of a scope, and the window that makes it: its name
    and how full it is; "" where there is nothing to say."""
    worst, reason, share = 0, "", (0, 1)
    for limit, amount in budgets.amounts(state, key, now):
        level = budgets.level(amount, limit.amount)
        fuller = amount * share[1] > share[0] * max(1, limit.amount)
        if level and (level, fuller) > (worst, False):
            worst, share = level, (amount, max(1, limit.amount))
            name = limit_name(limit.unit, limit.window, key)
            reason = f"{name} at {views.percent_text(amount, limit.amount)}"
    return worst, reason


def present(state: State) -> tuple[list[Worker], str]:
    """Workers that are here, and a line for those that are not any more ("" for none)."""
    workers = by_name(state)
    here = [w for w in workers if w.status == ALIVE or w.running]
    lost = sum(w.status == LOST and not w.running for w in workers)
    left = len(workers) - len(here) - lost
    gone = [f"{number:,} {word}" for number, word in ((left, "left"), (lost, "lost")) if number]
    return here, f"{' and '.join(gone)}: --all shows them" if gone else ""


def notices_view(state: State) -> dict[str, Any]:
    """The same for programs."""
    total = usage.total(state.lifetime.values())
    return {
        "estimated_tokens": total.estimated_tokens,
        "unpriced_models": unpriced(state.lifetime, state),
        "disputed_tokens": total.disputed_tokens,
        "disputed_cost_nanos": total.disputed_nanos,
        "unreadable_reports": sum(flags.count for flags in state.flags.values()),
        "foreign_tokens": foreign(state.lifetime, state),
    }
