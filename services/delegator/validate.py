"""The judge of the shipped weights.   python -m services.delegator.validate [--families]

Scored are the given rows only: in four parts, each judged by weights learnt from the others, and
each file as a whole by weights that never saw it (another voice is the honest judge). Own rows
always train and never score; dev.tsv never trains and is scored by the shipped weights. The last
table says how far a margin can be trusted. ``--families`` leaves out one family of features at a
time and prints what it brings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from events.task import KINDS
from services.delegator import weights
from services.delegator.classify import CLOSE_POINTS, DEFAULT_ROUTES, shipped_weights
from services.delegator.features import FAMILIES, family
from services.delegator.learn import Row, learn
from services.delegator.rows import GIVEN, JUDGE, OWN, counted, rows_of
from services.delegator.train import PLAN

PARTS: Final = 4
WHOLE: Final = "train-2.tsv"  # its rows partly translate each other: never parted
MARGINS: Final = (0, 10, 20, 30, 40, 60, 80, 120)

_ROUTES: Final = tuple(DEFAULT_ROUTES[kind] for kind in KINDS)
Judge = Callable[[Row], list[int]]  # a row's points by kind


class Score(NamedTuple):
    """How a set of rows was judged. ``margins``: of each row, and whether its route was right."""

    rows: int
    routes_right: int
    kinds_right: int
    margins: list[tuple[int, bool]]

    def __str__(self) -> str:
        routes, kinds = self.routes_right / self.rows, self.kinds_right / self.rows
        return f"{self.rows:5} rows   route {routes:.3f}   kind {kinds:.3f}"


def judged(rows: Sequence[Row], learnt: weights.Weights) -> Score:
    """Rows judged by weights."""
    routes_right = kinds_right = 0
    margins: list[tuple[int, bool]] = []
    for features, kind in rows:
        points = [0] * len(KINDS)
        for name, count in features.items():
            for other, weight in learnt.get(name, {}).items():
                points[other] += weight * count
        best = points.index(max(points))
        right = _ROUTES[best] == _ROUTES[kind]
        kinds_right += best == kind
        routes_right += right
        others = [p for p, route in zip(points, _ROUTES, strict=True) if route != _ROUTES[best]]
        margins.append((points[best] - max(others), right))
    return Score(len(rows), routes_right, kinds_right, margins)


def together(scores: Sequence[Score]) -> Score:
    """Several sets as one."""
    return Score(
        sum(s.rows for s in scores),
        sum(s.routes_right for s in scores),
        sum(s.kinds_right for s in scores),
        [margin for score in scores for margin in score.margins],
    )


class Files(NamedTuple):
    """All rows, as features are counted in them."""

    given: dict[str, list[Row]]
    own: list[Row]
    dev: list[Row]

    @classmethod
    def load(cls) -> Files:
        given = {name: counted(rows_of(name)) for name in GIVEN}
        own = [row for name in OWN for row in counted(rows_of(name))]
        return cls(given, own, counted(rows_of(JUDGE)))

    def without(self, left_out: str) -> Files:
        """The same rows without one family of features."""

        def less(rows: list[Row]) -> list[Row]:
            return [({n: c for n, c in f.items() if family(n) != left_out}, k) for f, k in rows]

        return Files(
            {n: less(rows) for n, rows in self.given.items()}, less(self.own), less(self.dev)
        )


def held_out(files: Files) -> dict[str, Score]:
    """Each given file, judged by weights learnt from the other one and the own rows."""
    scores: dict[str, Score] = {}
    for name, rows in files.given.items():
        others = [row for other, more in files.given.items() if other != name for row in more]
        scores[name] = judged(rows, learn([*others, *files.own], PLAN))
    return scores


def cross_validated(files: Files) -> Score:
    """The given rows in parts, each judged by weights learnt from all the others."""
    scores: list[Score] = []
    whole = [row for name, rows in files.given.items() if name == WHOLE for row in rows]
    parted = [row for name, rows in files.given.items() if name != WHOLE for row in rows]
    for part in range(PARTS):
        rest = [row for at, row in enumerate(parted) if at % PARTS != part]
        learnt = learn([*rest, *whole, *files.own], PLAN)
        scores.append(judged(parted[part::PARTS], learnt))
    return together(scores)


def shipped() -> weights.Weights:
    """The shipped weights, taken apart."""
    return {name: weights.parse(points) for name, points in shipped_weights().items()}


def margins_table(margins: Sequence[tuple[int, bool]]) -> str:
    """How often the route is right by margin: the calibration of CLOSE_POINTS."""
    lines = ["  margin       rows   right"]
    for low, high in zip(MARGINS, (*MARGINS[1:], None), strict=True):
        chosen = [right for m, right in margins if m >= low and (high is None or m < high)]
        text = f"{low} to {high - 1}" if high is not None else f"{low} up"
        share = f"{sum(chosen) / len(chosen):.3f}" if chosen else "-"
        lines.append(f"  {text:10} {len(chosen):6}   {share}")
    close = [right for m, right in margins if m < CLOSE_POINTS]
    if close:
        lines.append(
            f"  close (under {CLOSE_POINTS}): {len(close) / len(margins):.1%} of the rows,"
            f" {sum(close) / len(close):.3f} of them right"
        )
    return "\n".join(lines)


def report() -> str:
    """All figures as text."""
    files = Files.load()
    held = held_out(files)
    lines = [f"cross-validated, {PARTS} parts   {cross_validated(files)}"]
    lines += [f"{name} held out".ljust(26) + f" {score}" for name, score in held.items()]
    lines.append(f"{'both held out':26} {together(list(held.values()))}")
    lines.append(f"{'dev.tsv, never trained':26} {judged(files.dev, shipped())}")
    lines += ["", "held out, by margin", margins_table(together(list(held.values())).margins)]
    return "\n".join(lines)


def families() -> str:
    """What each family of features brings: accuracy without it."""
    files = Files.load()
    lines = [f"{'left out':38} {'held out':>9} {'dev':>7}"]
    for name, what in {"": "nothing", **FAMILIES}.items():
        less = files.without(name) if name else files
        held = together(list(held_out(less).values()))
        rows = [row for more in less.given.values() for row in more]
        dev = judged(less.dev, learn([*rows, *less.own], PLAN))
        shares = (held.routes_right / held.rows, dev.routes_right / dev.rows)
        lines.append(f"{what:38} {shares[0]:9.3f} {shares[1]:7.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command. 0 done, 2 wrong use."""
    if list(arguments) not in ([], ["--families"]):
        sys.stderr.write("usage: python -m services.delegator.validate [--families]\n")
        return 2
    sys.stdout.write((families() if arguments else report()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
