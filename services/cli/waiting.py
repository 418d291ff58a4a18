"""Why a task waits, computed when asked, with the dispatcher's own checks. PURE."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property

from events.task import PRIORITIES
from projections import estimates, throttle
from projections.state import State
from projections.tasks import BACKOFF, BLOCKED, QUEUED, RUNNING, SUBMITTED, Task
from projections.workers import ALIVE, Worker
from services.cli.words import count, refusal_text, span
from services.dispatcher.crew import Crew


class Waiting:
    """Answers for one state at one moment."""

    def __init__(self, state: State, now: int) -> None:
        self._state, self._now = state, now
        self._crew = Crew(state, now)

    @cached_property
    def _ranks(self) -> list[tuple[int, int]]:
        return sorted((t.rank, t.n) for t in self._state.tasks.values() if t.status == QUEUED)

    def position(self, task: Task) -> int:
        """Its place in the order of trying, from 1; 0 when it is not in the queue."""
        if task.status != QUEUED:
            return 0
        return bisect_left(self._ranks, (task.rank, task.n)) + 1

    def reason(self, task: Task) -> str:
        """Why ``task`` does not run yet, "" when it does."""
        if task.status in RUNNING:
            return ""
        if task.doomed:
            return task.doomed
        if task.status == SUBMITTED:
            return "it has no route yet"
        if task.status == BLOCKED:
            first, *others = task.after
            return f"after {first}" + (f" (+{len(others)})" if others else "")
        if task.status == BACKOFF:
            again = f"attempt {task.attempt + 1} of {task.max_attempts}"
            return f"{again} in {span(task.due - self._now)}: {task.last_error}"
        return self._queued(task)

    def _queued(self, task: Task) -> str:
        lowest = self._state.policy.min_priority
        if task.priority < PRIORITIES.index(lowest):
            return f"the policy admits only {lowest} priority and above"
        serving = self._serving(task)
        refusal = self._refusal(task, serving)
        if refusal is not None and (refusal.never or serving):
            return refusal_text(refusal, task.priority, self._now)
        place = f"number {self.position(task):,} in the queue"
        if not serving:
            return f"{self._nobody(task)}; {place}"
        if not any(self._crew.posts(task)):
            return f"no free worker ({count(len(serving), 'serves', 'serve')} it); {place}"
        return place

    def _refusal(self, task: Task, serving: list[Worker]) -> throttle.Refusal | None:
        """The limit that refuses every worker that could take it now, or any worker at all."""
        state, now = self._state, self._now
        found: throttle.Refusal | None = None
        for post in self._crew.posts(task):
            keys = throttle.scope_keys(post.worker.name, post.agent, post.model, task.project)
            asked = estimates.ask(state, task, post.model, keys)
            found = throttle.refusal(state, keys, task.priority, asked, now)
            if found is None:
                return None
        if found is not None or any(w.free > 0 for w in serving):
            return found
        keys = throttle.scope_keys("", task.agent, task.model, task.project)
        asked = estimates.ask(state, task, task.model, keys)
        return throttle.refusal(state, keys, task.priority, asked, now)

    def _serving(self, task: Task) -> list[Worker]:
        """Live workers that could take it: routes are preferences, what the user gave is not."""
        return [
            w
            for w in self._state.workers.values()
            if w.status == ALIVE
            and not w.paused
            and (not task.given_worker or w.name == task.given_worker)
            and ("a" not in task.given or not w.agent or w.agent == task.agent)
            and ("m" not in task.given or not w.models or task.model in w.models)
        ]

    def _nobody(self, task: Task) -> str:
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
        return f"no live worker serves {' with '.join(given)}" if given else "no live worker"
