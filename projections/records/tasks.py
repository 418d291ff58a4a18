"""Tasks: the record of an open one, and what is remembered of an ended one."""

from __future__ import annotations

import msgspec

from events.task import PRIORITIES, Charge
from projections.records.charges import NO_PARTS, ChargedAttempt, Mark, Parts
from projections.scopes import scope_keys

SUBMITTED, BLOCKED, QUEUED, BACKOFF = "submitted", "blocked", "queued", "backoff"
DISPATCHED, STARTED = "dispatched", "started"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
RUNNING = (DISPATCHED, STARTED)


class PastAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that ended, and what it was charged: so that a late actual can take the place of
    an estimate, and an operator can correct it.

    An attempt that ended its task with all its usage reported, charged at once, is not kept here:
    the outcome of the task says as much.
    """

    attempt: int
    session: str
    charge: ChargedAttempt
    estimated_nanos: int = 0  # beside the charge's estimated tokens: a late result takes both back
    reported: bool = False  # its worker has told the result, though not the usage
    heard: bool = False  # its worker has told the usage, or an operator corrected it: that stands

    @property
    def worker(self) -> str:
        return self.charge.worker


class TaskRecord(msgspec.Struct, array_like=True, gc=False):
    """An open task. Times are µs; ``rank`` orders the queues; its prompt lies at ``log_id``."""

    id: str
    n: int
    log_id: str
    status: str = SUBMITTED
    priority: int = 1
    kind: str = ""
    agent: str = ""
    model: str = ""
    given: str = ""  # which of agent, model, worker, kind the user required: letters a m w k
    given_worker: str = ""
    project: str = ""
    after: tuple[str, ...] = ()  # tasks it still waits for
    timeout_s: int = 7200
    max_attempts: int = 3
    estimate: int = 0
    given_estimate: int = 0
    submitted_at: int = 0
    rank: int = 0
    due: int = 0  # end of the backoff, or of the attempt's time
    attempt: int = 0
    worker: str = ""
    session: str = ""
    run_agent: str = ""
    run_model: str = ""
    hold_tokens: int = 0
    hold_nanos: int = 0
    used_tokens: int = 0  # charged so far by this attempt
    used_nanos: int = 0
    used: Charge | None = None  # the attempt's totals so far, by part, and what is disputed
    marks: tuple[Mark, ...] = ()  # when and under which models these were charged
    spent_tokens: int = 0  # by all its ended attempts
    spent_nanos: int = 0
    dispatched_at: int = 0
    started_at: int = 0
    dispatch_id: str = ""  # log id of the attempt's dispatch
    cancel_id: str = ""  # log id of the request to cancel it
    first_hold: tuple[int, int] = (0, 0)  # tokens, nanos: what was held at the dispatch
    hold_refused: str = ""  # what was asked of its worker when more was refused; "" after more
    hold_word: str = ""  # log id of what its worker is to know of its hold: refused, or extended
    deferred: tuple[str, ...] = ()  # the limits of which it was said that they never admit it
    retry_of: str = ""
    failed_id: str = ""  # log id of its last failure: there stands the error
    digest: bytes = b""  # of what makes two tasks the same, for reuse of results
    never_fits: str = ""  # why it can never run: a task it waited for did not complete
    past: tuple[PastAttempt, ...] = ()
    escalated: bool = False  # tried once more, on a more capable model
    uncounted: int = 0  # attempts that a provider refused: they count as no try

    @property
    def priority_name(self) -> str:
        return PRIORITIES[self.priority]

    @property
    def tries(self) -> int:
        """How many attempts count against the most that it may have."""
        return self.attempt - self.uncounted

    @property
    def hold_left(self) -> tuple[int, int]:
        """What is still held: usage eats the hold, and never makes it negative."""
        return (
            max(0, self.hold_tokens - self.used_tokens),
            max(0, self.hold_nanos - self.used_nanos),
        )

    @property
    def is_disputed(self) -> bool:
        """Whether something of what the attempt reported is beyond the plausibility bound."""
        used = self.used
        return used is not None and bool(used.disputed_tokens or used.disputed_nanos)

    @property
    def cancelling(self) -> bool:
        return bool(self.cancel_id)

    @property
    def _beyond(self) -> bool:
        """Whether the running attempt used more than it holds."""
        return self.status in RUNNING and (
            self.used_tokens > self.hold_tokens or self.used_nanos > self.hold_nanos
        )

    @property
    def overruns(self) -> bool:
        """Whether it used more than it holds, and nothing was said of it yet."""
        return not self.hold_refused and self._beyond

    @property
    def wants_more(self) -> bool:
        """Whether it was refused to hold more, and would still go on with more."""
        return bool(self.hold_refused) and not self.cancelling and self._beyond

    @property
    def to_escalate(self) -> bool:
        """Whether its tries are used up and it waits for one more, on a more capable model."""
        return bool(self.tries) and self.tries >= self.max_attempts and not self.escalated

    @property
    def run_scopes(self) -> tuple[str, ...]:
        return scope_keys(self.worker, self.run_agent, self.run_model, self.project)


BLOCKS_KEPT = 100  # full ones, beside the one that fills
OUTCOMES_BLOCK = 1_000  # tasks of one block


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What is remembered of an ended task; `projections.tasks.close` makes it of the record that
    the task had while it was open."""

    n: int
    status: str
    attempt: int
    at: int
    session: str = ""
    worker: str = ""
    agent: str = ""
    model: str = ""
    kind: str = ""
    tokens: int = 0
    nanos: int = 0
    past: tuple[PastAttempt, ...] = ()
    digest: bytes = b""
    project: str = ""
    parts: Parts = NO_PARTS  # of the last attempt, where ``past`` does not hold it


class Block(msgspec.Struct, array_like=True, gc=False):
    """Outcomes of tasks that ended one after the other, the first of them as the ``first`` of all.
    ``ends`` has None for one that ended again later; ``count`` is how many it has more."""

    first: int
    count: int
    tasks: msgspec.Raw  # list[str]
    ends: msgspec.Raw  # list[Outcome | None]
