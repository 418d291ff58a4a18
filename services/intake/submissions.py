"""Submissions and cancellations. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from events import secrets
from events.commands.tasks import CancelTask, SubmitTask
from events.envelope import Event
from events.task import Charge, TaskCancelled, TaskCancelRequested, TaskCompleted, TaskSubmitted
from projections.forgetting import is_gone
from projections.records import ALIVE, COMPLETED, RUNNING, Outcome, Worker
from projections.state import State
from projections.tasks import sameness
from services.intake import schema
from services.intake.case import Case, takes
from services.intake.schema import Rejected

TIMEOUT_MAX_S = 7 * 24 * 3600
AFTER_MAX = 1_000


@takes(SubmitTask)
def submitted(case: Case, command: SubmitTask) -> Iterable[Event]:
    """A new task. Its id is the given one, else made from intake and entry id."""
    _check_text(command.text, case.defaults.text_max_bytes)
    if case.defaults.refuse_secrets:
        _check_secrets(command.text)
    if command.v not in (None, 1):
        raise Rejected(f"v {command.v} is newer than this version of asb understands")
    schema.check_priority(command.priority)
    _check_route(command)
    _check_model(case.state, command)
    task = command.task
    if task is None:
        name = case.intake_name
        task = f"{name}.{case.entry.id}" if name else case.entry.id
    _check_references(case, command, task)
    payload = TaskSubmitted(
        task,
        command.text,
        command.priority,
        command.kind,
        command.agent,
        command.model,
        command.worker,
        command.project,
        command.after,
        case.defaults.timeout_s if command.timeout_s is None else command.timeout_s,
        case.defaults.max_attempts if command.max_attempts is None else command.max_attempts,
        command.estimate_tokens,
        command.retry_of,
        command.reuse,
    )
    yield case.reported(payload, command)
    if command.reuse:
        yield from _reused(case, payload, command.text)


def _reused(case: Case, task: TaskSubmitted, text: str) -> Iterable[Event]:
    """The stored result of an identical task that was completed, at no cost."""
    same = sameness(task, case.mark(text))
    earlier = case.state.outcomes.alike(case.state.journal, same)
    done = case.state.outcomes.get(earlier) if earlier else None
    if (
        earlier
        and done is not None
        and done.status == COMPLETED
        and not is_gone(case.state, earlier, done.at)
    ):
        charged = Charge(agent=done.agent, model=done.model, kind=done.kind, meter="reuse")
        event = case.event(TaskCompleted(task.task, charged=charged, reused=earlier))
        event.id = f"{case.entry.id}.reused"
        yield event


def _check_text(text: str, bound: int) -> None:
    if not text or text.isspace():
        raise Rejected("text is empty; a task needs a description")
    if len(text) * 4 > bound and len(text.encode()) > bound:
        raise Rejected(
            f"text has {len(text.encode()):,} bytes, more than {bound:,}; put long material into a "
            "file and name it, or raise tasks.text_max_bytes"
        )
    control = schema.CONTROL.search(text)
    if control:
        raise Rejected(
            f"text holds the control character U+{ord(control[0]):04X} at position "
            f"{control.start()}; "
            "only tab and newline may stand in a task"
        )


def _check_secrets(text: str) -> None:
    hits = secrets.find(text)
    if hits:
        raise Rejected(
            f"text holds what looks like a secret ({hits[0].kind}) at position {hits[0].start}; "
            'take it out: name the file or the variable it stands in. [privacy] prompts = "keep" '
            "lets prompts hold secrets"
        )


def _check_route(command: SubmitTask) -> None:
    if command.kind is not None:
        schema.check_kind(command.kind)
    if command.agent is not None:
        schema.check_name(command.agent, "agent")
    if command.worker is not None:
        schema.check_name(command.worker, "worker")
    if command.model is not None:
        schema.check_name(command.model, "model", schema.LABEL)
    if command.project is not None:
        schema.check_name(command.project, "project", schema.LABEL)
    schema.check_name(command.retry_of, "retry_of", schema.TASK_ID)
    schema.check_range(command.timeout_s, "timeout_s", 1, TIMEOUT_MAX_S)
    schema.check_range(command.max_attempts, "max_attempts", 1, 100)
    schema.check_range(command.estimate_tokens, "estimate_tokens", 0, 10**9)


def _check_model(state: State, command: SubmitTask) -> None:
    """A model that the user gave has to be one that its agent takes, where the agent's workers say
    which they take. Where none has joined yet the task waits for one."""
    if command.model is None:
        return
    workers = [w for w in state.workers.values() if w.status == ALIVE and _may_run(w, command)]
    if not workers or any(not w.capable or w.serves(w.agent, command.model) for w in workers):
        return
    taken = {f"{w.agent or 'any'}: {', '.join(w.models)}" for w in workers}
    raise Rejected(
        f"no worker takes the model {command.model[:60]!r}; they take {'; '.join(sorted(taken))}"
    )


def _may_run(worker: Worker, command: SubmitTask) -> bool:
    if command.worker is not None and worker.name != command.worker:
        return False
    return command.agent is None or worker.is_agent(command.agent)


def _check_references(case: Case, command: SubmitTask, task: str) -> None:
    state = case.state
    if command.task is not None:
        schema.check_name(command.task, "task", schema.TASK_ID)
    if task in state.tasks or task in state.outcomes or task in case.known.ended_tasks:
        raise Rejected(f"task {task!r} exists already; choose another id")
    if task in state.forgotten:
        raise Rejected(f"task {task!r} was forgotten; choose another id")
    if len(command.after) > AFTER_MAX:
        raise Rejected(f"after names {len(command.after):,} tasks, more than {AFTER_MAX:,}")
    for other in command.after:
        if (
            other not in state.tasks
            and other not in state.outcomes
            and other not in case.known.ended_tasks
        ):
            raise Rejected(f"after names task {other[:80]!r}, which is unknown")


@takes(CancelTask)
def cancel_requested(case: Case, command: CancelTask) -> Iterable[Event]:
    """Not yet running: cancelled at once. Running: a request, the worker confirms."""
    task = case.known_task(command.task)
    if isinstance(task, Outcome):
        raise Rejected(f"task {command.task[:80]!r} is {task.status} already")
    reason = command.reason[:500] or "cancelled by request"
    if task.status not in RUNNING:
        yield case.reported(TaskCancelled(task.id, task.attempt, reason=reason), command)
    elif not task.cancelling:
        yield case.reported(TaskCancelRequested(task.id, reason), command)
