"""What `asb doctor` found, as text: every check, and last what is not as it should be. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from projections.format import count
from services.queries.figures import names_text
from services.screens.text import folded
from services.store.health import FactRow

MARKS = {"ok": "✅", "warn": "🟡", "bad": "🔴"}
NAMED = 6  # checks that the last line names


def doctor_text(facts: Sequence[FactRow], columns: int) -> str:
    """A row for each check, folded behind its name; ``columns`` of terminal, 0 for no bound."""
    widest = max(len(name) for name, *_ in facts)
    indent = " " * (widest + 5)
    lines: list[str] = []
    for name, value, verdict, hint in facts:
        head = f"{MARKS[verdict]} {name:<{widest}}  "
        lines.append(head + folded(value, columns, indent)[len(indent) :])
        if hint and verdict != "ok":
            lines.append(folded(f"hint: {hint}", columns, indent))
    return "\n".join([*lines, "", folded(_verdict(facts), columns)])


def _verdict(facts: Sequence[FactRow]) -> str:
    names_of = {
        mark: [name for name, _, verdict, _ in facts if verdict == mark] for mark in ("bad", "warn")
    }
    if not names_of["bad"] and not names_of["warn"]:
        return f"{MARKS['ok']} all of {count(len(facts), 'check')} are well"
    words = {"bad": "to mend", "warn": "to look at"}
    return "; ".join(
        f"{MARKS[mark]} {len(names):,} {words[mark]}: {names_text(names, NAMED)}"
        for mark, names in names_of.items()
        if names
    )
