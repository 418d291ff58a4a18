"""What users' examples add to the shipped weights, and what that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.delegator import weights
from services.delegator.classify import Delegator, shipped_weights
from services.delegator.learn import tune
from services.delegator.rows import JUDGE, counted, rows_of, training_rows

Examples = Sequence[tuple[str, str]]  # kind, text


class TaughtWeights(NamedTuple):
    """An overlay and its effect: how many examples had the right kind before and have it now, those
    that still have not (kind, text, what it reads as), and how many of the rows that never trained
    are routed otherwise now, of how many."""

    overlay: dict[str, str]
    before: int
    after: int
    missed: list[tuple[str, str, str]]
    moved: int
    judged: int


def shipped_name() -> str:
    """Names the shipped weights: an overlay is learnt on top of certain ones."""
    text = "\n".join(f"{name}\t{points}" for name, points in sorted(shipped_weights().items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def teach(examples: Examples, present: Mapping[str, str]) -> TaughtWeights:
    """Learn an overlay from examples, all of them, on top of the shipped weights; ``present`` is
    the overlay in force, to compare with."""
    overlay: dict[str, str] = {}
    if examples:
        base = {name: weights.parse(points) for name, points in shipped_weights().items()}
        tuned = tune(base, counted(examples), counted(training_rows()))
        overlay = {name: weights.text_of(points) for name, points in sorted(tuned.items())}
    old, new = Delegator(overlay=present), Delegator(overlay=overlay)
    reads = [(kind, text, new.delegate(text).kind) for kind, text in examples]
    judges = [row.text for row in rows_of(JUDGE)]
    return TaughtWeights(
        overlay,
        sum(old.delegate(text).kind == kind for kind, text in examples),
        sum(kind == read_as for kind, _, read_as in reads),
        [read for read in reads if read[0] != read[2]],
        sum(_route(old, text) != _route(new, text) for text in judges),
        len(judges),
    )


def _route(delegator: Delegator, text: str) -> tuple[str, str]:
    delegation = delegator.delegate(text)
    return delegation.agent, delegation.model
