"""Screens on small terminals: nothing that matters is cut off."""

from __future__ import annotations

from services.cli.view import fitting
from services.queries.doctor import checks
from services.screens.text import folded, records
from tests.unit.test_screens import Bench


def test_what_does_not_fit_the_window_is_counted() -> None:
    lines = [f"line {n}" for n in range(10)]
    assert fitting(lines, 0) == fitting(lines, 10) == lines
    assert fitting(lines, 9) == [
        *lines[:8],
        "… 2 more lines (make the window taller, or --json)",
    ]


def test_folded_text_is_whole_and_within_the_columns() -> None:
    text = "worker1 has no tokens left until 13:00 UTC (tokens/hour); number 12 in the queue"
    lines = folded(text, 30, "    ").splitlines()
    assert all(line.startswith("    ") and len(line) <= 30 for line in lines)
    assert " ".join(line.strip() for line in lines) == text
    url = "redis://127.0.0.1:6379/0"
    assert folded(url * 3, 20).replace("\n", "") == url * 3
    assert folded(text, 0, "  ") == "  " + text


def test_a_table_too_wide_becomes_records() -> None:
    found = records(("SCOPE", "WINDOW", "LIMIT"), [("global", "tokens/hour", "500K")], 40)
    assert found == "global\n  window tokens/hour  limit 500K"


def test_used_models_without_a_price_are_named() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 1000)
    assert checks.price_row(bench.state)[2] == "ok"
    bench.spend("w1", 1000, model="own-model")
    name, value, verdict, hint = checks.price_row(bench.state)
    assert (name, verdict) == ("prices", "warn")
    assert "own-model" in value
    assert "asb policy price" in hint
