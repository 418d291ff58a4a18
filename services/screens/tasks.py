"""The table of tasks. PURE."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

from events.harmless import one_line
from projections.format import first_line, span
from services.screens.text import folded, table

REASON = 400  # characters of a reason; `asb task ID` has the whole
TEXT_CELLS = 24  # what the text of a task gets at least, where columns can give way


def tasks_table(rows: list[dict[str, Any]], width: int) -> str:
    reasons = [row["waiting"] or row["error"] for row in rows]
    below = width > 0 and any(reasons)  # each reason on a line of its own
    columns: dict[str, list[str]] = {
        "TASK": [row["task"] for row in rows],
        "STATUS": [row["status"] for row in rows],
        "PRIORITY": [row["priority"] for row in rows],
        "KIND": [row["kind"] or "-" for row in rows],
        "ROUTE": ["/".join(x for x in (row["agent"], row["model"]) if x) or "-" for row in rows],
        "WORKER": [row["worker"] or "-" for row in rows],
        "AGE": [span(row["age_us"]) for row in rows],
        "WAITS FOR": [row["waiting"] or "-" for row in rows],
        "FAILED FOR": [one_line(row["error"] or "-") for row in rows],
        "TEXT": [first_line(row["text"]) for row in rows],
    }
    if below or not any(row["waiting"] for row in rows):
        del columns["WAITS FOR"]
    if below or not any(row["error"] for row in rows):
        del columns["FAILED FOR"]
    if 0 < width < 120 and not any(row["worker"] for row in rows):
        del columns["WORKER"]
    for name in ("KIND", "PRIORITY", "ROUTE") if width else ():  # the text needs some room, too
        if sum(max(cell_len(x) for x in (n, *c)) + 2 for n, c in columns.items() if n != "TEXT") > (
            width - TEXT_CELLS
        ):
            del columns[name]
    cells = list(zip(*columns.values(), strict=True))
    lines = table(tuple(columns), cells, right="AGE", width=width).splitlines()
    if not below:
        return "\n".join(lines)
    shown = lines[:1]
    for line, reason in zip(lines[1:], reasons, strict=True):
        shown.append(line)
        if reason:
            shown.append(folded(first_line(reason)[:REASON], width, "    "))
    return "\n".join(shown)
