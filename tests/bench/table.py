"""Figures for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.bench.measures import Figure, Spread


def show(figures: Sequence[Figure]) -> None:
    """One row a figure: absolute, ratio to its reference, aim, and whether that is reached."""
    console = Console(width=150)
    table = Table("measure", "unit", box=None, pad_edge=False)
    for column in ("min / median / max", "reference", "ratio min / median / max", "aim"):
        table.add_column(column, justify="right")
    table.add_column("")
    table.add_column("load")
    for f in figures:
        table.add_row(
            f.name,
            f.unit,
            spread(f.value),
            number(f.reference.median) if f.reference else "",
            spread(f.ratio) if f.ratio else "",
            f.aim_text,
            "reached" if f.reached else "missed",
            f.load,
        )
    console.print(table)
    for f in figures:
        if f.notes:
            console.print(f"{f.name}: {f.notes}", highlight=False)


def spread(found: Spread) -> str:
    return f"{number(found.low)} / {number(found.median)} / {number(found.high)}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
