"""Submissions, and requests to cancel."""

from __future__ import annotations

from events.commands.base import Command, command
from events.words import Label, Text


@command("task.submitted")
class SubmitTask(Command):
    """A task to be done. What is given (kind, agent, model, worker) is a requirement; times in
    seconds. ``v`` is the version of this form."""

    text: Text
    v: int | None = None
    task: Label | None = None
    priority: Label = "normal"
    kind: Label | None = None
    agent: Label | None = None
    model: Label | None = None
    worker: Label | None = None
    project: Label | None = None
    after: tuple[Label, ...] = ()
    timeout_s: int | None = None
    max_attempts: int | None = None
    estimate_tokens: int | None = None
    retry_of: Label | None = None
    reuse: bool = False


@command("task.cancel_requested")
class CancelTask(Command):
    """A task shall not be done (any more)."""

    task: Label
    reason: Text = ""


@command("task.forgotten")
class ForgetTask(Command):
    """What was written for and by a task shall be forgotten."""

    task: Label
