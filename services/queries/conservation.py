"""Conservation: what the log charges is what windows, totals, reports and views say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from projections import usage
from projections.state import State
from projections.windows import HOUR, HOURS_KEPT, MINUTE, MINUTES_KEPT
from services.audit.check import Audit
from services.queries.figures import names_text

UNITS = ("tokens", "nano-dollars", "tasks")


class SumRow(NamedTuple):
    """One comparison: what was compared, what it came to, and whether both sides agree."""

    name: str
    value: str
    good: bool


def books(audit: Audit, state: State) -> list[SumRow]:
    """The log against the folded state; both must have come to the same place."""
    return [
        _windows(audit, state),
        _holds(audit, state),
        _cells(audit, state),
        _days(audit, state),
        _disputed(audit, state),
    ]


def _windows(audit: Audit, state: State) -> SumRow:
    """Every bucket of every scope that a window can reach."""
    wrong: list[str] = []
    for name in sorted({*state.scopes, *audit.ledger.accounts}):
        scope, account = state.scopes.get(name), audit.ledger.accounts.get(name)
        if scope is None or account is None:
            wrong.append(name)
            continue
        for kept, charged, oldest in (
            (scope.hours, account.hours, state.meta.at // HOUR - HOURS_KEPT),
            (scope.minutes, account.minutes, state.meta.at // MINUTE - MINUTES_KEPT),
        ):
            known = {
                i: [bucket.tokens, bucket.nanos, bucket.tasks]
                for i, bucket in kept.items()
                if i >= oldest
            }
            if known != {i: sums for i, sums in charged.items() if i >= oldest}:
                wrong.append(name)
                break
    figures = f"{len(state.scopes):,} scopes, {_sums(audit.total)}"
    return sum_row("windows, all buckets", figures, wrong)


def _holds(audit: Audit, state: State) -> SumRow:
    accounts = audit.ledger.accounts
    wrong = [
        name
        for name, s in sorted(state.scopes.items())
        if name not in accounts
        or accounts[name].held != [s.held_tokens, s.held_nanos, s.held_tasks]
    ]
    held = accounts["global"].held if "global" in accounts else [0, 0, 0]
    return sum_row("holds", f"{audit.open_holds:,} open, {_sums(held)}", wrong)


def _cells(audit: Audit, state: State) -> SumRow:
    agents = {agent: sums[:2] for agent, sums in audit.by_agent.items() if agent}
    cells = usage.by(state.lifetime, "agent")
    known = {name: [c.tokens, c.nanos] for name, c in cells.items()}
    wrong = [n for n in sorted({*agents, *known}) if agents.get(n, [0, 0]) != known.get(n, [0, 0])]
    total = usage.total(state.lifetime.values())
    if [total.tokens, total.nanos] != audit.total[:2]:
        wrong.append("the total")
    if total.completed != sum(audit.completed.values()):
        wrong.append("tasks completed")
    return sum_row("totals by agent", f"{len(known):,} agents, {_sums(audit.total)}", wrong)


def _days(audit: Audit, state: State) -> SumRow:
    wrong: list[str] = []
    for day, cells in sorted(state.days.items()):
        total = usage.total(cells.values())
        if audit.by_day.get(day, [0, 0, 0])[:2] != [total.tokens, total.nanos]:
            wrong.append(day)
    return sum_row("totals by day", f"{len(state.days):,} days", wrong)


def _disputed(audit: Audit, state: State) -> SumRow:
    """What is disputed: in all, and attempt by attempt."""
    known = {
        key: [charge.disputed_tokens, charge.disputed_nanos]
        for key, charge in state.disputes.items()
    }
    for task in state.tasks.values():
        if task.used is not None and (task.used.disputed_tokens or task.used.disputed_nanos):
            known[f"{task.attempt}:{task.id}"] = [
                task.used.disputed_tokens,
                task.used.disputed_nanos,
            ]
    charged = audit.charges.disputed()
    wrong = [key for key in sorted({*known, *charged}) if known.get(key) != charged.get(key)]
    total = usage.total(state.lifetime.values())
    sums = [total.disputed_tokens, total.disputed_nanos]
    if sums != [sum(amounts[i] for amounts in charged.values()) for i in range(2)]:
        wrong.append("the total")
    figures = ", ".join(f"{n:,} {unit}" for n, unit in zip(sums, UNITS, strict=False))
    return sum_row("disputed", f"{len(known):,} reports, {figures}", wrong)


def usage_view(audit: Audit, view: Mapping[str, Any]) -> SumRow:
    """``asb:agents:token:usage`` against the log at the view's place."""
    agents: Mapping[str, Any] = view["agents"]
    wrong = [
        name
        for name in sorted({*agents, *(a for a in audit.by_agent if a)})
        if [agents.get(name, {}).get(k, 0) for k in ("tokens", "cost_nanos")]
        != audit.by_agent.get(name, [0, 0])[:2]
    ]
    total = view["total"]
    if [total["tokens_used"], total["cost_nanos"]] != audit.total[:2]:
        wrong.append("the total")
    if total["tasks_completed"] != sum(audit.completed.values()):
        wrong.append("tasks completed")
    return sum_row("view of token usage", f"{len(agents):,} agents as of {view['as_of']}", wrong)


def throttle_view(audit: Audit, view: Mapping[str, Any]) -> SumRow:
    """``asb:throttle`` against the log at the view's place."""
    rows: list[Mapping[str, Any]] = view["windows"]
    wrong = [
        f"{r['unit']}/{r['window']} of {r['scope']}"
        for r in rows
        if audit.ledger.standing(r["scope"], r["unit"], r["window"], audit.clock)
        != (r["used"], r["held"])
    ]
    return sum_row("view of the throttle", f"{len(rows):,} windows as of {view['as_of']}", wrong)


def report_view(audit: Audit, day: str, report: Mapping[str, Any]) -> SumRow:
    """The newest report of a day to which nothing came later, against the log."""
    tokens = report["total"]["tokens_used"]
    good = tokens == audit.by_day.get(day, [0, 0, 0])[0]
    return sum_row(f"report of {day}", f"{tokens:,} tokens", [] if good else ["its total"])


def sum_row(name: str, value: str, wrong: list[str]) -> SumRow:
    """One comparison; ``wrong`` names what is not as the log says."""
    said = f"; NOT as the log says: {names_text(wrong, 3)}" if wrong else ""
    return SumRow(name, value + said, not wrong)


def _sums(amounts: list[int]) -> str:
    return ", ".join(f"{amount:,} {unit}" for amount, unit in zip(amounts, UNITS, strict=True))
