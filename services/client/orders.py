"""What a person tells a running bus: submit, cancel, do again, pause, resume; and what becomes of
it. Nothing is decided here: the engine answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from projections.records import COMPLETED
from projections.state import State
from services.client.bus import Bus
from services.client.follow import Answers, story
from services.client.lookup import not_open, unknown
from services.client.story import status_of
from services.client.submissions import BadLine, Checker, Submission, send
from services.runtime import initial_policy
from services.runtime.errors import AsbError, Refused

ANSWER_S = 5.0  # an engine's heartbeat says within three that something was taken in
UNANSWERED = "no engine has taken it in yet; it is kept and will be"


class Reply(msgspec.Struct, frozen=True):
    """What became of an order: done or not, in words; and the id of a task that it made."""

    ok: bool
    text: str
    task: str = ""


def submit(bus: Bus, fields: dict[str, Any]) -> Reply:
    """A new task. ``fields`` are those of ``task.submitted``; the id may be among them."""
    given_id = fields.pop("id", "") or ""
    checker = Checker({}, initial_policy.defaults(bus.settings))
    task = checker.item("the task", fields, given_id)
    if isinstance(task, BadLine):
        return Reply(False, task.error)
    return _sent(bus, task, "submitted")


def cancel(bus: Bus, task: str, reason: str = "") -> Reply:
    """Cancel a task: a waiting one at once; of a running one its worker ends every process."""
    refusal = not_open(bus, bus.state(), task)
    if refusal is not None:
        return Reply(False, _words(refusal))
    data: dict[str, object] = {"task": task}
    if reason:
        data["reason"] = reason
    return _ordered(bus, "task.cancel_requested", data, f"{task} is being cancelled")


def retry(bus: Bus, task: str) -> Reply:
    """Submit an ended task again, as a new one that names it."""
    notes: list[str] = []
    try:
        again = again_of(bus, bus.state(), task, notes.append)
    except Refused as error:
        return Reply(False, _words(error))
    return _sent(bus, again, "; ".join([f"{task} is done again", *notes]))


def pause(bus: Bus, worker: str, *, resume: bool = False) -> Reply:
    """Give a worker no new tasks, or tasks again."""
    known = bus.state().workers.get(worker)
    if known is None:
        return Reply(False, f"no worker named {worker} ever joined")
    outcome = f"{worker} gets tasks again" if resume else f"{worker} is paused: no new tasks"
    if known.paused != resume:
        return Reply(True, f"{outcome} (as before)")
    return _ordered(
        bus, "worker.resumed" if resume else "worker.paused", {"worker": worker}, outcome
    )


def _ordered(bus: Bus, kind: str, data: dict[str, object], outcome: str) -> Reply:
    answers = Answers(bus)
    answers.expect(bus.send(kind, data), kind)
    return _answered(answers, outcome)


def _sent(bus: Bus, task: Submission, outcome: str) -> Reply:
    answers = Answers(bus)
    (entry,) = send(bus, [task])
    answers.expect(entry, "task")
    return _answered(answers, outcome, task.task or entry)


def _answered(answers: Answers, outcome: str, task: str = "") -> Reply:
    refusals = [error for _, error in answers.refusals(ANSWER_S)]
    if refusals:
        return Reply(False, "; ".join(refusals))
    if answers.unchanged:
        return Reply(True, f"{outcome} (as before)", task)
    if not answers.events:
        return Reply(True, UNANSWERED, task)
    return Reply(True, outcome, task)


def _words(error: AsbError) -> str:
    return str(error).replace("\n", "; ")


def again_of(bus: Bus, state: State, task_id: str, say: Callable[[str], object]) -> Submission:
    """The old submission without its place in the world: id, and what it waited for. ``say``:
    what the new one goes without. Raises Refused for what cannot be done again."""
    if task_id in state.tasks:
        raise Refused(
            f"task {task_id} has not ended: it is {state.tasks[task_id].status}",
            hint=f"cancel it first: asb cancel {task_id}",
        )
    events = story(bus, task_id)
    if not events:
        raise unknown(bus, state, task_id)
    fields: dict[str, Any] = msgspec.json.decode(events[0].raw)
    words = fields.pop("words", {})
    after: list[str] = list(fields.get("after") or ())
    if not words.get("text"):
        raise Refused(f"the text of task {task_id} was forgotten", hint="submit it anew")
    for name in ("v", "task", "after", "marks", "reported"):
        fields.pop(name, None)
    if status_of(events) == COMPLETED:
        say(f"{task_id} was completed: it is done, and charged, once more")
    for before in after:
        status = status_of(story(bus, before))
        if status != COMPLETED:
            say(f"{task_id} was to wait for {before}, which is {status}: now it does not")
    fields |= words
    fields["retry_of"] = task_id
    return Submission(msgspec.json.encode(fields))
