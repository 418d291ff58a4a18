"""The life of a task, as facts."""

from __future__ import annotations

from typing import Protocol

import msgspec

from events.envelope import Payload, wire
from events.words import NO_MARK, Label, Phrase, Text, TextMark

PRIORITIES = ("low", "normal", "high", "critical")
KINDS = (
    "ui",
    "coding",
    "testing",
    "debugging",
    "documentation",
    "research",
    "analysis",
    "automation",
    "database",
    "api",
    "unknown",
)


class Charge(msgspec.Struct, omit_defaults=True, gc=False):
    """Usage as it is charged: what this event *adds* to the windows, totals and reports.

    ``tokens`` is the counted total, ``nanos`` the cost in nano-dollars, ``book`` the version of the
    price book. ``estimated``: no meter spoke, the rest of the hold was taken. ``unpriced``: the
    model's price is not known. ``price`` says who named it where that was not the book: ``local``,
    ``agent``, ``unknown``, or a price list with its version. ``window_at`` (µs) books into the
    window of an earlier moment, for corrections; ``day_at`` is the writer's own time, used by
    reports only. ``flag`` says what of the reported usage contradicts itself or cannot be read.
    ``disputed_*`` is what was reported beyond the plausibility bound: it is charged
    to nobody until an operator's correction charges or drops it, which takes it away again.
    """

    agent: Label = ""
    model: Label = ""
    worker: Label = ""
    project: Label = ""
    kind: Label = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    tokens: int = 0
    nanos: int = 0
    tasks: int = 0
    book: int = 0
    meter: Label = ""
    estimated: bool = False
    unpriced: bool = False
    price: Label = ""
    window_at: int = 0
    day_at: int = 0
    flag: Phrase = ""  # public: names of asb's own table and figures, no text of the writer
    disputed_tokens: int = 0
    disputed_nanos: int = 0


class Figures(Protocol):
    """What can be added up of a charge."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    tokens: int
    nanos: int
    disputed_tokens: int
    disputed_nanos: int


def add_figures(total: Figures, charged: Charge) -> None:
    """Add a charge to a sum: the one arithmetic of its parts."""
    total.input_tokens += charged.input_tokens
    total.output_tokens += charged.output_tokens
    total.cache_read_tokens += charged.cache_read_tokens
    total.cache_write_tokens += charged.cache_write_tokens
    total.tokens += charged.tokens
    total.nanos += charged.nanos
    total.disputed_tokens += charged.disputed_tokens
    total.disputed_nanos += charged.disputed_nanos


class SubmissionMarks(msgspec.Struct, frozen=True, gc=False):
    """The marks of a submission's words that its fold reads."""

    text: TextMark = NO_MARK


@wire("task.submitted")
class TaskSubmitted(Payload):
    """A task was taken in. What the user gave (kind, agent, model, worker) is a requirement."""

    task: Label
    text: Text = ""
    priority: Label = "normal"
    kind: Label | None = None
    agent: Label | None = None
    model: Label | None = None
    worker: Label | None = None
    project: Label | None = None
    after: tuple[Label, ...] = ()
    timeout_s: int = 7200
    max_attempts: int = 3
    estimate_tokens: int | None = None
    retry_of: Label | None = None
    reuse: bool = False
    marks: SubmissionMarks = SubmissionMarks()


class Candidate(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A kind the text might be, with the route it would take. ``score`` in points: the kind that
    leads by 100 leads clearly."""

    kind: Label
    agent: Label
    model: Label
    score: int = 0


@wire("task.delegated")
class TaskDelegated(Payload):
    """The route: the cheapest adequate agent and model, and why.

    ``reason`` quotes the task's text and is private (words). ``margin``: points between the
    likeliest kind and the best one with another route; ``close``: too few to be sure.
    """

    task: Label
    kind: Label
    agent: Label
    model: Label
    complexity: Label
    estimate_tokens: int
    reason: Text = ""
    candidates: tuple[Candidate, ...] = ()
    margin: int = 0
    close: bool = False


@wire("task.deferred")
class TaskDeferred(Payload):
    """Said once a task and limit: as it came in, this task could never fit that limit.

    ``limit`` is ``unit/window of scope``, without its amount. A later change of the policy is told
    by its own event, not by one for each task that waits.
    """

    task: Label
    reason: Phrase
    limit: Phrase = ""


@wire("task.dispatched")
class TaskDispatched(Payload):
    """An attempt begins: who runs it and what is held for it. ``deadline`` is µs."""

    task: Label
    attempt: int
    worker: Label
    session: Label
    agent: Label
    model: Label
    hold_tokens: int
    hold_nanos: int
    deadline: int
    why: Phrase = ""


@wire("task.delivered")
class TaskDelivered(Payload):
    """The agent has the prompt, by the word of its hook or transcript (``by``); ``changes``
    names what of it arrived otherwise than it was sent."""

    task: Label
    attempt: int
    session: Label
    by: Label = ""
    changes: Text = ""


@wire("task.started")
class TaskStarted(Payload):
    """The attempt runs: from here its cost is real."""

    task: Label
    attempt: int
    session: Label


@wire("task.cancel_requested")
class TaskCancelRequested(Payload):
    """A running attempt shall stop; its hold stays until that is confirmed."""

    task: Label
    reason: Text = ""


class AttemptEnd(Payload):
    """What all ends of an attempt share. ``stale``: an older attempt, recorded without effect
    but for its usage. On the wire ``reported`` is the worker's own report, untouched."""

    task: Label
    attempt: int = 0
    session: Label = ""
    stale: bool = False
    charged: Charge | None = None


@wire("task.completed")
class TaskCompleted(AttemptEnd):
    """Done; the result (at most 64 kB) stands in ``reported``, or in the task it was reused
    from."""

    reused: Label = ""


@wire("task.failed")
class TaskFailed(AttemptEnd):
    """An attempt failed; ``retry_at`` (µs) is 0 when it was the last."""

    error: Text = ""
    retry_at: int = 0


@wire("task.cancelled")
class TaskCancelled(AttemptEnd):
    """The task will not be done."""

    reason: Text = ""


@wire("task.requeued")
class TaskRequeued(AttemptEnd):
    """Back in the queue: a backoff is over, the worker was lost, or the provider of the account
    ``limited`` refused it, which counts as no try."""

    reason: Phrase = ""
    limited: Label = ""


@wire("task.forgotten")
class TaskForgotten(Payload):
    """What was written for and by this task is to be forgotten: from here on nothing shows it, what
    comes later is kept as marks, and the streams that hold it are written anew without it."""

    task: Label
