"""Progress documents: the newest of each agent and task, and the running totals it told.

A document's tokens are running totals, so what is used is the difference to their running maximum:
repeats and old documents that come late add nothing. The maximum begins anew with each attempt of
the task, and with the first document of work that asb did not dispatch.
"""

from __future__ import annotations

from events.envelope import Event
from events.task import Charge
from events.usage import ProgressUpdated
from projections import charges, flags, spending, tallies, usage
from projections.records import Parts, Progress
from projections.state import State, folds

RECORDS_MAX = 10_000
RECORDS_AFTER_PURGE = 9_000
ENDED_KEPT = 30 * 86_400_000_000  # µs after its last document


def key_of(agent: str, task: str) -> str:
    return f"{agent}:{task}"


def newest(state: State, agent: str, task: str, now: int) -> Progress | None:
    """The record of a key; an ended one is over after 30 days, as its key in Redis is."""
    record = state.progress.get(key_of(agent, task))
    if record is not None and record.ended and now - record.at > ENDED_KEPT:
        return None
    return record


def parts_of(charge: Charge | None) -> Parts:
    """The token parts that a charge accounts for: input, output, cache reads, cache writes. What
    is disputed stands with the input: it was told and is not charged again."""
    parts = charges.parts_of(charge)
    disputed = charge.disputed_tokens if charge is not None else 0
    return parts[0] + disputed, *parts[1:]


@folds(ProgressUpdated)
def updated(state: State, event: Event[ProgressUpdated]) -> None:
    """``progress.updated``: another document of this key."""
    payload = event.data
    key = key_of(payload.agent, payload.task)
    before = newest(state, payload.agent, payload.task, event.at)
    if before is None or payload.attempt not in (0, before.attempt):
        before = Progress("", 0, attempt=payload.attempt)
    added = parts_of(payload.charged)
    have = before.charged
    record = Progress(
        event.log_id,
        event.at,
        payload.marks.document.digest,
        before.attempt,
        payload.status,
        payload.percent,
        before.seen.highest(payload.totals) if payload.totals else before.seen,
        (have[0] + added[0], have[1] + added[1], have[2] + added[2], have[3] + added[3]),
        before.nanos + (payload.charged.nanos if payload.charged else 0),
        payload.flag,
        before.unpriced or (payload.charged is not None and payload.charged.unpriced),
        before.completed or payload.completes,
    )
    if key not in state.progress and len(state.progress) >= RECORDS_MAX:
        _purge(state, event.at)
    state.journal.put(state.progress, key, record)
    flags.add(state, payload.agent, event.at, payload.flag)
    tallies.differed(state, payload.against, payload.difference)
    if payload.completes:
        added = payload.charged or Charge(agent=payload.agent)
        done = Charge(agent=payload.agent, model=added.model, day_at=added.day_at)
        usage.charge(state, event.at, done, completed=1)
    if payload.charged is not None:
        spending.spent(state, event, payload.attempt, payload.charged)


def _purge(state: State, now: int) -> None:
    """Make room: ended ones first, then the others, of each the oldest first."""
    ages = sorted((not r.ended, r.at, key) for key, r in state.progress.items())
    surplus = len(ages) - RECORDS_AFTER_PURGE
    for n, (_, at, key) in enumerate(ages):
        if n < surplus or (state.progress[key].ended and now - at > ENDED_KEPT):
            state.journal.drop(state.progress, key)
