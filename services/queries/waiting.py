"""Why a task waits, computed when asked, with the dispatcher's own checks. PURE."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from events.policy import UNITS, rolling_minutes
from events.task import PRIORITIES
from projections import budgets, estimates, scopes, windows
from projections.accounts import account_of, is_limited
from projections.format import clock, refusal_text, span
from projections.queues import queue_key
from projections.records import ALIVE, BACKOFF, BLOCKED, QUEUED, RUNNING, SUBMITTED, TaskRecord
from projections.state import State
from projections.views import iso
from services.dispatcher.decide import never_fits
from services.dispatcher.placement import Placement, Post
from services.queries.figures import names_text, natural

NAMED = 5  # workers that a reason names


class BudgetRefusal(NamedTuple):
    """A free worker, the limit that keeps the task from it, and how much the task asks for."""

    worker: str
    refusal: budgets.Refusal
    asked: int


class Waiting:
    """Answers for one state at one moment."""

    def __init__(
        self,
        state: State,
        now: int,
        missing: Collection[str] = (),
        errors: Mapping[str, str] | None = None,
    ) -> None:
        """``missing``: services that nobody runs. ``errors``: what failures said, by the log id of
        the failure."""
        self._state, self._now, self._missing = state, now, missing
        self._errors = errors or {}
        self._placement = Placement(state, now)
        self._heads: dict[str, str] = {}  # what the first of each queue waits for, by task

    @cached_property
    def _ranks(self) -> list[tuple[int, int]]:
        return sorted((t.rank, t.n) for t in self._state.tasks.values() if t.status == QUEUED)

    def position(self, task: TaskRecord) -> int:
        """Its place in the order of trying, from 1; 0 when it is not in the queue."""
        if task.status != QUEUED:
            return 0
        return bisect_left(self._ranks, (task.rank, task.n)) + 1

    def reason(self, task: TaskRecord) -> str:
        """Why ``task`` does not run yet, "" when it does."""
        if task.status in RUNNING:
            return ""
        if task.never_fits:
            return task.never_fits
        if task.status == BLOCKED:
            first, *others = task.after
            return f"after {first}" + (f" (+{len(others)})" if others else "")
        if gone := self._stands_still(task):
            return gone
        if task.status == SUBMITTED:
            return "it has no route yet"
        if task.status == BACKOFF:
            again = f"try {task.tries + 1} of {task.max_attempts}"
            error = self._errors.get(task.failed_id, "")
            return f"{again} in {span(task.due - self._now)}" + (f": {error}" if error else "")
        return self._queued(task)

    def _stands_still(self, task: TaskRecord) -> str:
        """The service it waits for that nobody runs."""
        needed = "delegator" if task.status == SUBMITTED else "dispatcher"
        return f"no {needed} runs; `asb up` starts one" if needed in self._missing else ""

    def _queued(self, task: TaskRecord) -> str:
        place = f"number {self.position(task):,} in the queue"
        if never_fits(self._state, task, self._placement, self._now):
            return self._head(task, place)  # it waits behind nobody
        key = queue_key(task)
        while (head := self._state.indexes.queues.head(key)) is not None:
            if head.id in self._heads or not never_fits(
                self._state, head, self._placement, self._now
            ):
                break
            self._state.set_aside(head)  # the dispatcher sets it aside, too
        if head is None or head.id == task.id:
            return self._head(task, place)
        if head.id not in self._heads:
            self._heads[head.id] = self._head(head, "")
        why = self._heads[head.id]
        return f"{place}, behind {head.id}" + (f", which waits for: {why}" if why else "")

    def _head(self, task: TaskRecord, place: str) -> str:
        """Why the first of its queue waits: the nearest way out over all workers of its route."""
        lowest = self._state.policy.min_priority
        if task.priority < PRIORITIES.index(lowest):
            return f"the policy admits only {lowest} priority and above"
        posts = self._placement.route(task)
        if not posts:
            return self._unserved(task, place)
        busy: list[str] = []
        refused: list[BudgetRefusal] = []
        for post in posts:
            refusal = self._refused(task, post)
            if refusal is not None:
                refused.append(refusal)
            elif post.worker.free > 0:
                return place
            else:
                busy.append(post.worker.name)
        if not busy and len({r.refusal for r in refused}) == 1:
            return refusal_text(refused[0].refusal, task.priority, refused[0].asked, self._now)
        parts = [_are("busy", sorted(busy, key=natural))] if busy else []
        parts += self._limits(refused, task.priority)
        return "; ".join([*parts, place] if busy and place else parts)

    def _refused(self, task: TaskRecord, post: Post) -> BudgetRefusal | None:
        """The limit that keeps ``task`` from ``post``. Of a busy one what is used up already: what
        it holds itself is free once it is."""
        state, name = self._state, post.worker.name
        keys = scopes.scope_keys(name, post.agent, post.model, task.project)
        asked = estimates.ask(state, task, post.model, keys)
        holds = post.worker.free > 0
        refusal = budgets.refusal(state, keys, task.priority, asked, self._now, holds=holds)
        if refusal is None:
            return None
        return BudgetRefusal(name, refusal, asked[UNITS.index(refusal.unit)])

    def _limits(self, refused: list[BudgetRefusal], priority: int) -> list[str]:
        """What keeps it from free workers, the first to reset in front; alike ones together."""
        groups: dict[tuple[object, ...], list[BudgetRefusal]] = {}
        for each in sorted(refused, key=_nearest):
            r = each.refusal
            own = r.scope.startswith("worker:")
            empty = each.asked <= r.missing
            key = (r.unit, r.window, r.resets_at, empty) if own else (r.scope, r.unit, r.window)
            groups.setdefault(key, []).append(each)
        return [self._group(group, priority) for group in groups.values()]

    def _group(self, group: list[BudgetRefusal], priority: int) -> str:
        r, asked = group[0].refusal, group[0].asked
        names = [each.worker for each in group]
        if r.never or not r.scope.startswith("worker:"):
            return f"{names_text(names, NAMED)}: {refusal_text(r, priority, asked, self._now)}"
        has = "has" if len(names) == 1 else "have"
        much = "no" if asked <= r.missing else "too few" if r.unit != "money" else "too little"
        rolling = rolling_minutes(r.window) > 0
        until = "" if rolling else f" until {self._moment(r.resets_at)}"
        how = f"{r.unit}/{r.window}" + (", rolling" if rolling else "")
        return f"{names_text(names, NAMED)} {has} {much} {r.unit} left{until} ({how})"

    def _moment(self, at: int) -> str:
        text = clock(at)[:5] if at - self._now < windows.DAY else iso(at)[:16].replace("T", " ")
        return f"{text} UTC"

    def _unserved(self, task: TaskRecord, place: str) -> str:
        keys = scopes.scope_keys("", task.agent, task.model, task.project)
        asked = estimates.ask(self._state, task, task.model, keys)
        refusal = budgets.refusal(self._state, keys, task.priority, asked, self._now)
        if refusal is not None and refusal.never:
            amount = asked[UNITS.index(refusal.unit)]
            return refusal_text(refusal, task.priority, amount, self._now)
        return "; ".join(x for x in (self._nobody(task), place) if x)

    def _nobody(self, task: TaskRecord) -> str:
        if task.given_worker:
            worker = self._state.workers.get(task.given_worker)
            if worker is None:
                return f"worker {task.given_worker} has not joined"
            how = "paused" if worker.status == ALIVE and worker.paused else worker.status
            if how != ALIVE:
                return f"worker {task.given_worker} is {how}"
        given = [
            name for letter, name in (("a", task.agent), ("m", task.model)) if letter in task.given
        ]
        why = f"no live worker serves {' with '.join(given)}" if given else "no live worker"
        alive = [w for w in self._state.workers.values() if w.status == ALIVE]
        paused = [w.name for w in alive if w.paused]
        notes = [_are("paused", paused)] if paused else []
        limited = sorted({account_of(w) for w in alive if is_limited(self._state, w)})
        notes += [
            f"{name} is limited by its provider until "
            f"{self._moment(self._state.accounts[name].until)}"
            for name in limited
        ]
        return f"{why} ({'; '.join(notes)})" if notes else why


def _nearest(refused: BudgetRefusal) -> tuple[bool, int, object]:
    return refused.refusal.never, refused.refusal.resets_at, natural(refused.worker)


def _are(what: str, names: Sequence[str]) -> str:
    return f"{names_text(names, NAMED)} {'is' if len(names) == 1 else 'are'} {what}"
