"""Estimates that learn: what settled attempts of each kind and model used, as integer histograms.

A bucket spans a quarter of a power of two, so an estimate is at most a quarter too high. The
estimate of a task is the upper bound of the bucket in which the wanted percentile lies.
"""

from __future__ import annotations

from events.money import hold_nanos
from events.task import Charge
from projections import budgets
from projections.prices import hold_price
from projections.records import Learnt, TaskRecord
from projections.scopes import SCOPES_MAX
from projections.shares import reach
from projections.state import State

LEARNT_MAX = 2_000  # kinds × models; further models are estimated as at the beginning


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


def learn(state: State, task: TaskRecord, charged: Charge) -> None:
    """An attempt ended with known usage: learn from it, unless some of that is disputed."""
    if task.is_disputed:
        return
    key = f"{task.kind}|{task.run_model}"
    learnt = state.learnt.get(key)
    if learnt is None:
        if len(state.learnt) >= LEARNT_MAX:
            return
        learnt = Learnt(0, {}, {})
        state.journal.put(state.learnt, key, learnt)
    state.journal.touch(learnt)
    used = task.used_tokens
    learnt.samples += 1
    learnt.held_tokens += task.hold_tokens
    learnt.used_tokens += used
    learnt.error_tokens += abs(used - task.hold_tokens)
    learnt.overruns += used > task.hold_tokens
    state.journal.count(learnt.tokens, bucket(max(0, used)))
    if not charged.unpriced:
        state.journal.count(learnt.nanos, bucket(max(0, task.used_nanos)))


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
    learnt = state.learnt.get(f"{task.kind}|{model}")
    nanos = 0
    if learnt is not None and learnt.samples >= learning.min_samples:
        tokens = percentile(learnt.tokens, learning.percentile)
        nanos = percentile(learnt.nanos, learning.percentile)
    return (*_bounded(state, keys, tokens, nanos or hold_nanos(tokens, price)), 1)


def _bounded(state: State, keys: tuple[str, ...], tokens: int, nanos: int) -> tuple[int, int]:
    bounds = state.bounds_by_scopes.get(keys)
    if bounds is None:
        bounds = _bounds(state, keys)
        if len(state.bounds_by_scopes) < SCOPES_MAX:
            state.bounds_by_scopes[keys] = bounds
    tokens_most, nanos_most = bounds
    if tokens_most is not None and tokens_most < tokens:
        tokens = tokens_most
    if nanos_most is not None and nanos_most < nanos:
        nanos = nanos_most
    return tokens, nanos


def _bounds(state: State, keys: tuple[str, ...]) -> tuple[int | None, int | None]:
    """The share of the tightest limit on tokens, and on money; None where there is no limit."""
    policy, percent = state.policy, state.policy.learning.share_percent
    limits = [limit for key in keys for limit in budgets.limits_for(state, key)]
    tokens, nanos = (
        min((reach(policy, x) * percent // 100 for x in limits if x.unit == unit), default=None)
        for unit in ("tokens", "money")
    )
    return tokens, nanos
