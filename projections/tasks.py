"""Tasks: from submission to their end, one record while open, a short outcome afterwards.

::

    submitted → queued ⇄ backoff        (blocked: waits for other tasks)
                  │  ↖ requeued (worker lost, backoff over)
                  ▼   \\
             dispatched → started → completed | failed | cancelled
"""

from __future__ import annotations

from hashlib import blake2b
from sys import intern

from events.envelope import Event
from events.task import PRIORITIES, TaskDeferred, TaskDelegated, TaskSubmitted
from events.words import TextMark
from projections import tallies
from projections.charges import parts_of
from projections.records import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    NO_PARTS,
    QUEUED,
    SUBMITTED,
    Outcome,
    TaskRecord,
)
from projections.state import State, folds

PRIORITY_RANK = {name: rank for rank, name in enumerate(PRIORITIES)}
# How much later (µs) a task of each priority is tried than a critical one submitted at the same
# moment. A fixed lead, so age overtakes priority in the order of trying and nobody starves.
LEAD = (900_000_000, 300_000_000, 60_000_000, 0)


def sameness(submission: TaskSubmitted, text: TextMark) -> bytes:
    """What makes two tasks the same: their text, of which the mark is enough, and the kind, agent,
    model and project asked for."""
    if not (submission.kind or submission.agent or submission.model or submission.project):
        return text.digest.encode()
    asked = (submission.kind, submission.agent, submission.model, submission.project)
    content = "\x1f".join((text.digest, *(name or "" for name in asked)))
    return blake2b(content.encode(errors="surrogatepass"), digest_size=12).digest()


@folds(TaskSubmitted)
def submitted(state: State, event: Event[TaskSubmitted]) -> None:
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
        digest=sameness(payload, payload.marks.text),
    )
    if payload.after:
        _wait_for(state, task, payload.after)
    state.enter(task)


def _wait_for(state: State, task: TaskRecord, after: tuple[str, ...]) -> None:
    waiting: list[str] = []
    for other in dict.fromkeys(after):
        if other in state.tasks:
            waiting.append(other)
        elif (ended := state.outcomes.get(other)) is not None and ended.status != COMPLETED:
            task.never_fits = f"it waits for {other}, which {_ended_words(ended.status)}"
    task.after = tuple(waiting)


def _ended_words(status: str) -> str:
    return "was cancelled" if status == CANCELLED else "failed"


@folds(TaskDelegated)
def delegated(state: State, event: Event[TaskDelegated]) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.status != SUBMITTED:
        return
    state.journal.touch(task)
    task.kind, task.agent, task.model = payload.kind, payload.agent, payload.model
    task.estimate = payload.estimate_tokens
    state.move(task, BLOCKED if task.after else QUEUED)
    state.index(task)


@folds(TaskDeferred)
def deferred(state: State, event: Event[TaskDeferred]) -> None:
    """It was said that ``limit`` never admits this task: it is set aside, until another policy is
    in force."""
    task = state.tasks.get(event.data.task)
    if task is not None and event.data.limit not in task.deferred:
        state.journal.touch(task)
        task.deferred = (*task.deferred, event.data.limit)
        if state.is_deferred(task):
            state.set_aside(task)


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
    """``task`` is over: what is remembered of it is its `Outcome`, and nothing else."""
    journal, meta = state.journal, state.meta
    meta.ended += 1
    past, parts = task.past, NO_PARTS
    if not past or past[-1].attempt != task.attempt:  # this outcome says all of its last attempt
        parts = parts_of(task.used)
    outcome = Outcome(
        meta.ended,
        status,
        task.attempt,
        at,
        session=intern(task.session),  # one of each for 100,000 outcomes of a replay
        worker=intern(task.worker),
        agent=intern(task.run_agent),
        model=intern(task.run_model),
        kind=intern(task.kind),
        tokens=task.spent_tokens,
        nanos=task.spent_nanos,
        past=past,
        digest=task.digest,
        project=intern(task.project),
        parts=parts,
    )
    tallies.timed(state, "task", status, at - task.submitted_at)
    state.leave(task)
    state.outcomes.end(journal, task.id, outcome)
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
