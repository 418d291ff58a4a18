"""The life of a task, as facts."""

from __future__ import annotations

from typing import Protocol

import msgspec

from events.envelope import Payload, wire

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

    agent: str = ""
    model: str = ""
    worker: str = ""
    project: str = ""
    kind: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    tokens: int = 0
    nanos: int = 0
    tasks: int = 0
    book: int = 0
    meter: str = ""
    estimated: bool = False
    unpriced: bool = False
    price: str = ""
    window_at: int = 0
    day_at: int = 0
    flag: str = ""  # public: names of asb's own table and figures, no text of the writer
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


@wire("task.submitted")
class TaskSubmitted(Payload):
    """A task was taken in. What the user gave (kind, agent, model, worker) is a requirement."""

    task: str
    text: str
    priority: str = "normal"
    kind: str | None = None
    agent: str | None = None
    model: str | None = None
    worker: str | None = None
    project: str | None = None
    after: tuple[str, ...] = ()
    timeout_s: int = 7200
    max_attempts: int = 3
    estimate_tokens: int | None = None
    retry_of: str | None = None
    reuse: bool = False


class Candidate(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A kind the text might be, with the route it would take. ``score`` in points: the kind that
    leads by 100 leads clearly."""

    kind: str
    agent: str
    model: str
    score: int = 0


@wire("task.delegated")
class TaskDelegated(Payload):
    """The route: the cheapest adequate agent and model, and why.

    ``reason`` quotes the task's text and is private (words). ``margin``: points between the
    likeliest kind and the best one with another route; ``close``: too few to be sure.
    """

    task: str
    kind: str
    agent: str
    model: str
    complexity: str
    estimate_tokens: int
    reason: str
    candidates: tuple[Candidate, ...] = ()
    margin: int = 0
    close: bool = False


@wire("task.deferred")
class TaskDeferred(Payload):
    """Said once a task and limit: as it came in, this task could never fit that limit.

    ``limit`` is ``unit/window of scope``, without its amount. A later change of the policy is told
    by its own event, not by one for each task that waits.
    """

    task: str
    reason: str
    limit: str = ""


@wire("task.dispatched")
class TaskDispatched(Payload):
    """An attempt begins: who runs it and what is held for it. ``deadline`` is µs."""

    task: str
    attempt: int
    worker: str
    session: str
    agent: str
    model: str
    hold_tokens: int
    hold_nanos: int
    deadline: int
    why: str = ""


@wire("task.delivered")
class TaskDelivered(Payload):
    """The worker has the prompt in hand."""

    task: str
    attempt: int
    session: str


@wire("task.started")
class TaskStarted(Payload):
    """The attempt runs: from here its cost is real."""

    task: str
    attempt: int
    session: str


@wire("task.cancel_requested")
class TaskCancelRequested(Payload):
    """A running attempt shall stop; its hold stays until that is confirmed."""

    task: str
    reason: str = ""


class AttemptEnd(Payload):
    """What all ends of an attempt share. ``stale``: an older attempt, recorded without effect
    but for its usage. On the wire ``reported`` is the worker's own report, untouched."""

    task: str
    attempt: int = 0
    session: str = ""
    stale: bool = False
    charged: Charge | None = None


@wire("task.completed")
class TaskCompleted(AttemptEnd):
    """Done; the result (at most 64 kB) stands in ``reported``, or in the task it was reused
    from."""

    reused: str = ""


@wire("task.failed")
class TaskFailed(AttemptEnd):
    """An attempt failed; ``retry_at`` (µs) is 0 when it was the last."""

    error: str = ""
    retry_at: int = 0


@wire("task.cancelled")
class TaskCancelled(AttemptEnd):
    """The task will not be done."""

    reason: str = ""


@wire("task.requeued")
class TaskRequeued(AttemptEnd):
    """Back in the queue: a backoff is over, the worker was lost, or the provider of the account
    ``limited`` refused it, which counts as no try."""

    reason: str = ""
    limited: str = ""
