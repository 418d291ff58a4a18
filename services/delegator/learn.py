"""Learning: an averaged passive-aggressive classifier, in whole numbers only. PURE.

Each text is tried in turn; where the right kind does not lead the next one by `POINTS`, the weights
of the text's features move just far enough, at most by a step. The mean over all steps is kept. In
every try a fifth of the features is left out, so that no single word carries a kind alone: that
helps with voices nobody has heard. Whole numbers and an own generator of numbers make the same
bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from events.task import KINDS
from services.delegator.features import ALWAYS
from services.delegator.weights import POINTS, Weights

LANE: Final = 32  # bits a kind of the weights under way
MASK: Final = (1 << LANE) - 1
MIDDLE: Final = 1 << (LANE - 1)
SHIFTS: Final = tuple(LANE * kind for kind in range(len(KINDS)))
ALL_MIDDLE: Final = sum(MIDDLE << shift for shift in SHIFTS)
WIDE: Final = 64  # bits a kind of what is summed up over every step of every round
_WIDE_MASK: Final = (1 << WIDE) - 1
_WIDE_MIDDLE: Final = 1 << (WIDE - 1)
_WIDE_SHIFTS: Final = tuple(WIDE * kind for kind in range(len(KINDS)))
_ALL_WIDE_MIDDLE: Final = sum(_WIDE_MIDDLE << shift for shift in _WIDE_SHIFTS)
FINE: Final = 100  # parts of a point while learning
LEAD: Final = POINTS * FINE


class Plan(NamedTuple):
    """How to learn: rounds over the rows, the largest step in parts of a point, that one feature
    in so many is left out of a try (0: none), and how often a pair of words must be met."""

    rounds: int = 8
    step: int = 200
    left_out: int = 5
    pairs_met: int = 2
    small: int = 2  # weights up to so many points are dropped
    orders: int = 3  # in which the rows are learnt; the mean counts


Row = tuple[Mapping[str, int], int]  # features of a text, index of its kind


def numbers(seed: int) -> Iterator[int]:
    """31-bit numbers by a linear congruence, the same everywhere."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        yield state >> 33


def shuffled(order: list[int], chance: Iterator[int]) -> None:
    """Fisher and Yates, in place."""
    for at in range(len(order) - 1, 0, -1):
        other = next(chance) % (at + 1)
        order[at], order[other] = order[other], order[at]


class _Learner:
    """Weights under way: `now` by feature, all kinds in one number, and `total`, the sum of `now`
    over all steps to come, which the mean is taken from."""

    def __init__(self, size: int, steps: int, plan: Plan) -> None:
        self.now = [0] * size
        self.total = [0] * size
        self.steps = steps  # still to come
        self.plan = plan

    def try_row(self, ids: list[int], norm: int, kind: int, chance: int) -> None:
        """One row: its features (one that counts twice stands there twice) and its kind."""
        now, total, plan = self.now, self.total, self.plan
        if plan.left_out:  # the first is in every text, and stays
            ids = ids[:]
            del ids[1 + chance % plan.left_out :: plan.left_out]
        said = sum(map(now.__getitem__, ids), ALL_MIDDLE)
        scores = [((said >> shift) & MASK) - MIDDLE for shift in SHIFTS]
        own = scores[kind]
        scores[kind] = -MIDDLE
        best = max(scores)
        lacking = LEAD - own + best
        if lacking > 0:
            other = scores.index(best)
            step = min(plan.step, lacking // (2 * norm) + 1)
            change = (step << LANE * kind) - (step << LANE * other)
            step *= self.steps
            lasting = (step << WIDE * kind) - (step << WIDE * other)
            for feature in ids:
                now[feature] += change
                total[feature] += lasting
        self.steps -= 1


def learn(rows: Sequence[Row], plan: Plan = Plan()) -> Weights:  # noqa: B008
    """Weights from rows. The same rows in the same order give the same weights."""
    names = _names(rows, plan.pairs_met)
    ids = {name: number for number, name in enumerate(names)}
    tries: list[tuple[list[int], int, int]] = []
    for features, kind in rows:
        known = [(ids[name], count) for name, count in features.items() if name in ids]
        norm = sum(count * count for _, count in known)
        tries.append(([feature for feature, count in known for _ in range(count)], norm, kind))
    steps = plan.rounds * len(rows)
    learner = _Learner(len(names), steps, plan)
    for seed in range(1, plan.orders + 1):
        learner.now, learner.steps = [0] * len(names), steps
        order, chance = list(range(len(rows))), numbers(seed)
        for _ in range(plan.rounds):
            shuffled(order, chance)
            for at in order:
                learner.try_row(*tries[at], next(chance))
    unit = steps * plan.orders * FINE
    means = {name: _points(total, unit) for name, total in zip(names, learner.total, strict=True)}
    return {
        name: kept
        for name, points in means.items()
        if (kept := {k: n for k, n in points.items() if abs(n) > plan.small or name == ALWAYS})
    }


def _points(total: int, unit: int) -> dict[int, int]:
    """The numbers that stand in one, in units, rounded; a negative one has borrowed."""
    if not total:
        return {}
    total += _ALL_WIDE_MIDDLE
    numbers = (((total >> shift) & _WIDE_MASK) - _WIDE_MIDDLE for shift in _WIDE_SHIFTS)
    return {kind: (n + unit // 2) // unit for kind, n in enumerate(numbers) if n}


def _names(rows: Sequence[Row], pairs_met: int) -> list[str]:
    """The features to learn, in the order they are met, `ALWAYS` first."""
    met: dict[str, int] = {ALWAYS: 0}
    for features, _ in rows:
        for name in features:
            met[name] = met.get(name, 0) + 1
    return [name for name, times in met.items() if times >= pairs_met or " " not in name]


class _Tuned(NamedTuple):
    """A row while tuning: what the base weights say (all kinds in one number), the features that
    may change, how many they count as, its kind, and the lead it needs."""

    said: int
    ids: list[int]
    norm: int
    kind: int
    lead: int


TUNED_LEAD: Final = LEAD // 2  # examples need no more than half of what training asks
TUNED_STEP: Final = 1_000
TUNED_ROUNDS: Final = 30


def tune(base: Weights, rows: Sequence[Row], rehearsed: Sequence[Row]) -> Weights:
    """What to add to ``base`` so that ``rows`` come out right and ``rehearsed`` ones, where they
    are right, stay so. Only features of ``rows`` change, and not what every text has."""
    names = sorted({name for features, _ in rows for name in features if name != ALWAYS})
    ids = {name: number for number, name in enumerate(names)}
    tries = [_tuned(base, ids, row, TUNED_LEAD) for row in rows]
    for row in rehearsed:
        tuned = _tuned(base, ids, row, 1)
        if tuned.ids and _lacking(tuned, tuned.said)[0] <= 0:
            tries.append(tuned)
    added = [0] * len(names)
    for _ in range(TUNED_ROUNDS):
        moved = False
        for row in tries:
            lacking, other = _lacking(row, sum(map(added.__getitem__, row.ids), row.said))
            if lacking > 0 and row.ids:
                moved = True
                step = min(TUNED_STEP, lacking // (2 * row.norm) + 1)
                change = (step << LANE * row.kind) - (step << LANE * other)
                for feature in row.ids:
                    added[feature] += change
        if not moved:
            break
    overlay: Weights = {}
    for name, total in zip(names, added, strict=True):
        said = [((total + ALL_MIDDLE) >> shift & MASK) - MIDDLE for shift in SHIFTS]
        points = {kind: (n + FINE // 2) // FINE for kind, n in enumerate(said)}
        if kept := {kind: n for kind, n in points.items() if n}:
            overlay[name] = kept
    return overlay


def _tuned(base: Weights, ids: Mapping[str, int], row: Row, lead: int) -> _Tuned:
    features, kind = row
    said = 0
    for name, count in features.items():
        for other, points in base.get(name, {}).items():
            said += (points * count * FINE) << LANE * other
    known = [(ids[name], count) for name, count in features.items() if name in ids]
    norm = sum(count * count for _, count in known)
    return _Tuned(said, [number for number, count in known for _ in range(count)], norm, kind, lead)


def _lacking(row: _Tuned, said: int) -> tuple[int, int]:
    """How much of its lead a row lacks, and before which other kind."""
    scores = [((said + ALL_MIDDLE) >> shift & MASK) - MIDDLE for shift in SHIFTS]
    own = scores[row.kind]
    scores[row.kind] = -MIDDLE
    best = max(scores)
    return row.lead - own + best, scores.index(best)
