"""Where open tasks wait: an index over their records, never encoded, rebuilt when a state is loaded.

Entries may be stale (a task ended, went to another queue, or a turn was rolled back); every use
checks them against the record. That keeps each change O(log n) and rollback trivial.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from projections.tasks import BACKOFF, QUEUED, RUNNING, Task

if TYPE_CHECKING:
    from projections.state import State


class QueueKey(NamedTuple):
    """Tasks of one queue differ in size only: who is tried first stands for the rest."""

    priority: int
    agent: str
    model: str
    given: str
    worker: str
    project: str


def queue_key(task: Task) -> QueueKey:
    return QueueKey(
        task.priority, task.agent, task.model, task.given, task.given_worker, task.project
    )


class Queues:
    """Heaps of waiting tasks by queue, and one of timers."""

    __slots__ = ("heads", "timers", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[QueueKey, list[tuple[int, int, str]]] = {}
        self.timers: list[tuple[int, str, str]] = []
        self.heads: dict[QueueKey, tuple[str, int]] = {}  # queue -> head, at its head since (µs)

    def add(self, task: Task) -> None:
        heap = self.waiting.setdefault(queue_key(task), [])
        heapq.heappush(heap, (task.rank, task.n, task.id))

    def remind(self, task: Task) -> None:
        """Come back to ``task`` when it is due."""
        heapq.heappush(self.timers, (task.due, task.status, task.id))

    def head(self, state: State, key: QueueKey) -> Task | None:
        """The task of this queue to try first, or None; drops what is stale."""
        heap = self.waiting.get(key, [])
        while heap:
            task = state.tasks.get(heap[0][2])
            if task is not None and task.status == QUEUED and task.n == heap[0][1]:
                if queue_key(task) == key:
                    return task
            heapq.heappop(heap)
        self.waiting.pop(key, None)
        return None

    def by_rank(self, state: State) -> list[tuple[int, int, QueueKey]]:
        """All queues with a head, the one to try first in front."""
        found = [(t.rank, t.n, k) for k in list(self.waiting) if (t := self.head(state, k))]
        heapq.heapify(found)
        return found

    def due(self, state: State, now: int) -> Iterator[Task]:
        """Tasks whose backoff or time is over. What is yielded stays until its record changes."""
        again: list[tuple[int, str, str]] = []
        try:
            while self.timers and self.timers[0][0] <= now:
                entry = heapq.heappop(self.timers)
                task = state.tasks.get(entry[2])
                if task is None or task.due != entry[0] or task.status not in (BACKOFF, *RUNNING):
                    continue
                again.append(entry)
                yield task
        finally:
            for entry in again:
                task = state.tasks.get(entry[2])
                if task is not None and task.due == entry[0]:
                    heapq.heappush(self.timers, entry)

    def next_due(self) -> int:
        """The earliest timer in µs, 0 when there is none (it may be stale)."""
        return self.timers[0][0] if self.timers else 0
