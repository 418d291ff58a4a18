"""The whole state: a fold of the log, for deciders and views alike.

``State.apply`` is pure seen from outside: no clock, no random, no I/O, no float. The same log gives
the same canonical encoding with any batch size, crash or machine. Besides the records it keeps
indexes and caches (queues, window sums), which are derived from them and never encoded.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from events.document import Totals
from events.envelope import Event
from events.policy import AlertBudget, Guard, Learning, Limit, PolicyChanged, Saving
from events.task import Charge
from projections import (
    alerts,
    attempts,
    clock,
    continuity,
    eviction,
    policy,
    progress,
    reports,
    routing,
    tallies,
    tasks,
    workers,
)
from projections.budgets import Bucket, Check, Scope, Used
from projections.charges import ChargedAttempt, Mark
from projections.days import Day
from projections.estimates import Learnt
from projections.flags import Flagged
from projections.journal import Journal
from projections.queues import Pile, Queues
from projections.reports import Issued
from projections.routing import Overlay, Routed, Taught
from projections.tallies import Standing, Tallies
from projections.tasks import (
    BACKOFF,
    COMPLETED,
    QUEUED,
    RUNNING,
    SUBMITTED,
    Outcome,
    PastAttempt,
    TaskRecord,
)
from projections.usage import Cell
from projections.workers import Worker


class Meta(msgspec.Struct, gc=False):
    """Counters and marks. ``log_id``: the last event folded, ``at`` its time; ``clock``: the
    largest ``at`` seen. Times are µs. Foreign entries count once an event told of them."""

    log_id: str = "0-0"
    at: int = 0
    clock: int = 0
    passed: int = 0  # time that has passed on this log without a jump: see projections/clock
    repeated: int = 0  # how much of the time to come has been seen before
    step_by: int = 0  # the last step of the clock, and when
    step_at: int = 0
    large_step: int = 0  # the last of more than an hour that nobody has confirmed
    large_step_at: int = 0
    large_step_id: str = ""
    large_step_passed: int = 0  # ``passed`` by then
    events: int = 0
    submitted: int = 0
    ended: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    unknown: int = 0  # events of types this version may skip
    reported: str = ""  # every day up to this date had its report
    went_back: str = ""  # log id of the newest log.went_back
    trimmed: str = ""  # where the log began after the newest log.trimmed, and its log id
    trimmed_said: str = ""
    foreign: int = 0  # foreign entries told of so far, the last of them, and when that was
    foreign_id: str = ""
    foreign_at: int = 0
    foreign_said: str = ""  # log id of the newest log.foreign_entries
    evicts: bool = False  # whether the server was last said to drop keys; see projections/eviction
    evicted: int = 0
    evicted_run: str = ""
    eviction_said: str = ""  # log id of the newest redis.evicts or redis.keeps
    policy: PolicyChanged = msgspec.field(default_factory=PolicyChanged)
    overlay: Overlay = Overlay()  # what the delegator was taught
    policy_after: int = 0  # how many tasks had been submitted when the policy last changed


class Snapshot(msgspec.Struct):
    """The records of a State, as they are encoded."""

    format: int
    meta: Meta
    tasks: dict[str, TaskRecord]
    outcomes: dict[str, Outcome]
    ended_order: dict[int, str]
    workers: dict[str, Worker]
    scopes: dict[str, Scope]
    lifetime: dict[str, Cell]
    days: dict[str, dict[str, Cell]]
    intakes: dict[str, str]
    raised: dict[str, alerts.Raised]
    progress: dict[str, progress.Progress]
    reports: dict[str, Issued]
    learnt: dict[str, Learnt]
    taught: dict[str, Taught]
    routed: dict[str, Routed]
    disputes: dict[str, ChargedAttempt]
    torn: dict[str, int]
    flags: dict[str, Flagged]
    tallies: Tallies


def _shape(cls: type[msgspec.Struct]) -> str:
    return f"{cls.__name__}({','.join(f'{f.name}:{f.type}' for f in msgspec.structs.fields(cls))})"


# Names the layout of the records: a snapshot of another layout is not read but rebuilt.
FORMAT = zlib.crc32(
    " ".join(
        _shape(cls)
        for cls in (
            *(Meta, TaskRecord, PastAttempt, Outcome, Worker, Scope, Bucket, Cell, Snapshot),
            *(PolicyChanged, Limit, AlertBudget, Charge, alerts.Raised, progress.Progress),
            *(Overlay, Taught, Routed),
            *(Learnt, Saving, Guard, Learning, Issued, Totals, ChargedAttempt, Mark, Flagged),
            *(Tallies, tallies.Histogram, tallies.Returned, tallies.Difference),
        )
    ).encode()
)


class State:
    """All records, their indexes, and the one function that changes them: ``apply``."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        s = snapshot
        self.meta = s.meta if s else Meta()
        self.policy = self.meta.policy
        self.tasks = s.tasks if s else {}
        self.outcomes = s.outcomes if s else {}
        self.ended_order = s.ended_order if s else {}
        self.workers = s.workers if s else {}
        self.scopes = s.scopes if s else {}
        self.lifetime = s.lifetime if s else {}
        self.days = s.days if s else {}
        self.intakes = s.intakes if s else {}
        self.raised = s.raised if s else {}
        self.progress = s.progress if s else {}
        self.reports = s.reports if s else {}
        self.learnt = s.learnt if s else {}
        self.taught = s.taught if s else {}
        self.routed = s.routed if s else {}
        self.disputes = s.disputes if s else {}  # what waits for an operator's correction
        self.torn = s.torn if s else {}  # results of tasks that the log lost -> when, in events
        self.flags = s.flags if s else {}
        self.tallies = s.tallies if s else Tallies({}, {}, {}, {}, {})
        self.journal = Journal()
        self.price_lookup: policy.Lookup = policy.no_quotes  # deciders only; folds never price
        self._reindex()

    # -- indexes and caches: derived, never encoded ---------------------------------------------

    def _reindex(self) -> None:
        self.zone = ZoneInfo(self.policy.timezone)
        self.day = Day("", 0, 0)
        self.today = self.day
        self.late_days: dict[str, None] = {
            day: None for day, known in self.reports.items() if known.late_at
        }
        self.sums: dict[str, dict[str, Used]] = {}
        self.limits_by_scope: dict[str, tuple[Limit, ...]] = {}
        self.checks_by_scope: dict[str, tuple[Check, ...]] = {}
        self.watches_by_scope: dict[str, tuple[alerts.AlertWatch, ...]] = {}
        self.rolling = alerts.any_rolls(self)
        # What was folded before may hold a level nobody has spoken of yet.
        self.dirty_scopes: set[str] = set(self.scopes)
        self._dirty_before: set[str] = set()
        self.queues = Queues()
        self.standing = Standing(self.tasks.values())
        self._counts_before: tuple[dict[str, int], dict[tuple[str, int], int]] = ({}, {})
        self.undelegated, self.orphans, self.overruns = Pile(), Pile(), Pile()
        self.escalations = Pile()
        self.refused: dict[str, None] = {}  # tasks that were refused to hold more; some are stale
        self.never_fits: dict[str, None] = {}  # tasks that no limit in force would ever admit
        self.dependents: dict[str, dict[str, None]] = {}
        ended = sorted(self.outcomes.items(), key=lambda item: item[1].n)
        self.results = {o.digest: task for task, o in ended if o.status == COMPLETED}
        for task in sorted(self.tasks.values(), key=lambda t: t.n):
            self.index(task)

    def move(self, task: TaskRecord, status: str) -> None:
        """``task``, an open one whose record was touched, goes to another status."""
        self.standing.leave(task)
        task.status = status
        self.standing.enter(task)

    def index(self, task: TaskRecord) -> None:
        """Put ``task`` where its status belongs. Entries elsewhere go stale and are ignored."""
        if task.never_fits and task.status not in RUNNING:
            self.orphans.add(self, task)
        for other in task.after:
            self.dependents.setdefault(other, {})[task.id] = None
        if task.status == QUEUED:
            self.queues.add(self, task)
        elif task.status == SUBMITTED:
            self.undelegated.add(self, task)
        elif task.status == BACKOFF:
            self.queues.remind(self, task)
            self.escalations.add(self, task)
        elif task.status in RUNNING:
            self.queues.remind(self, task)
            if task.overruns:
                self.overruns.add(self, task)
            if task.wants_more:
                self.remember_refused(task)
            if self._is_orphan(task):
                self.orphans.add(self, task)

    def next_undelegated(self) -> TaskRecord | None:
        """The oldest task without a route."""
        return self.undelegated.first(self, lambda task: task.status == SUBMITTED)

    def next_escalation(self) -> TaskRecord | None:
        """A task that used up its tries and waits for one on a more capable model."""
        return self.escalations.first(
            self, lambda task: task.status == BACKOFF and routing.to_escalate(task)
        )

    def next_orphan(self) -> TaskRecord | None:
        """A task whose attempt has no worker any more, or which can never run."""
        return self.orphans.first(self, self._is_orphan)

    def next_overrun(self) -> TaskRecord | None:
        """A running task that used more than it holds, and was not refused more yet."""
        return self.overruns.first(self, lambda task: task.overruns)

    def remember_refused(self, task: TaskRecord) -> None:
        """``task`` was refused to hold more: the guard tries again."""
        self.refused[task.id] = None
        if len(self.refused) > 1_000 + 4 * len(self.tasks):
            self.wanting_more()

    def wanting_more(self) -> list[TaskRecord]:
        """Tasks that were refused to hold more and still want it; what is stale is forgotten."""
        found = [self.tasks[task] for task in self.refused if task in self.tasks]
        found = [task for task in found if task.wants_more]
        if len(found) < len(self.refused):
            self.refused = {task.id: None for task in found}
        return found

    def _is_orphan(self, task: TaskRecord) -> bool:
        if task.status not in RUNNING:
            return bool(task.never_fits) and task.status != SUBMITTED
        worker = self.workers.get(task.worker)
        return worker is None or task.id not in worker.running or worker.session != task.session

    def set_policy(self, policy: PolicyChanged) -> None:
        """Another policy is in force; forget what was derived from the old one."""
        self.meta.policy = self.policy = policy
        self.limits_by_scope.clear()
        self.checks_by_scope.clear()
        self.watches_by_scope.clear()
        self.rolling = alerts.any_rolls(self)
        self.zone = ZoneInfo(self.policy.timezone)
        self.day = self.today = Day("", 0, 0)
        self.dirty_scopes.update(self.scopes)
        self.try_again()

    def try_again(self) -> None:
        """What could never fit is tried again: under another policy it may."""
        waiting, self.never_fits = self.never_fits, {}
        for name in waiting:
            if (task := self.tasks.get(name)) is not None:
                self.index(task)

    # -- folding --------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Fold one event, the next on the log."""
        meta = self.meta
        meta.log_id = event.log_id
        meta.events += 1
        if event.at != meta.at:
            clock.moves(self, event)
            if event.at > meta.clock:
                meta.clock = event.at
        if event.origin:
            intake, _, entry = event.origin.rpartition(" ")
            self.journal.put(self.intakes, intake, entry)
        kind, counts = event.data.type, self.tallies.events
        counts[kind] = counts.get(kind, 0) + 1
        FOLDS.get(kind, _unknown)(self, event)

    def before_change(self, scope: str) -> None:
        """Folds call this before they change what ``scope`` has used or holds."""
        if self.rolling:
            alerts.before_change(self, scope)

    def begin(self) -> None:
        """From here on ``rollback`` leads back here."""
        self.journal.begin()
        self.journal.touch(self.meta)
        self._dirty_before = set(self.dirty_scopes)
        self._counts_before = (dict(self.tallies.events), dict(self.standing.counts))

    def commit(self) -> None:
        self.journal.commit()

    @property
    def ahead(self) -> bool:
        """Whether events were folded that may not reach the log."""
        return self.journal.entries is not None

    def rollback(self) -> None:
        """Undo every ``apply`` since ``begin``."""
        for record in self.journal.rollback():
            if isinstance(record, TaskRecord) and self.tasks.get(record.id) is record:
                self.index(record)
        self.sums.clear()
        self.try_again()
        if self.policy is not self.meta.policy:
            self.set_policy(self.meta.policy)
        self.dirty_scopes = self._dirty_before
        self.tallies.events, self.standing.counts = self._counts_before

    # -- encoding -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return Snapshot(FORMAT, *(getattr(self, f) for f in Snapshot.__struct_fields__[1:]))

    def encode(self) -> bytes:
        """The canonical encoding: sorted keys, integers and text only.

        Sums have no bound. MessagePack's integers do: where one is beyond 64 bits, all such stand
        as decimal text, which reads back as the same integers.
        """
        snapshot = self.snapshot()
        ordered = Snapshot(*(_canonical(getattr(snapshot, f)) for f in snapshot.__struct_fields__))
        try:
            return msgspec.msgpack.encode(ordered)
        except OverflowError:
            return msgspec.msgpack.encode(_wide(msgspec.to_builtins(ordered, builtin_types=BYTES)))

    def digest(self) -> str:
        """SHA-256 of the canonical encoding."""
        return hashlib.sha256(self.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """``value`` with every dict in it sorted by key."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _canonical(item) for key, item in sorted(items)}
    if isinstance(value, Scope):
        return replace(value, hours=_canonical(value.hours), minutes=_canonical(value.minutes))
    if isinstance(value, Worker):
        return replace(value, running=_canonical(value.running))
    if isinstance(value, Learnt):
        return replace(value, tokens=_canonical(value.tokens), nanos=_canonical(value.nanos))
    if isinstance(value, Tallies):
        return tallies.canonical(value, _canonical)
    return value


BYTES = (bytes,)  # what is not to become text on its way


def _wide(value: Any) -> Any:
    """Plain ``value`` with every integer that MessagePack cannot hold as decimal text."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _wide(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_wide(item) for item in cast("list[Any]", value)]
    return value


# Not strict, so that a number that stands as text is read as one.
_decoder = msgspec.msgpack.Decoder(Snapshot, strict=False)


def decode_state(data: bytes) -> State | None:
    """A State from its encoding; None where this version cannot read it (it is then rebuilt)."""
    try:
        snapshot = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return State(snapshot) if snapshot.format == FORMAT else None


def _unknown(state: State, _event: Event) -> None:
    state.meta.unknown += 1


def _nothing(_state: State, _event: Event) -> None:
    """An event that is a fact for people, not for the state."""


FOLDS: dict[str, Callable[[State, Event], Any]] = {
    "task.submitted": tasks.submitted,
    "task.delegated": tasks.delegated,
    "task.deferred": tasks.deferred,
    "task.dispatched": attempts.dispatched,
    "task.delivered": _nothing,
    "task.started": attempts.started,
    "task.cancel_requested": attempts.cancel_requested,
    "task.completed": attempts.completed,
    "task.failed": attempts.failed,
    "task.cancelled": attempts.cancelled,
    "task.requeued": attempts.requeued,
    "hold.extended": attempts.hold_extended,
    "hold.refused": attempts.hold_refused,
    "usage.recorded": attempts.recorded,
    "usage.corrected": attempts.corrected,
    "progress.updated": progress.updated,
    "worker.joined": workers.joined,
    "worker.refused": _nothing,
    "worker.left": workers.ended,
    "worker.lost": workers.ended,
    "worker.paused": workers.paused,
    "worker.resumed": workers.resumed,
    "intake.opened": workers.intake_opened,
    "clock.stepped": clock.stepped,
    "clock.confirmed": clock.confirmed,
    "policy.changed": policy.changed,
    "delegator.learnt": routing.learnt,
    "task.escalated": routing.escalated,
    "alert.raised": alerts.raised,
    "report.issued": reports.issued,
    "log.went_back": continuity.went_back,
    "log.trimmed": continuity.trimmed,
    "log.foreign_entries": continuity.foreign_entries,
    "redis.evicts": eviction.said,
    "redis.keeps": eviction.said,
}
