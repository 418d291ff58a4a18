"""The limits and the rest of the policy, as text."""

from __future__ import annotations

from typing import Any

from events.money import dollars
from events.policy import Limit, rolling_minutes
from events.task import PRIORITIES
from projections import budgets, views
from projections.format import SYMBOLS, amount_text, limit_text, span
from projections.shares import share_of_limit
from projections.state import State
from services.queries.limits import limit_order, limit_rows
from services.screens.text import fitted, folded


def limits_text(state: State, now: int, columns: int) -> str:
    """Every limit with what is used and held of it, then the rest of the policy. ``columns`` of
    terminal, 0 for no bound."""
    rows = budgets.window_rows(state, now)
    heads = ("SCOPE", "WINDOW", "LIMIT", "USED", "HELD", "SHARE", "LEVEL", "RESETS IN")
    cells = [
        line
        for limit in sorted(state.policy.limits, key=limit_order)
        for line in _lines(limit, limit_rows(limit, rows, state), now, of_whole(state, limit))
    ]
    lines = ["no limits: nothing is refused"]
    if cells:
        lines = [fitted(heads, cells, columns, right="LIMIT USED HELD SHARE")]
    return "\n".join([*lines, *(folded(line, columns) for line in _other_lines(state, now))])


def of_whole(state: State, limit: Limit) -> str:
    """Of what ``limit`` is a share, "" where it is none."""
    share = share_of_limit(state.policy, limit)
    return "" if share is None else f" of {limit_text(limit.unit, share.whole)}"


def _lines(limit: Limit, rows: list[dict[str, Any]], now: int, whole: str) -> list[tuple[str, ...]]:
    """One line where a limit bounds one scope; each scope's own where it bounds several."""
    name, amount = f"{limit.unit}/{limit.window}", limit_text(limit.unit, limit.amount) + whole
    if not rows:
        return [(limit.scope, name, amount, "-", "-", "-", "-", "-")]
    rows = sorted(rows, key=lambda row: (-(row["used"] + row["held"]), row["scope"]))[:20]
    return [
        (
            row["scope"],
            name,
            amount,
            amount_text(limit.unit, row["used"]),
            amount_text(limit.unit, row["held"]),
            views.percent_text(row["used"] + row["held"], limit.amount),
            f"{SYMBOLS[budgets.LEVELS.index(row['level'])]} {row['level']}",
            "rolling" if rolling_minutes(limit.window) else span(row["resets_at"] - now),
        )
        for row in rows
    ]


def _other_lines(state: State, now: int) -> list[str]:
    p = state.policy
    lines: list[str] = []
    for share in p.shares:
        parts = [limit_text(share.unit, amount) for amount in (share.balance, share.whole)]
        lines.append(
            f"Divided:       {share.unit}/{share.window}: {share.bus} has {' of '.join(parts)}, "
            f"which {share.home} keeps"
        )
    for x in p.alert_budgets:
        used = budgets.used(state, "global", x.window, now).of(x.unit)
        lines.append(
            f"Alert budget:  {x.unit}/{x.window} at {x.threshold_percent} % of "
            f"{limit_text(x.unit, x.amount)}; used {amount_text(x.unit, used)} "
            f"({views.percent_text(used, x.amount)})"
        )
    when = {"off": "off", "always": "always"}.get(p.saving.start, f"from {p.saving.start} on")
    more = "" if p.saving.start == "off" else f": {p.saving.model} for {', '.join(p.saving.kinds)}"
    lines.append(f"Saving:        {when}{more}")
    lines.append(f"Guard:         {p.guard.action}, by steps of {p.guard.step_percent} %")
    lines.append(
        f"Plausible:     at most {limit_text('tokens', p.plausible_tokens)} tokens and "
        f"{dollars(p.plausible_nanos, 2)} an attempt; the rest is disputed"
    )
    if p.min_priority != PRIORITIES[0]:
        lines.append(f"Min. priority: {p.min_priority}: what is below waits")
    if p.critical_overdraft:
        lines.append("Overdraft:     critical tasks go beyond every limit")
    return lines
