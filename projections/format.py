"""Figures, times and limits as people read them. PURE."""

from __future__ import annotations

from events.money import dollars
from events.task import PRIORITIES
from projections.budgets import Refusal
from projections.views import iso


def first_line(text: str) -> str:
    """What a task is about, on one line."""
    for line in text.splitlines():
        if line.strip():
            return " ".join(line.split())
    return ""


SECOND = 1_000_000


SYMBOLS = ("🟢", "🟡", "🟠", "🔴", "🚨")  # by level, as in projections.budgets.LEVELS


GATES = (90, 95, 99, 100)  # by priority: percent of a limit, as in projections.budgets.gate


def limit_text(unit: str, amount: int) -> str:
    """A limit as the seed writes it: 500K, 5M, $5.00."""
    if unit == "money":
        return dollars(amount, 2)
    if amount >= 1_000_000 and amount % 100_000 == 0:
        tenths = amount // 100_000
        return f"{tenths // 10:,}M" if tenths % 10 == 0 else f"{tenths // 10:,}.{tenths % 10}M"
    if amount >= 1_000 and amount % 1_000 == 0:
        return f"{amount // 1_000}K"
    return f"{amount:,}"


def amount_text(unit: str, amount: int) -> str:
    """An amount of a unit, exact enough to reckon with."""
    return dollars(amount, 4) if unit == "money" else f"{amount:,}"


def span(micros: int) -> str:
    """A length of time: 3 ms, 4.2 s, 12 min, 3 h 5 min, 2 d 4 h."""
    micros = max(0, micros)
    if micros < SECOND:
        return f"{micros // 1000} ms"
    if micros < 60 * SECOND:
        return f"{micros // SECOND}.{micros % SECOND // 100_000} s"
    minutes = micros // (60 * SECOND)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    hours = minutes // 60
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def clock(at: int) -> str:
    """A moment as a time of day, UTC."""
    return iso(at)[11:19]


def limit_name(unit: str, window: str, scope: str) -> str:
    """``tokens/hour of worker w1``, ``money/day overall``."""
    kind, _, name = scope.partition(":")
    of = "overall" if kind == "global" else f"of {kind} {name}"
    return f"{unit}/{window} {of}"


def gate_text(refusal: Refusal, priority: int) -> str:
    """``the normal gate (95 % of 100K) of tokens/hour for worker w1``."""
    r = refusal
    share = f"{GATES[priority]} % of {limit_text(r.unit, r.limit)}"
    kind, _, name = r.scope.partition(":")
    where = "overall" if kind == "global" else f"for {kind} {name}"
    return f"the {PRIORITIES[priority]} gate ({share}) of {r.unit}/{r.window} {where}"


def refusal_text(refusal: Refusal, priority: int, asked: int, now: int) -> str:
    """Which limit refuses ``asked``, how much is left of it, and when it resets."""
    r = refusal
    needs, where = amount_text(r.unit, asked), gate_text(r, priority)
    if r.never and not r.limit:
        return f"never fits: {limit_name(r.unit, r.window, r.scope)} admits nothing, its limit is 0"
    if r.never:
        return f"never fits: needs {needs}, more than {where} ever admits"
    if not r.missing:
        name = limit_name(r.unit, r.window, r.scope)
        until = span(r.resets_at - now)
        return f"the clock went back: {name}, a share, admits nothing for {until}"
    left = amount_text(r.unit, max(0, asked - r.missing))
    return f"needs {needs}, {left} left below {where}; resets in {span(r.resets_at - now)}"


def count(number: int, single: str, many: str = "") -> str:
    """``1 task``, ``1,234 tasks``."""
    return f"{number:,} {single if number == 1 else many or single + 's'}"
