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
from events.task import PRIORITIES, Charge
from projections import budgets, tallies
from projections.charges import NO_PARTS, ChargedAttempt, Mark, Parts, is_plain

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
    """An attempt that ended, and what it was charged: so that a late actual can take the place of
    an estimate, and an operator can correct it.

    An attempt that ended its task with all its usage reported, charged at once, is not kept here:
    the outcome of the task says as much.
    """

    attempt: int
    session: str
    charge: ChargedAttempt
    estimated_nanos: int = 0  # beside the charge's estimated tokens: a late result takes both back
    reported: bool = False  # its worker has told the result, though not the usage
    heard: bool = False  # its worker has told the usage, or an operator corrected it: that stands

    @property
    def worker(self) -> str:
        return self.charge.worker


class TaskRecord(msgspec.Struct, array_like=True, gc=False):
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
    used_tokens: int = 0  # charged so far by this attempt
    used_nanos: int = 0
    used: Charge | None = None  # the attempt's totals so far, by part, and what is disputed
    marks: tuple[Mark, ...] = ()  # when and under which models these were charged
    spent_tokens: int = 0  # by all its ended attempts
    spent_nanos: int = 0
    dispatched_at: int = 0
    started_at: int = 0
    dispatch_id: str = ""  # log id of the attempt's dispatch
    cancel_id: str = ""  # log id of the request to cancel it
    first_hold: tuple[int, int] = (0, 0)  # tokens, nanos: what was held at the dispatch
    hold_refused: str = ""  # what was asked of its worker when more was refused; "" after more
    hold_word: str = ""  # log id of what its worker is to know of its hold: refused, or extended
    deferred: tuple[str, ...] = ()  # the limits of which it was said that they never admit it
    retry_of: str = ""
    last_error: str = ""
    digest: bytes = b""  # of what makes two tasks the same, for reuse of results
    never_fits: str = ""  # why it can never run: a task it waited for did not complete
    past: tuple[PastAttempt, ...] = ()
    escalated: bool = False  # tried once more, on a more capable model

    @property
    def priority_name(self) -> str:
        return PRIORITIES[self.priority]

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
    def _beyond(self) -> bool:
        """Whether the running attempt used more than it holds."""
        return self.status in RUNNING and (
            self.used_tokens > self.hold_tokens or self.used_nanos > self.hold_nanos
        )

    @property
    def overruns(self) -> bool:
        """Whether it used more than it holds, and nothing was said of it yet."""
        return not self.hold_refused and self._beyond

    @property
    def wants_more(self) -> bool:
        """Whether it was refused to hold more, and would still go on with more."""
        return bool(self.hold_refused) and not self.cancelling and self._beyond

    @property
    def run_scopes(self) -> tuple[str, ...]:
        return budgets.scope_keys(self.worker, self.run_agent, self.run_model, self.project)


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
    project: str = ""
    parts: Parts = NO_PARTS  # of the last attempt, where ``past`` does not hold it


def digest(text: str, agent: str | None, model: str | None) -> bytes:
    """What makes two tasks the same: their text, and the agent and model asked for."""
    reported = f"{agent or ''}\x1f{model or ''}\x1f{text}"
    return blake2b(reported.encode(errors="surrogatepass"), digest_size=12).digest()


def submitted(state: State, event: Event) -> None:
    payload = event.data
    meta = state.meta
    meta.submitted += 1
    priority = PRIORITY_RANK.get(payload.priority, 1)
    given = (
        ("a" if payload.agent else "")
        + ("m" if payload.model else "")
        + ("w" if payload.worker else "")
        + ("k" if payload.kind else "")
    )
    task = TaskRecord(
        payload.task,
        meta.submitted,
        event.log_id,
        priority=priority,
        kind=payload.kind or "",
        agent=payload.agent or "",
        model=payload.model or "",
        given=given,
        given_worker=payload.worker or "",
        project=payload.project or "",
        timeout_s=payload.timeout_s,
        max_attempts=payload.max_attempts,
        given_estimate=payload.estimate_tokens or 0,
        submitted_at=event.at,
        rank=event.at + LEAD[priority],
        retry_of=payload.retry_of or "",
        digest=digest(payload.text, payload.agent, payload.model),
    )
    if payload.after:
        _wait_for(state, task, payload.after)
    state.journal.put(state.tasks, task.id, task)
    state.standing.enter(task)
    state.undelegated.add(state, task)


def _wait_for(state: State, task: TaskRecord, after: tuple[str, ...]) -> None:
    waiting: list[str] = []
    for other in dict.fromkeys(after):
        if other in state.tasks:
            waiting.append(other)
            state.dependents.setdefault(other, {})[task.id] = None
        elif (ended := state.outcomes.get(other)) is not None and ended.status != COMPLETED:
            task.never_fits = f"it waits for {other}, which {_ended_words(ended.status)}"
    task.after = tuple(waiting)


def _ended_words(status: str) -> str:
    return "was cancelled" if status == CANCELLED else "failed"


def delegated(state: State, event: Event) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.status != SUBMITTED:
        return
    state.journal.touch(task)
    task.kind, task.agent, task.model = payload.kind, payload.agent, payload.model
    task.estimate = payload.estimate_tokens
    state.move(task, BLOCKED if task.after else QUEUED)
    state.index(task)


def deferred(state: State, event: Event) -> None:
    """It was said that ``limit`` never admits this task. Whether that is so under the policy of
    the day is worked out when the task is tried, not remembered here."""
    task = state.tasks.get(event.data.task)
    if task is not None and event.data.limit not in task.deferred:
        state.journal.touch(task)
        task.deferred = (*task.deferred, event.data.limit)


def back(state: State, task: TaskRecord, status: str, due: int) -> None:
    state.move(task, status)
    task.due = due
    task.worker = task.session = ""
    task.hold_tokens = task.hold_nanos = 0
    task.used_tokens = task.used_nanos = 0
    task.used = None
    task.marks = ()
    state.index(task)


def close(state: State, task: TaskRecord, status: str, at: int) -> None:
    journal, meta = state.journal, state.meta
    meta.ended += 1
    past, parts = task.past, NO_PARTS
    if past and past[-1].heard and past[-1].attempt == task.attempt:
        charge = past[-1].charge
        if charge.at == at and is_plain(charge, task.run_model):
            past, parts = past[:-1], charge.parts
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
        past,
        task.digest,
        task.project,
        parts,
    )
    if status == COMPLETED:
        journal.put(state.results, task.digest, task.id)
    state.standing.leave(task)
    tallies.timed(state, "task", status, at - task.submitted_at)
    journal.drop(state.tasks, task.id)
    journal.put(state.outcomes, task.id, outcome)
    journal.put(state.ended_order, meta.ended, task.id)
    forgotten = state.ended_order.get(meta.ended - OUTCOMES_KEPT)
    if forgotten is not None:
        journal.drop(state.ended_order, meta.ended - OUTCOMES_KEPT)
        old = state.outcomes.get(forgotten)
        journal.drop(state.outcomes, forgotten)
        if old is not None and state.results.get(old.digest) == forgotten:
            journal.drop(state.results, old.digest)
    if task.id in state.dependents:
        _release_dependents(state, task, status)


def _release_dependents(state: State, task: TaskRecord, status: str) -> None:
    """What waited for this task may be tried now, or never."""
    for dependent in state.dependents.pop(task.id):
        waiting = state.tasks.get(dependent)
        if waiting is None or task.id not in waiting.after:
            continue
        state.journal.touch(waiting)
        waiting.after = tuple(x for x in waiting.after if x != task.id)
        if status != COMPLETED:
            waiting.never_fits = f"it waits for {task.id}, which {_ended_words(status)}"
        if not waiting.after and waiting.status == BLOCKED:
            state.move(waiting, QUEUED)
        state.index(waiting)
