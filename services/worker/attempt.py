"""One attempt in the hands of a worker, and what is told of its end."""

from __future__ import annotations

import asyncio
import enum
import math

from services.worker import messages
from services.worker.messages import Report
from services.worker.task import LimitReached, PermanentError, Result, RetryableError, Task


class Ending(enum.Enum):
    STOPPED = "worker stopped"
    LOST = "the session was declared lost"
    LEASE_OVER = "the worker could not renew its lease"
    TAKEN_OVER = "another worker of the same name has taken over"
    REFUSED = "another worker of the same name is alive"


class Why(enum.Enum):
    """Why an attempt was ended before its time."""

    CANCELLED = 1
    TIMED_OUT = 2
    SESSION_OVER = 3


class Attempt:
    """One attempt in the hands of this worker."""

    __slots__ = ("began_at", "begun", "ended", "ends_at", "handle", "key", "task", "timer", "why")

    def __init__(self, key: bytes, task: Task) -> None:
        self.key = key
        self.task = task
        self.begun = False
        self.began_at = 0.0
        self.ended = False
        self.ends_at = math.inf  # on the loop's clock
        self.handle: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.why: Why | None = None

    def started_report(self) -> Report | None:
        """Made when it is sent: an attempt that is over by then needs no word of its start."""
        return None if self.ended else messages.started(self.task)


def key_of(fields: dict[bytes, bytes]) -> bytes:
    """The attempt that an entry of the inbox is about."""
    return fields.get(b"task", b"") + b"\0" + fields.get(b"attempt", b"")


def ends_at(task: Task, now: float, server_ahead: float) -> float:
    """When its time is over, on the loop's clock (``now``), which never steps; the server's time is
    ``server_ahead`` of it. Where the server's clock has stepped forward since it was read, a task
    has its whole time and no more."""
    if not task.deadline_us:
        return math.inf
    left = task.deadline_us / 1e6 - server_ahead - now
    return now + (min(left, task.timeout_s) if task.timeout_s else left)


def report(
    job: Attempt, outcome: Result | str | BaseException | None, over: Ending, now: float
) -> Report:
    """What is told of an attempt that ended with ``outcome`` at ``now`` on the loop's clock.
    ``over`` is how the session ends, where that ended it."""
    duration = int((now - job.began_at) * 1000) if job.begun else 0
    if job.why is not None:
        return _cut_short(job, over, duration)
    if isinstance(outcome, BaseException):
        return _failure(job, outcome, duration)
    try:
        return messages.completed(job.task, outcome, duration)
    except (TypeError, ValueError, AttributeError) as error:
        return _failure(job, PermanentError(f"not a result: {error}"), duration)


def _cut_short(job: Attempt, over: Ending, duration: int) -> Report:
    """However the handler took it: a task that was cancelled did not complete."""
    task, begun = job.task, job.begun
    if job.why is Why.CANCELLED:
        return messages.cancelled(task, task.cancel_reason, begun=begun, duration_ms=duration)
    timed_out = job.why is Why.TIMED_OUT
    error = f"timed out after {duration / 1000:.3g} s" if timed_out else over.value
    return messages.failed(task, error, retryable=True, begun=begun, duration_ms=duration)


def _failure(job: Attempt, error: BaseException, duration: int) -> Report:
    permanent = isinstance(error, PermanentError)
    plain = isinstance(error, PermanentError | RetryableError)
    text = str(error) if plain and str(error) else f"{type(error).__name__}: {error}"
    limit = error if isinstance(error, LimitReached) else None
    return messages.failed(
        job.task,
        text,
        retryable=not permanent,
        begun=True,
        duration_ms=duration,
        limit=limit,
    )
