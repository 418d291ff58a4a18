"""The benchmark page, ops/benchmarks.md: written by ``make bench`` without arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.measures import Figure
from tests.bench.table import number, spread

CAVEATS = """\
# Benchmarks

**Caveats first.** These are the figures of one run on one small machine, whose load stands in
each row: client, engine, worker and server share its cores, and whatever else ran there at the
time. Compare ratios, never figures of two runs. R is what synchronous redis-py appends in
pipelines of 100, taken before and after each repeat; H is a bare hand-off of one entry between
two processes (`tests/bench/reference.py`, frozen). A task here does nothing: an agent takes
seconds to minutes. All services run, every text is distinct, the default kinds of limits are
looked at and do not bind, everything is kept on the log. The peers keep nothing: huey with one
thread, taskiq's stream broker with a hundred tasks at once, each with one worker process; they
neither route nor admit, nor can they be replayed.

Where the load is above the number of cores the machine was busy with other work: then latencies,
and rates that need several processes at once, say little, and CPU time a task says more.

**Where the limit is.** One engine decides everything on one core, in Python: of its time about 28 %
goes into folds, 21 % into reading texts (the delegator), 20 % into judging what came in, 11 % into
admission and placement, 9 % into encoding with marks and masks, 9 % into talking to Redis (sampled
with py-spy in an end-to-end wave). No single function has more than 5 %.
"""


def page(figures: Sequence[Figure], machine: Mapping[str, Any], command: str) -> str:
    """The page, as Markdown."""
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    rows = [
        "| measure | min / median / max | unit | ratio, median | aim | | load |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [_row(figure) for figure in figures]
    notes = [f"- {f.name}: {f.notes}" for f in figures if f.notes]
    return "\n".join((CAVEATS, f"Written by `{command}`. {about}.", "", *rows, "", *notes, ""))


def _row(f: Figure) -> str:
    against = "H" if f.unit == "µs" else "R"
    ratio = f"{number(f.ratio.median)} {against}" if f.ratio else ""
    judged = f.aim_text not in ("a peer", "printed")
    reached = ("reached" if f.reached else "**missed**") if judged else ""
    cells = (f.name, spread(f.value), f.unit, ratio, f.aim_text, reached, f.load)
    return f"| {' | '.join(cells)} |"
