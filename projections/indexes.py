"""Where open tasks wait, and what there is to do about them: derived from their records, never
encoded.

A state makes them when somebody first asks, and keeps them up from then on: whoever only folds a
log, as a rebuild does, does not pay for them. Entries may be stale; every use checks them against
the record.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from projections.queues import Pile, Queues, Standing, bound
from projections.records import BACKOFF, QUEUED, RUNNING, SUBMITTED, TaskRecord, Worker


class Indexes:
    """Indexes over the open tasks."""

    def __init__(
        self,
        tasks: Mapping[str, TaskRecord],
        workers: Mapping[str, Worker],
        set_aside: Container[str],
    ) -> None:
        """``tasks`` are all that are open, ``set_aside`` those that no limit in force admits."""
        self._tasks, self._workers = tasks, workers
        self.queues = Queues(tasks, set_aside)
        self.standing = Standing(tasks.values())
        self.undelegated, self.orphans = Pile(tasks), Pile(tasks)
        self._overruns, self._escalations = Pile(tasks), Pile(tasks)
        self._refused: dict[str, None] = {}  # tasks that were refused to hold more
        for task in sorted(tasks.values(), key=lambda t: t.n):
            self.add(task)

    def add(self, task: TaskRecord) -> None:
        """Put ``task`` where its record says that it belongs."""
        if task.status in RUNNING:
            self.queues.remind(task)
            self.see_to_hold(task)
        elif task.status == QUEUED:
            self.queues.add(task)
        elif task.status == SUBMITTED:
            self.undelegated.add(task)
        elif task.status == BACKOFF:
            self.queues.remind(task)
            self._escalations.add(task)
        if self._is_orphan(task):
            self.orphans.add(task)

    def see_to_hold(self, task: TaskRecord) -> None:
        """A running ``task`` holds, or used, another amount than before."""
        if task.overruns:
            self._overruns.add(task)
        elif task.wants_more:
            self._refused[task.id] = None
            if len(self._refused) > bound(self._tasks):
                self.wanting_more()

    def next_undelegated(self) -> TaskRecord | None:
        """The oldest task without a route."""
        return self.undelegated.first(lambda task: task.status == SUBMITTED)

    def next_escalation(self) -> TaskRecord | None:
        """A task that used up its tries and waits for one on a more capable model."""
        return self._escalations.first(lambda task: task.status == BACKOFF and task.to_escalate)

    def next_orphan(self) -> TaskRecord | None:
        """A task whose attempt has no worker any more, or which can never run."""
        return self.orphans.first(self._is_orphan)

    def next_overrun(self) -> TaskRecord | None:
        """A running task that used more than it holds, and was not refused more yet."""
        return self._overruns.first(lambda task: task.overruns)

    def wanting_more(self) -> list[TaskRecord]:
        """Tasks that were refused to hold more and still want it, the oldest refusal in front; what
        is stale is forgotten."""
        if not self._refused:
            return []
        wanting = [
            task
            for name in self._refused
            if (task := self._tasks.get(name)) is not None and task.wants_more
        ]
        if len(wanting) < len(self._refused):
            self._refused = {task.id: None for task in wanting}
        return wanting

    def _is_orphan(self, task: TaskRecord) -> bool:
        if task.status not in RUNNING:
            return bool(task.never_fits) and task.status != SUBMITTED
        worker = self._workers.get(task.worker)
        return worker is None or task.id not in worker.running or worker.session != task.session
