"""A report as people read it: figures, then bars, then what stands out. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from events.money import dollars
from projections.format import count, span
from services.queries.report_facts import Facts
from services.screens.status import RULE
from services.screens.text import clip, folded, pad, pad_left

BAR = 20  # columns


SHOWN = 12  # names of a breakdown; the rest is summed


EIGHTHS = " ▏▎▍▌▋▊▉█"


HEADS = {"agents": "agent", "models": "model", "kinds": "kind", "projects": "project"}


def report_screen(
    head: str,
    noticed: Sequence[str],
    report: Mapping[str, Any],
    facts: Facts,
    texts: Mapping[str, str],
    savings: str,
    columns: int,
) -> str:
    """``report`` is what `projections.report_views` made, ``noticed`` what to know before it is
    trusted, ``texts`` the prompts of named tasks."""
    top = [clip(line, columns) for line in (head, RULE)]
    words = [*_total(report["total"], facts), *noticed]
    top += [folded(line.strip(), columns, "  ") for line in words]
    lines: list[str] = []
    if "days" in report:
        lines += ["", *_bars("Per day", report["days"], ranked=False)]
    for name, title in HEADS.items():
        if report[name]:
            lines += ["", *_bars(f"Per {title}", report[name])]
    lines += _dearest(facts, texts) + _failures(facts) + _waits(facts)
    lines += ["", f"  {savings}"]
    return "\n".join([*top, *(clip(line, columns) for line in lines)])


def _total(total: Mapping[str, Any], facts: Facts) -> list[str]:
    parts = ", ".join(
        f"{name} {total[name.replace(' ', '_') + '_tokens']:,}"
        for name in ("input", "output", "cache read", "cache write", "estimated")
        if total[name.replace(" ", "_") + "_tokens"]
    )
    ended = [
        f"{number:,} {name}"
        for name, number in (
            ("failed for good", facts.failed),
            ("cancelled", facts.cancelled),
            ("attempts failed", total["attempts_failed"]),
            ("attempts requeued", facts.requeued),
            ("can never fit", facts.deferred),
        )
        if number
    ]
    return [
        f"  Tasks completed:  {total['tasks_completed']:,}"
        + (f"  ({', '.join(ended)})" if ended else ""),
        f"  Tokens used:      {total['tokens_used']:,}" + (f"  ({parts})" if parts else ""),
        f"  Cost:             {dollars(total['cost_nanos'])}",
        f"  Average per task: {total['avg_tokens_per_task']:,} tokens",
    ]


def _bars(title: str, rows: Mapping[str, Mapping[str, Any]], *, ranked: bool = True) -> list[str]:
    names = sorted(rows, key=lambda n: (-rows[n]["tokens"], n)) if ranked else list(rows)
    shown, rest = (names[:SHOWN], names[SHOWN:]) if ranked else (names, [])
    table = [(name, rows[name]) for name in shown]
    if rest:
        sums = {
            key: sum(rows[name][key] for name in rest) for key in ("tasks", "tokens", "cost_nanos")
        }
        table.append((f"{len(rest):,} more", sums))
    largest = max((row["tokens"] for _, row in table), default=0)
    wide = max([len(title), *(len(name) + 2 for name, _ in table)])
    figures = [
        (f"{row['tasks']:,}", f"{row['tokens']:,}", dollars(row["cost_nanos"], 2))
        for _, row in table
    ]
    heads = ("tasks", "tokens", "cost")
    widths = [max([len(heads[i]), *(len(f[i]) for f in figures)]) for i in range(3)]
    lines = [f"{pad(title, wide)}  {' ' * BAR}  {_cells(heads, widths)}"]
    for (name, row), figure in zip(table, figures, strict=True):
        bar = pad(_bar(row["tokens"], largest), BAR)
        lines.append(f"{pad('  ' + name, wide)}  {bar}  {_cells(figure, widths)}")
    return lines


def _cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(pad_left(text, width) for text, width in zip(texts, widths, strict=True))


def _bar(part: int, whole: int) -> str:
    """A bar of at most BAR columns, to an eighth; what is not zero is seen."""
    if part <= 0 or whole <= 0:
        return ""
    eighths = max(1, part * BAR * 8 // whole)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _dearest(facts: Facts, texts: Mapping[str, str]) -> list[str]:
    if not facts.dearest:
        return []
    lines = ["", "Dearest tasks"]
    for spent in facts.dearest:
        what = texts.get(spent.task, "")
        lines.append(
            f"  {pad_left(dollars(spent.nanos), 9)}  {pad_left(f'{spent.tokens:,}', 10)} tokens  "
            f"{spent.agent}/{spent.model}  {spent.task}  {clip(what, 60)}".rstrip()
        )
    return lines


def _failures(facts: Facts) -> list[str]:
    if not facts.failures:
        return []
    lines = ["", "Failures"]
    for failure in facts.failures:
        final = f", {failure.final:,} for good" if failure.final else ""
        words = clip(failure.error, 100)
        lines.append(f"  {failure.count:,} ×  {words}{final} (last: {failure.task})")
    return lines


def _waits(facts: Facts) -> list[str]:
    w = facts.waits
    if not w.count:
        return []
    return [
        "",
        "Waits, from submission to dispatch",
        f"  {count(w.count, 'task')}: half within {span(w.median)}, 95 % within {span(w.p95)}, "
        f"longest {span(w.longest)} (task {w.longest_task})",
    ]
