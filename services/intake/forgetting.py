"""Tasks whose words are to be forgotten, and entries that hold such words. PURE."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from events.commands.tasks import ForgetTask
from events.envelope import Event
from events.task import TaskCancelled, TaskCancelRequested, TaskForgotten
from projections.records import RUNNING
from services.decider import IntakeEntry, Rejection
from services.intake import schema
from services.intake.case import Case, takes
from services.mentions import is_about

REASON = "it is forgotten"
ERROR = "it is about a forgotten task; what it said is not kept"


@takes(ForgetTask)
def forgotten(case: Case, command: ForgetTask) -> Iterable[Event]:
    """The task is forgotten from here on; what is open of it is cancelled first. An id that nobody
    knows is taken as well: its words may stand among dead letters, or still be on their way."""
    case.check_shared("tasks are forgotten")
    schema.check_name(command.task, "task", schema.TASK_ID)
    if command.task in case.state.forgotten:
        return
    task = case.state.tasks.get(command.task)
    if task is not None and task.status not in RUNNING:
        cancelled = case.event(TaskCancelled(task.id, task.attempt, reason=REASON))
        cancelled.id = f"{case.entry.id}.cancelled"
        yield cancelled
    elif task is not None and not task.cancelling:
        asked = case.event(TaskCancelRequested(task.id, REASON))
        asked.id = f"{case.entry.id}.cancelled"
        yield asked
    yield case.event(TaskForgotten(command.task))


def without_words(letter: Rejection, main_intake: str, tasks: Container[str]) -> Rejection:
    """A rejection as it is kept: of one about a forgotten task nothing that was written."""
    if not is_about(letter.entry, main_intake, tasks):
        return letter
    kind = dict(zip(letter.entry.fields[0::2], letter.entry.fields[1::2], strict=False))
    fields = [b"type", kind.get(b"type", b"")[:40]]
    entry = IntakeEntry(letter.entry.intake, letter.entry.id, fields)
    return msgspec.structs.replace(letter, entry=entry, error=ERROR)
