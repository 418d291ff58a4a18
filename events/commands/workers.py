"""What workers say of themselves."""

from __future__ import annotations

from typing import Annotated

import msgspec

from events.commands.base import Command, command
from events.words import PRIVATE, Label, Text


class HoldingAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt that a rejoining worker says it still runs, with the evidence for it."""

    task: str
    attempt: int
    evidence: str = ""


@command("worker.joined")
class JoinWorker(Command):
    """A worker asks for its name. ``models`` may be one text; ``heartbeat`` may be yes or no."""

    worker: Label
    agent: Label | None = None
    models: tuple[Label, ...] | Label = ()
    capacity: int = 1
    account: Label | None = None
    lease_s: int | None = None
    heartbeat: bool | Label = True
    holds: Annotated[tuple[HoldingAttempt, ...], PRIVATE] = ()
    instance: Label | None = None
    evidence: Text = ""
    take_over: bool = False
    cheap: Label | None = None
    capable: Label | None = None


class TellOfWorker(Command):
    """What the words about a worker that has joined share."""

    worker: Label
    session: Label = ""
    reason: Text = ""


@command("worker.left")
class LeaveWorker(TellOfWorker):
    """The worker says goodbye."""


@command("worker.paused")
class PauseWorker(TellOfWorker):
    """It shall get no new work."""


@command("worker.resumed")
class ResumeWorker(TellOfWorker):
    """It shall get new work again."""


@command("worker.state")
class TellState(TellOfWorker, kw_only=True):
    """What its agent does: see the event."""

    state: Label
    since: int = 0
    by: Label = ""
    about: Label = ""
