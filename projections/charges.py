"""What each attempt was charged, as far as a correction needs it: when, under which model, and what
of it is disputed.

A correction changes the very windows in which its attempt was charged. So an attempt keeps a mark
for each minute (of older ones: for each hour) and model. Most attempts are charged once, when they
end: of these the outcome of their task says all there is to know.
"""

from __future__ import annotations

from msgspec.structs import replace

from events.task import Charge
from projections.records import NO_PARTS, ChargedAttempt, Mark, Parts, TaskRecord
from projections.state import State
from projections.windows import HOUR, MINUTE

MARKS_MAX = 240  # from here on marks before the newest hour are kept by the hour
DISPUTES_MAX = 10_000  # so many wait for a correction before foreign reports are rejected


def parts_of(charged: Charge | None) -> Parts:
    """The token parts of a charge."""
    if charged is None:
        return NO_PARTS
    return (
        charged.input_tokens,
        charged.output_tokens,
        charged.cache_read_tokens,
        charged.cache_write_tokens,
    )


def plus(attempt: ChargedAttempt, at: int, charged: Charge) -> ChargedAttempt:
    """``attempt`` with a further charge, folded at ``at``; nothing of it stays estimated."""
    added, had = parts_of(charged), attempt.parts
    return replace(
        attempt,
        marks=marked(attempt.marks, at, charged),
        parts=(had[0] + added[0], had[1] + added[1], had[2] + added[2], had[3] + added[3]),
        estimated_tokens=0,
        disputed_tokens=attempt.disputed_tokens + charged.disputed_tokens,
        disputed_nanos=attempt.disputed_nanos + charged.disputed_nanos,
    )


def marked(marks: tuple[Mark, ...], at: int, charged: Charge) -> tuple[Mark, ...]:
    """``marks`` with one more charge."""
    if not charged.tokens and not charged.nanos:
        return marks
    added = Mark(
        charged.window_at or at, charged.model, charged.tokens, charged.nanos, charged.day_at
    )
    if not marks:  # most attempts are charged once
        return (added,)
    merged = _merged((*marks, added), MINUTE)
    if len(merged) > MARKS_MAX:
        newest = merged[-1].at // HOUR
        old = tuple(mark for mark in merged if mark.at // HOUR < newest)
        merged = (*_merged(old, HOUR), *(mark for mark in merged if mark.at // HOUR >= newest))
    return merged


def given_back(
    marks: tuple[Mark, ...], tokens: int, nanos: int
) -> tuple[list[tuple[Mark, int, int]], int, int]:
    """What of ``tokens`` and ``nanos``, as far as they are below zero, each mark can give back: all
    marks, the newest first; and what is left of both. No window is left below zero by it."""
    changes: list[tuple[Mark, int, int]] = []
    for mark in reversed(marks):
        back = max(tokens, -mark.tokens), max(nanos, -mark.nanos)
        back = min(0, back[0]), min(0, back[1])
        tokens, nanos = tokens - back[0], nanos - back[1]
        changes.append((mark, *back))
    return changes, tokens, nanos


def _merged(marks: tuple[Mark, ...], length: int) -> tuple[Mark, ...]:
    """One mark for each model and stretch of ``length`` µs, by time; what came to nothing goes."""
    sums: dict[tuple[int, str, int], Mark] = {}
    for mark in marks:
        key = (mark.at // length, mark.model, mark.day_at // length)
        known = sums.get(key)
        if known is not None:
            mark = replace(known, tokens=known.tokens + mark.tokens, nanos=known.nanos + mark.nanos)
        sums[key] = mark
    kept = [mark for mark in sums.values() if mark.tokens or mark.nanos]
    return tuple(sorted(kept, key=lambda mark: (mark.at, mark.model, mark.day_at)))


def key_of(task: str, attempt: int) -> str:
    """Names an attempt among the disputes; a foreign report is named by its log id."""
    return f"{attempt}:{task}"


def of_attempt(state: State, task: str, attempt: int) -> ChargedAttempt | None:
    """What an ended attempt was charged; None where it still runs or is not remembered."""
    disputed = state.disputes.get(key_of(task, attempt))
    if disputed is not None:
        return disputed
    record = state.record_of(task)
    for past in record.past if record is not None else ():
        if past.attempt == attempt:
            return past.charge
    outcome = state.outcomes.get(task)
    if outcome is None or outcome.attempt != attempt:
        return None
    tokens = outcome.tokens - sum(past.charge.tokens for past in outcome.past)
    nanos = outcome.nanos - sum(past.charge.nanos for past in outcome.past)
    mark = Mark(outcome.at, outcome.model, tokens, nanos)
    return ChargedAttempt(
        outcome.at,
        outcome.agent,
        outcome.model,
        outcome.worker,
        outcome.project,
        outcome.kind,
        (mark,) if tokens or nanos else (),
        outcome.parts,
        task=task,
        attempt=attempt,
    )


def is_plain(task: TaskRecord, at: int, charged: Charge | None) -> bool:
    """Whether the outcome of ``task``, which is over with its attempt, says all that this was
    charged: once, at its end, undisputed, by a meter. ``charged``: by the event that ends it."""
    marks = task.marks
    if task.is_disputed or (charged is not None and charged.estimated):
        return False
    if not marks:
        return True
    mark = marks[0]
    return len(marks) == 1 and mark.at == at and mark.model == task.run_model and not mark.day_at


def note(state: State, key: str, charge: ChargedAttempt) -> None:
    """Keep ``charge`` among the disputes while something of it is disputed."""
    if charge.is_disputed:
        state.journal.put(state.disputes, key, charge)
    else:
        state.journal.drop(state.disputes, key)
