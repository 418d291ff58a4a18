"""Tasks: from submission to their end, one record while open, a short outcome afterwards.

::

    submitted → queued ⇄ backoff        (blocked: waits for other tasks)
                  │  ↖ requeued (worker lost, backoff over)
                  ▼   \\
             dispatched → started → completed | failed | cancelled
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event
from events.task import PRIORITIES, AttemptEnd, Booking
from projections import estimates, throttle, usage

if TYPE_CHECKING:
    from projections.state import State

SUBMITTED, BLOCKED, QUEUED, BACKOFF = "submitted", "blocked", "queued", "backoff"
DISPATCHED, STARTED = "dispatched", "started"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
RUNNING = (DISPATCHED, STARTED)
OUTCOMES_KEPT = 100_000
PRIORITY_RANK = {name: rank for rank, name in enumerate(PRIORITIES)}
# How much later (µs) a task of each priority is tried than a critical one submitted at the same
# moment. A fixed lead, so age overtakes priority in the order of trying and nobody starves.
LEAD = (900_000_000, 300_000_000, 60_000_000, 0)


class PastAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that ended without its worker's word (lost, timed out): what was booked for it,
    so that a late result can put its actual usage in that place."""

    attempt: int
    session: str
    at: int
    worker: str
    agent: str
    model: str
    tokens: int = 0
    nanos: int = 0
    parts: Booking | None = None
    estimated_tokens: int = 0  # what of it nobody measured: a late result may take that back
    estimated_nanos: int = 0


class Task(msgspec.Struct, array_like=True, gc=False):
    """An open task. Times are µs; ``rank`` orders the queues; its prompt lies at ``log_id``."""

    id: str
    n: int
    log_id: str
    status: str = SUBMITTED
    priority: int = 1
    kind: str = ""
    agent: str = ""
    model: str = ""
    given: str = ""  # which of agent, model, worker, kind the user required: letters a m w k
    given_worker: str = ""
    project: str = ""
    after: tuple[str, ...] = ()  # tasks it still waits for
    timeout_s: int = 7200
    max_attempts: int = 3
    estimate: int = 0
    given_estimate: int = 0
    submitted_at: int = 0
    rank: int = 0
    due: int = 0  # end of the backoff, or of the attempt's time
    attempt: int = 0
    worker: str = ""
    session: str = ""
    run_agent: str = ""
    run_model: str = ""
    hold_tokens: int = 0
    hold_nanos: int = 0
    used_tokens: int = 0  # booked so far by this attempt
    used_nanos: int = 0
    used: Booking | None = None  # the attempt's totals so far, by part
    spent_tokens: int = 0  # by all its ended attempts
    spent_nanos: int = 0
    dispatched_at: int = 0
    started_at: int = 0
    dispatch_id: str = ""  # log id of the attempt's dispatch
    cancel_id: str = ""  # log id of the request to cancel it
    first_hold: tuple[int, int] = (0, 0)  # tokens, nanos: what was held at the dispatch
    hold_refused: bool = False
    deferred: bool = False
    retry_of: str = ""
    last_error: str = ""
    digest: bytes = b""  # of what makes two tasks the same, for reuse of results
    doomed: str = ""  # why it can never run: a task it waited for did not complete
    past: tuple[PastAttempt, ...] = ()

    @property
    def hold_left(self) -> tuple[int, int]:
        """What is still held: usage eats the hold, and never makes it negative."""
        return (
            max(0, self.hold_tokens - self.used_tokens),
            max(0, self.hold_nanos - self.used_nanos),
        )

    @property
    def cancelling(self) -> bool:
        return bool(self.cancel_id)

    @property
    def overruns(self) -> bool:
        """Whether the running attempt used more than it holds, and nothing was said of it yet."""
        return (
            self.status in RUNNING
            and not self.hold_refused
            and (self.used_tokens > self.hold_tokens or self.used_nanos > self.hold_nanos)
        )

    @property
    def run_scopes(self) -> tuple[str, ...]:
        return throttle.scope_keys(self.worker, self.run_agent, self.run_model, self.project)


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What is remembered of an ended task. ``attempts`` are those that ended with it."""

    n: int
    status: str
    attempt: int
    at: int
    session: str = ""
    worker: str = ""
    agent: str = ""
    model: str = ""
    kind: str = ""
    tokens: int = 0
    nanos: int = 0
    past: tuple[PastAttempt, ...] = ()
    digest: bytes = b""


def digest(text: str, agent: str | None, model: str | None) -> bytes:
    """What makes two tasks the same: their text, and the agent and model asked for."""
    told = f"{agent or ''}\x1f{model or ''}\x1f{text}"
    return blake2b(told.encode(errors="surrogatepass"), digest_size=12).digest()


def submitted(state: State, event: Event) -> None:
    d = event.data
    meta = state.meta
    meta.submitted += 1
    priority = PRIORITY_RANK.get(d.priority, 1)
    given = (
        ("a" if d.agent else "")
        + ("m" if d.model else "")
        + ("w" if d.worker else "")
        + ("k" if d.kind else "")
    )
    task = Task(
        d.task,
        meta.submitted,
        event.log_id,
        priority=priority,
        kind=d.kind or "",
        agent=d.agent or "",
        model=d.model or "",
        given=given,
        given_worker=d.worker or "",
        project=d.project or "",
        timeout_s=d.timeout_s,
        max_attempts=d.max_attempts,
        given_estimate=d.estimate_tokens or 0,
        submitted_at=event.at,
        rank=event.at + LEAD[priority],
        retry_of=d.retry_of or "",
        digest=digest(d.text, d.agent, d.model),
    )
    if d.after:
        _wait_for(state, task, d.after)
    state.undo.put(state.tasks, task.id, task)
    state.undelegated.add(state, task)


def _wait_for(state: State, task: Task, after: tuple[str, ...]) -> None:
    waiting: list[str] = []
    for other in dict.fromkeys(after):
        if other in state.tasks:
            waiting.append(other)
            state.dependents.setdefault(other, {})[task.id] = None
        elif (ended := state.outcomes.get(other)) is not None and ended.status != COMPLETED:
            task.doomed = f"it waits for {other}, which {_ended_words(ended.status)}"
    task.after = tuple(waiting)


def _ended_words(status: str) -> str:
    return "was cancelled" if status == CANCELLED else "failed"


def delegated(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None or task.status != SUBMITTED:
        return
    state.undo.touch(task)
    task.kind, task.agent, task.model = d.kind, d.agent, d.model
    task.estimate = d.estimate_tokens
    task.status = BLOCKED if task.after else QUEUED
    state.index(task)


def deferred(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None:
        state.undo.touch(task)
        task.deferred = True
        state.index(task)


def dispatched(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    worker = state.workers.get(d.worker)
    if task is None or worker is None:
        return
    undo = state.undo
    undo.touch(task)
    task.status = DISPATCHED
    task.attempt = d.attempt
    task.worker, task.session = d.worker, d.session
    task.run_agent, task.run_model = d.agent, d.model
    task.hold_tokens, task.hold_nanos = task.first_hold = d.hold_tokens, d.hold_nanos
    task.hold_refused = False
    task.used_tokens = task.used_nanos = 0
    task.used = None
    task.dispatched_at, task.started_at = event.at, 0
    task.due = d.deadline
    task.dispatch_id = event.log_id
    undo.touch(worker)
    undo.put(worker.running, task.id, d.attempt)
    worker.dispatched += 1
    worker.last_kind = task.kind
    throttle.hold(state, task.run_scopes, d.hold_tokens, d.hold_nanos, 1)
    state.index(task)


def started(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None or task.status != DISPATCHED:
        return
    if task.session == d.session and task.attempt == d.attempt:
        state.undo.touch(task)
        task.status = STARTED
        task.started_at = event.at


def cancel_requested(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None:
        state.undo.touch(task)
        task.cancel_id = event.log_id


def spent(state: State, event: Event) -> None:
    """``usage.recorded`` and ``usage.corrected``: book it, and let it eat the attempt's hold."""
    d = event.data
    task = state.tasks.get(d.task) if d.task else None
    if task is not None and task.status in RUNNING and task.attempt == d.attempt:
        before = task.hold_left
        state.undo.touch(task)
        task.used = _summed(task.used, d.booked)
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
        after = task.hold_left
        throttle.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)
        if task.overruns:
            state.overruns.add(state, task)
    throttle.book(state, event.at, d.booked)
    usage.book(state, event.at, d.booked)


def _summed(so_far: Booking | None, more: Booking) -> Booking:
    if so_far is None:
        return more
    parts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    added = {p: getattr(so_far, p) + getattr(more, p) for p in parts}
    return msgspec.structs.replace(
        more, **added, tokens=so_far.tokens + more.tokens, nanos=so_far.nanos + more.nanos
    )


def hold_extended(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None or task.status not in RUNNING or task.attempt != d.attempt:
        return
    before = task.hold_left
    state.undo.touch(task)
    task.hold_tokens += d.tokens
    task.hold_nanos += d.nanos
    after = task.hold_left
    throttle.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)


def hold_refused(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None and task.attempt == event.data.attempt:
        state.undo.touch(task)
        task.hold_refused = True


# -- ends of attempts ------------------------------------------------------------------------


def _end_attempt(state: State, event: Event, completed: int, failed: int) -> Task | None:
    """Book what the event carries; free worker and hold if it ends the present attempt.

    None when the event is about an older attempt: its usage counts, nothing else.
    """
    d: AttemptEnd = event.data
    task = state.tasks.get(d.task)
    current = (
        task is not None
        and not d.stale
        and task.attempt == d.attempt
        and (task.session == d.session or not d.session)
    )
    if d.booked is not None:
        throttle.book(state, event.at, d.booked)
        if current:
            usage.book(state, event.at, d.booked, completed, failed)
        else:
            usage.book(state, event.at, d.booked)
    if not current or task is None:
        _forget_past(state, d)
        return None
    left = task.hold_left
    state.undo.touch(task)
    if d.booked is not None:
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
    if task.status in RUNNING:
        task.spent_tokens += task.used_tokens
        task.spent_nanos += task.used_nanos
        if d.booked is not None and d.booked.tasks and not d.booked.estimated:
            estimates.settle(state, task, d.booked)
        if not event.origin:
            task.past = (*task.past, _past(task, event))
        throttle.hold(state, task.run_scopes, -left[0], -left[1], -1)
        worker = state.workers.get(task.worker)
        if worker is not None and worker.session == task.session:
            state.undo.touch(worker)
            state.undo.drop(worker.running, task.id)
            worker.completed += completed
            worker.failed += failed
    return task


def _past(task: Task, event: Event) -> PastAttempt:
    booked: Booking | None = event.data.booked
    guessed = booked is not None and booked.estimated
    return PastAttempt(
        task.attempt,
        task.session,
        event.at,
        task.worker,
        task.run_agent,
        task.run_model,
        task.used_tokens,
        task.used_nanos,
        _summed(task.used, booked) if booked is not None else task.used,
        booked.tokens if booked is not None and guessed else 0,
        booked.nanos if booked is not None and guessed else 0,
    )


def _forget_past(state: State, d: AttemptEnd) -> None:
    """A late result has spoken for its attempt; a repeat of it finds nothing."""
    record = state.tasks.get(d.task) or state.outcomes.get(d.task)
    if record is not None:
        state.undo.touch(record)
        record.past = tuple(p for p in record.past if p.attempt != d.attempt)


def completed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 1, 0)
    if task is not None:
        state.meta.completed += 1
        _close(state, task, COMPLETED, event.at)


def failed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 1)
    if task is None:
        return
    task.last_error = event.data.error[:500]
    if event.data.retry_at:
        _back(state, task, BACKOFF, event.data.retry_at)
    else:
        state.meta.failed += 1
        _close(state, task, FAILED, event.at)


def cancelled(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 0)
    if task is not None:
        state.meta.cancelled += 1
        _close(state, task, CANCELLED, event.at)


def requeued(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 0)
    if task is not None:
        _back(state, task, QUEUED, 0)


def _back(state: State, task: Task, status: str, due: int) -> None:
    task.status, task.due = status, due
    task.worker = task.session = ""
    task.hold_tokens = task.hold_nanos = 0
    task.used_tokens = task.used_nanos = 0
    task.used = None
    state.index(task)


def _close(state: State, task: Task, status: str, at: int) -> None:
    undo, meta = state.undo, state.meta
    meta.ended += 1
    outcome = Outcome(
        meta.ended,
        status,
        task.attempt,
        at,
        task.session,
        task.worker,
        task.run_agent,
        task.run_model,
        task.kind,
        task.spent_tokens,
        task.spent_nanos,
        task.past,
        task.digest,
    )
    if status == COMPLETED:
        undo.put(state.results, task.digest, task.id)
    undo.drop(state.tasks, task.id)
    undo.put(state.outcomes, task.id, outcome)
    undo.put(state.ended_order, meta.ended, task.id)
    forgotten = state.ended_order.get(meta.ended - OUTCOMES_KEPT)
    if forgotten is not None:
        undo.drop(state.ended_order, meta.ended - OUTCOMES_KEPT)
        old = state.outcomes.get(forgotten)
        undo.drop(state.outcomes, forgotten)
        if old is not None and state.results.get(old.digest) == forgotten:
            undo.drop(state.results, old.digest)
    if task.id in state.dependents:
        _release_dependents(state, task, status)


def _release_dependents(state: State, task: Task, status: str) -> None:
    """What waited for this task may be tried now, or never."""
    for dependent in state.dependents.pop(task.id):
        waiting = state.tasks.get(dependent)
        if waiting is None or task.id not in waiting.after:
            continue
        state.undo.touch(waiting)
        waiting.after = tuple(x for x in waiting.after if x != task.id)
        if status != COMPLETED:
            waiting.doomed = f"it waits for {task.id}, which {_ended_words(status)}"
        if not waiting.after and waiting.status == BLOCKED:
            waiting.status = QUEUED
        state.index(waiting)
