"""How good is the delegator on labelled tasks?   python -m services.delegator.evaluate FILE.tsv

The file has a header that names its columns, in any order: kind and text; where it has a column
route, that is the label (a route of "a/b" says that either is right), else the kind's default route
is; a column source ("repository#number") groups the tasks by repository. Printed: accuracy by route
and by kind, a confusion table, accuracy by repository, every miss with its reason, the time a
title. `validate.py` is the judge of the shipped weights.
"""

from __future__ import annotations

import sys
import timeit
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.delegator.classify import DEFAULT_ROUTES, KINDS, Delegation, Delegator, Route

ROUNDS: Final = 5  # the fastest of them is reported


class LabelledText(NamedTuple):
    """One task with the route a person gave it."""

    routes: tuple[str, ...]  # the first is the best, the others are right too
    kind: str
    text: str
    repository: str


class Judgement(NamedTuple):
    """What became of it."""

    task: LabelledText
    delegation: Delegation
    route: str

    @property
    def right(self) -> bool:
        return self.route in self.task.routes


def read_labelled(path: Path) -> list[LabelledText]:
    """The tasks of a file. ValueError names the line which is wrong, OSError a file that is not."""
    tasks: list[LabelledText] = []
    columns: list[str] = []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), start=1):
        fields = line.rstrip("\r").split("\t")
        if number == 1:
            columns = [name.strip() for name in fields]
            if "kind" not in columns or "text" not in columns:
                raise ValueError(f"{path}: line 1 must name the columns, at least kind and text")
        elif line.strip():
            tasks.append(
                _labelled(dict(zip(columns, fields, strict=False)), f"{path}: line {number}")
            )
    return tasks


def _labelled(row: dict[str, str], where: str) -> LabelledText:
    if not row.get("text", "").strip():
        raise ValueError(f"{where} has no text")
    kind = row["kind"]
    if kind not in KINDS:
        raise ValueError(f"{where}: kind {kind[:80]!r} is not one of {', '.join(KINDS)}")
    routes = (
        tuple(row["route"].split("/")) if "route" in row else (route_name(DEFAULT_ROUTES[kind]),)
    )
    return LabelledText(routes, kind, row["text"], row.get("source", "").partition("#")[0])


def route_name(route: Route | Delegation) -> str:
    """The short name of a route, as the labels have it."""
    return route.model if route.agent == "claude" else route.agent


def evaluate(tasks: Iterable[LabelledText], delegator: Delegator) -> list[Judgement]:
    """Every task delegated."""
    outcomes: list[Judgement] = []
    for task in tasks:
        delegation = delegator.delegate(task.text)
        outcomes.append(Judgement(task, delegation, route_name(delegation)))
    return outcomes


def report(outcomes: Sequence[Judgement]) -> str:
    """All of it as text."""
    right = sum(outcome.right for outcome in outcomes)
    parts = [
        f"right routes: {_share(right, len(outcomes))}",
        "by route\n" + _by((o.task.routes[0], o.right) for o in outcomes),
        "by kind (the kind itself, and its route)\n" + _by_kind(outcomes),
        "labelled (rows) and found (columns)\n" + confusion(outcomes),
        "by repository\n" + _by_repository(outcomes),
        _misses(outcomes),
    ]
    return "\n\n".join(parts)


def confusion(outcomes: Sequence[Judgement]) -> str:
    """Rows: the label; columns: what was found. Of several right routes the found one counts."""
    cells = Counter((o.route if o.right else o.task.routes[0], o.route) for o in outcomes)
    names = sorted({name for pair in cells for name in pair})
    width = max(map(len, names), default=0) + 2
    lines = [" " * width + "".join(name.rjust(width) for name in names)]
    for label in names:
        row = "".join(str(cells[label, read_as] or "·").rjust(width) for read_as in names)
        lines.append(label.ljust(width) + row)
    return "\n".join(lines)


def micros_per_title(tasks: Sequence[LabelledText], delegator: Delegator) -> float:
    """The time one distinct title takes, in microseconds; the fastest of several rounds."""

    def every() -> None:
        for task in tasks:
            delegator.delegate(task.text)

    return min(timeit.repeat(every, number=1, repeat=ROUNDS)) * 1e6 / max(1, len(tasks))


def _share(right: int, count: int) -> str:
    return f"{right} of {count} ({100 * right / count:.1f} %)" if count else "none"


def _by(pairs: Iterable[tuple[str, bool]]) -> str:
    counts: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for name, right in pairs:
        counts[name] += 1
        good[name] += right
    width = max(map(len, counts), default=0) + 2
    return "\n".join(f"  {name.ljust(width)}{_share(good[name], n)}" for name, n in counts.items())


def _by_kind(outcomes: Sequence[Judgement]) -> str:
    kinds = _by((o.task.kind, o.delegation.kind == o.task.kind) for o in outcomes).splitlines()
    routes = _by((o.task.kind, o.right) for o in outcomes).splitlines()
    width = max(map(len, kinds), default=0) + 2
    shares = [line.split(maxsplit=1)[1] for line in routes]
    return "\n".join(
        f"{line.ljust(width)}{share}" for line, share in zip(kinds, shares, strict=True)
    )


def _by_repository(outcomes: Sequence[Judgement]) -> str:
    known = [o for o in outcomes if o.task.repository]
    if not known:
        return "  the file names no repositories"
    counts = Counter(o.task.repository for o in known)
    good = Counter(o.task.repository for o in known if o.right)
    mean = sum(good[name] / n for name, n in counts.items()) / len(counts)
    whole = sum(good[name] == n for name, n in counts.items())
    return (
        f"  the mean over {len(counts)} repositories: {100 * mean:.1f} %,"
        f" {whole} of them without a miss"
    )


def _misses(outcomes: Sequence[Judgement]) -> str:
    wrong = [o for o in outcomes if not o.right]
    lines = [f"misses: {len(wrong)}"]
    for o in wrong:
        lines.append(f"  {o.task.text[:100]}\n    {'/'.join(o.task.routes)}, not {o.route}:")
        scores = ", ".join(f"{c.kind} {c.score}" for c in o.delegation.candidates)
        lines.append(f"    {o.delegation.reason} [{scores}]")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command. 0 done, 2 wrong use."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m services.delegator.evaluate FILE.tsv\n")
        return 2
    try:
        tasks = read_labelled(Path(arguments[0]))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot evaluate: {error}\n")
        return 2
    delegator = Delegator()
    sys.stdout.write(report(evaluate(tasks, delegator)))
    sys.stdout.write(f"\n\ntime per title: {micros_per_title(tasks, delegator):.1f} µs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
