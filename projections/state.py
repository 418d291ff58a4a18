"""The whole state: a fold of the log, for deciders and views alike.

The same log gives the same canonical encoding with any batch size, crash or machine. Besides the
records a state keeps indexes and caches (queues, window sums), which are derived from them and
never encoded. What changes it are the folds, which stand in the other files of this room: each is
registered with ``@folds`` for its types of event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from events.envelope import Event, Payload
from events.money import Lookup, no_quotes
from events.policy import Limit, PolicyChanged, rolling_minutes
from projections import encoding
from projections.days import Day
from projections.indexes import Indexes
from projections.journal import Journal
from projections.outcomes import Outcomes
from projections.records import (
    QUEUED,
    RECORDS,
    Meta,
    Outcome,
    Snapshot,
    Tallies,
    TaskRecord,
)
from projections.windows import MINUTE, Used, any_rolls

# A limit, its window and unit, its gates, and whether it is a share of a whole.
Check: TypeAlias = tuple[Limit, str, int, tuple[int, int, int, int], bool]


class AlertWatch(NamedTuple):
    """A limit or alert budget with a rolling window, and from which amount on it is at each level
    from WARNING on."""

    kind: str
    unit: str
    window: str
    levels: tuple[int, ...]

    @property
    def length(self) -> int:
        return rolling_minutes(self.window) * MINUTE


class _Before(NamedTuple):
    """What a turn changes without a journal, as it was; and the tasks that it set aside."""

    dirty: set[str]
    events: dict[str, int]
    standing: dict[tuple[str, int], int]
    aside: list[TaskRecord]


class State:
    """All records and their indexes. Folds change them, nobody else; see ``projections.fold``."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        s = snapshot
        self.meta = s.meta if s else Meta()
        self.policy = self.meta.policy
        self.tasks = s.tasks if s else {}
        self.outcomes = Outcomes(self.meta, s.outcomes if s else ())
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
        self.accounts = s.accounts if s else {}
        self.forgotten = s.forgotten if s else {}  # task -> log id of its task.forgotten
        self.tallies = s.tallies if s else Tallies({}, {}, {}, {}, {})
        if s and s.wide:
            self.outcomes.unpack_all()  # another state need not be wide: its blocks look different
        self.journal = Journal()
        self.price_lookup: Lookup = no_quotes  # deciders only; folds never price
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
        self.bounds_by_scopes: dict[tuple[str, ...], tuple[int | None, int | None]] = {}
        self.watches_by_scope: dict[str, tuple[AlertWatch, ...]] = {}
        self.rolling = any_rolls(self.policy)
        # What was folded before may hold a level nobody has spoken of yet.
        self.dirty_scopes: set[str] = set(self.scopes)
        # Tasks that no limit in force would ever admit.
        self.never_fits = dict.fromkeys(t.id for t in self.tasks.values() if self.is_deferred(t))
        self._indexes: Indexes | None = None
        self._before: list[_Before] = []  # of each turn that may yet be undone, the oldest in front
        self.dependents: dict[str, dict[str, None]] = {}  # tasks by another that they wait for
        for task in self.tasks.values():
            self._depend(task)

    @property
    def indexes(self) -> Indexes:
        """Where open tasks wait. Not for folds: these say what becomes of a task (``enter``,
        ``move``, ``index``, ``leave``)."""
        if self._indexes is None:
            self._indexes = Indexes(self.tasks, self.workers, self.never_fits)
        return self._indexes

    def record_of(self, task: str) -> TaskRecord | Outcome | None:
        """The record of a task, open or ended; None of one that ended more than 100,000 ends ago,
        or never was."""
        return self.tasks.get(task) or self.outcomes.get(task)

    def is_deferred(self, task: TaskRecord) -> bool:
        """Whether the log says of ``task`` that no limit in force would ever admit it."""
        new = task.n > self.meta.policy_after
        return task.status == QUEUED and new and bool(task.deferred)

    def enter(self, task: TaskRecord) -> None:
        """``task`` is open from now on."""
        self.journal.put(self.tasks, task.id, task)
        self._depend(task)
        if self._indexes is not None:
            self._indexes.standing.enter(task)
            self._indexes.add(task)

    def move(self, task: TaskRecord, status: str) -> None:
        """``task``, an open one whose record was touched, goes to another status."""
        indexes = self._indexes
        if indexes is None:
            task.status = status
            return
        indexes.standing.leave(task)
        task.status = status
        indexes.standing.enter(task)

    def index(self, task: TaskRecord) -> None:
        """Something of ``task`` has changed by which it is found."""
        if self._indexes is not None:
            self._indexes.add(task)

    def see_to_hold(self, task: TaskRecord) -> None:
        """``task`` runs, and used another amount than before, or was refused to hold more."""
        if self._indexes is not None:
            self._indexes.see_to_hold(task)

    def leave(self, task: TaskRecord) -> None:
        """``task`` is open no more."""
        if self._indexes is not None:
            self._indexes.standing.leave(task)
        self.journal.drop(self.tasks, task.id)
        self.journal.drop(self.never_fits, task.id)

    def _depend(self, task: TaskRecord) -> None:
        for other in task.after:
            self.dependents.setdefault(other, {})[task.id] = None

    def set_policy(self, policy: PolicyChanged) -> None:
        """Another policy is in force; forget what was derived from the old one."""
        self.meta.policy = self.policy = policy
        self.limits_by_scope.clear()
        self.checks_by_scope.clear()
        self.bounds_by_scopes.clear()
        self.watches_by_scope.clear()
        self.rolling = any_rolls(self.policy)
        self.zone = ZoneInfo(self.policy.timezone)
        self.day = self.today = Day("", 0, 0)
        self.dirty_scopes.update(self.scopes)
        self.try_again()

    def try_again(self) -> None:
        """What could never fit is tried again: under another policy it may."""
        for name in list(self.never_fits):
            self.journal.drop(self.never_fits, name)
            if (task := self.tasks.get(name)) is not None:
                self.index(task)

    def set_aside(self, task: TaskRecord) -> None:
        """No limit in force would ever admit ``task``: it is not tried until another is."""
        if task.id not in self.never_fits:
            self.journal.put(self.never_fits, task.id, None)
            if self.ahead:
                self._before[-1].aside.append(task)

    # -- folding ahead, and back -----------------------------------------------------------------

    def begin(self) -> None:
        """Another turn: ``rollback`` leads back here."""
        self.journal.begin()
        self.journal.touch(self.meta)
        counts = dict(self.tallies.events), dict(self.indexes.standing.counts)
        self._before.append(_Before(set(self.dirty_scopes), *counts, []))

    def commit(self) -> None:
        """The oldest turn stands."""
        self.journal.commit()
        del self._before[:1]

    @property
    def ahead(self) -> bool:
        """Whether events were folded that may not reach the log."""
        return self.journal.entries is not None

    def rollback(self) -> None:
        """Undo the newest turn."""
        before = self._before.pop()
        for record in (*self.journal.rollback(), *before.aside):
            if isinstance(record, TaskRecord) and self.tasks.get(record.id) is record:
                self._depend(record)
                self.index(record)
        self.sums.clear()
        if self.policy is not self.meta.policy:
            self.set_policy(self.meta.policy)
            deferred = filter(self.is_deferred, self.tasks.values())
            self.never_fits.update((task.id, None) for task in deferred)
        self.dirty_scopes = before.dirty
        self.tallies.events, self.indexes.standing.counts = before.events, before.standing

    # -- encoding -------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The canonical encoding of all records."""
        records = {name: getattr(self, name) for name in RECORDS if name != "outcomes"}
        return encoding.encode(self.outcomes, records)

    def digest(self) -> str:
        """SHA-256 of the canonical encoding."""
        return hashlib.sha256(self.encode()).hexdigest()


def decode_state(data: bytes) -> State | None:
    """A State from its encoding; None where this version cannot read it (it is then rebuilt)."""
    snapshot = encoding.decode(data)
    return State(snapshot) if snapshot is not None else None


# -- the registry of folds -------------------------------------------------------------------------

P = TypeVar("P", bound=Payload)
Fold: TypeAlias = Callable[[State, Event[P]], None]
FOLDS: dict[type[Payload], Fold[Any]] = {}


def folds(*payloads: type[P]) -> Callable[[Fold[P]], Fold[P]]:
    """Decorator: this function folds events of these types into the state.

    A fold is pure seen from outside and total: no clock, no random, no I/O, no float; time comes
    from the event, and whatever an event says, it raises nothing. It reads no words, only marks.
    """

    def register(fold: Fold[P]) -> Fold[P]:
        for payload in payloads:
            assert payload not in FOLDS, f"{payload.__name__} has a fold already"
            FOLDS[payload] = fold
        return fold

    return register
