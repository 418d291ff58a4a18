"""What workers and agents report: how an attempt goes and ends, usage, progress."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from events.commands.base import Command, command
from events.words import PRIVATE, PUBLIC, Label, Text


class ReportAttempt(Command):
    """What all reports of an attempt share. ``usage`` is what the agent told of its tokens, under
    whatever names; ``started`` false: no model was called; ``cost_usd``: the agent's own figure;
    ``calls``: how often it called a model, where it knows. ``meter`` names who says so, ``meters``
    what others say of the same, by their names. ``worker`` repeats whose session it is, and is not
    kept."""

    task: Label
    attempt: int
    session: Label
    result: Annotated[Any, PRIVATE] = None
    error: Text = ""
    reason: Text = ""
    retryable: bool = True
    started: bool = True
    usage: Annotated[Any, PRIVATE] = None
    meter: Label = ""
    meters: Annotated[Any, PRIVATE] = None
    model: Label = ""
    cost_usd: Annotated[Any, PUBLIC] = None  # numbers; what is none is not kept
    duration_ms: Annotated[Any, PUBLIC] = None
    calls: int | None = None
    worker: Annotated[Any, PUBLIC] = None


@command("task.delivered")
class ReportDelivery(ReportAttempt):
    """The agent has the prompt. ``by``: who says so; ``changes``: what of it arrived
    otherwise than it was sent."""

    by: Label = ""
    changes: Text = ""


@command("task.started")
class ReportStart(ReportAttempt):
    """The attempt runs."""


@command("task.completed")
class ReportResult(ReportAttempt):
    """The attempt is done; its ``result``."""


@command("task.failed")
class ReportFailure(ReportAttempt):
    """The attempt failed; ``retryable`` false: trying again is of no use. ``limit``: its provider
    refuses the account, an object with ``until`` (µs), ``evidence``, ``account``."""

    limit: Annotated[Any, PRIVATE] = None


@command("task.cancelled")
class ReportCancel(ReportAttempt):
    """The attempt was ended as it was asked for."""


@command("usage.recorded")
class RecordUsage(ReportAttempt, kw_only=True):
    """Usage of a running attempt, as running totals, or of work that asb did not dispatch."""

    agent: Label
    task: Label = ""
    attempt: int = 0
    session: Label = ""
    worker: Label = ""
    project: Label = ""
    kind: Label = ""
    time: Annotated[Any, PRIVATE] = None


@command("progress.updated")
class UpdateProgress(Command):
    """A progress document: any JSON.

    Who reads documents out of Redis adds two fields: ``newest`` is the log id of the newest
    document taken when this one was read ("" for none), ``unreadable`` why it is none.
    """

    agent: Label
    task: Label
    document: Annotated[msgspec.Raw, PRIVATE]
    newest: Label | None = None
    unreadable: Text = ""
