"""Time as the log vouches for it.

``at`` may step, so what ``at`` says is over may come back. ``meta.passed`` adds up only the time
that has passed without a jump: what stands on the log an hour apart may be a quiet hour or a step,
and counts as a minute. Whatever is forgotten by age waits until that much time has passed, too.
"""

from __future__ import annotations

from events.clock import ClockConfirmed, ClockStepped
from events.envelope import Event
from projections import accounts, buckets, watches
from projections.state import State, folds
from projections.windows import HOUR, HOURS_KEPT, MINUTE


def moves(state: State, event: Event) -> None:
    """``event`` is the next on the log, and its ``at`` is another than that of the one before."""
    meta, data = state.meta, event.data
    passed = event.at - meta.at
    if type(data) is ClockStepped:
        passed -= data.by
    if passed < 0:  # what comes next goes over old ground
        meta.repeated = min(meta.repeated - passed, HOURS_KEPT * HOUR)
    elif passed > HOUR:
        meta.passed += MINUTE
    else:
        again = min(passed, meta.repeated)
        meta.repeated -= again
        meta.passed += passed - again
    meta.at = event.at


@folds(ClockStepped)
def stepped(state: State, event: Event[ClockStepped]) -> None:
    """The times of open tasks move along with the clock: no timer fires early, none is late."""
    by, meta = event.data.by, state.meta
    meta.step_by, meta.step_at = by, event.data.noticed
    if event.data.is_large:
        meta.large_step, meta.large_step_at, meta.large_step_id = by, event.at, event.log_id
        meta.large_step_passed = meta.passed
    for task in state.tasks.values():
        state.journal.touch(task)
        task.submitted_at += by
        task.rank += by
        for name in ("due", "dispatched_at", "started_at"):
            if value := getattr(task, name):
                setattr(task, name, value + by)
        state.index(task)
    accounts.stepped(state, by)
    if by < 0:
        _forget_the_future(state, event.at)


def _forget_the_future(state: State, now: int) -> None:
    """What was said of rolling windows at a time that is still to come says nothing now."""
    for key, known in list(state.raised.items()):
        if known.seen > now and watches.rolls(key):
            state.journal.drop(state.raised, key)


@folds(ClockConfirmed)
def confirmed(state: State, event: Event[ClockConfirmed]) -> None:
    """The clock is right: forget what no window can reach by it, as if it had never stepped."""
    meta = state.meta
    meta.large_step = meta.large_step_at = meta.repeated = 0
    meta.latest = event.at
    for scope in state.scopes.values():
        buckets.prune(state, scope, confirmed=True)


def doubted(state: State) -> bool:
    """Whether the clock made a large step that nobody has confirmed, and the longest window has not
    passed since without another."""
    meta = state.meta
    longest = HOURS_KEPT * HOUR
    return bool(meta.large_step) and meta.passed - meta.large_step_passed < longest
