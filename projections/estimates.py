"""Estimates that learn: what settled attempts of each kind and model used, as integer histograms.

A bucket spans a quarter of a power of two, so an estimate is at most a quarter too high. The
estimate of a task is the upper bound of the bucket in which the wanted percentile lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.money import hold_nanos
from events.task import Charge
from projections import budgets
from projections.policy import hold_price

if TYPE_CHECKING:
    from projections.state import State
    from projections.tasks import TaskRecord

LEARNT_MAX = 2_000  # kinds × models; further models are estimated as at the beginning


class Learnt(msgspec.Struct, array_like=True, gc=False):
    """What attempts of one kind and model used, against what was held for them."""

    samples: int = 0
    tokens: dict[int, int] = {}  # bucket -> attempts
    nanos: dict[int, int] = {}
    held_tokens: int = 0
    used_tokens: int = 0
    error_tokens: int = 0  # sum of |used - held|
    overruns: int = 0


def bucket(amount: int) -> int:
    """The bucket of an amount ≥ 0: four to each power of two."""
    if amount < 4:
        return amount
    bits = amount.bit_length()
    return 4 * (bits - 2) + ((amount >> (bits - 3)) & 3)


def upper(index: int) -> int:
    """The largest amount in a bucket."""
    if index < 4:
        return index
    bits, quarter = index // 4 + 2, index % 4
    return ((4 + quarter + 1) << (bits - 3)) - 1


def settle_estimate(state: State, task: TaskRecord, charged: Charge) -> None:
    """An attempt ended with known usage: learn from it, unless some of that is disputed."""
    if task.used is not None and (task.used.disputed_tokens or task.used.disputed_nanos):
        return
    key = f"{task.kind}|{task.run_model}"
    found = state.learnt.get(key)
    if found is None:
        if len(state.learnt) >= LEARNT_MAX:
            return
        found = Learnt(0, {}, {})
        state.journal.put(state.learnt, key, found)
    state.journal.touch(found)
    used = task.used_tokens
    found.samples += 1
    found.held_tokens += task.hold_tokens
    found.used_tokens += used
    found.error_tokens += abs(used - task.hold_tokens)
    found.overruns += used > task.hold_tokens
    _count(state, found.tokens, bucket(max(0, used)))
    if not charged.unpriced:
        _count(state, found.nanos, bucket(max(0, task.used_nanos)))


def _count(state: State, counts: dict[int, int], index: int) -> None:
    state.journal.put(counts, index, counts.get(index, 0) + 1)


def percentile(counts: dict[int, int], percent: int) -> int:
    """The upper bound of the bucket that holds the given percentile; 0 for no counts."""
    rank = -(-sum(counts.values()) * percent // 100)
    for index in sorted(counts):
        rank -= counts[index]
        if rank <= 0:
            return upper(index)
    return 0


def ask(state: State, task: TaskRecord, model: str, keys: tuple[str, ...]) -> tuple[int, int, int]:
    """What to hold for an attempt: tokens, nano-dollars, one task.

    What the user gave, as it is; else what was learnt, else the first estimate at the dearest part
    of the price, these two bounded by a share of every limit they touch: a guess keeps no task from
    running that may well fit, and the guard raises the hold where it was too low.
    """
    price = hold_price(state, model)
    tokens = task.estimate
    if task.given_estimate:
        return tokens, hold_nanos(tokens, price), 1
    learning = state.policy.learning
    found = state.learnt.get(f"{task.kind}|{model}")
    nanos = 0
    if found is not None and found.samples >= learning.min_samples:
        tokens = percentile(found.tokens, learning.percentile)
        nanos = percentile(found.nanos, learning.percentile)
    return (*_bounded(state, keys, tokens, nanos or hold_nanos(tokens, price)), 1)


def _bounded(state: State, keys: tuple[str, ...], tokens: int, nanos: int) -> tuple[int, int]:
    share = state.policy.learning.share_percent
    for key in keys:
        for limit in budgets.limits_for(state, key):
            most = limit.amount * share // 100
            if limit.unit == "tokens":
                tokens = min(tokens, most)
            elif limit.unit == "money":
                nanos = min(nanos, most)
    return tokens, nanos
