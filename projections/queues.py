"""Where open tasks wait: an index over their records, never encoded, rebuilt on loading.

Entries may be stale (a task ended, went to another queue, or a turn was rolled back); every use
checks them against the record. That keeps each change O(log n) and rollback trivial.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from projections.tasks import BACKOFF, QUEUED, RUNNING, TaskRecord

if TYPE_CHECKING:
    from projections.state import State


class QueueKey(NamedTuple):
    """Tasks of one queue are alike, in size within a power of two: who is tried first stands for
    the rest. A small task does not wait behind a large one that the budgets refuse."""

    priority: int
    agent: str
    model: str
    given: str
    worker: str
    project: str
    size: int


# The worker ends a task at its deadline itself; this much later (µs) the engine no longer waits.
TIMEOUT_GRACE = 60_000_000


def _most(state: State) -> int:
    """How long a heap may grow before its stale entries are thrown out."""
    return 1_000 + 4 * len(state.tasks)


def queue_key(task: TaskRecord) -> QueueKey:
    return QueueKey(
        task.priority,
        task.agent,
        task.model,
        task.given,
        task.given_worker,
        task.project,
        task.estimate.bit_length(),
    )


def _waits_in(state: State, task: TaskRecord, key: QueueKey) -> bool:
    return task.status == QUEUED and task.id not in state.never_fits and queue_key(task) == key


def wake_at(task: TaskRecord) -> int:
    """When a timer of ``task`` is due, µs."""
    return task.due + TIMEOUT_GRACE if task.status in RUNNING else task.due


class Pile:
    """Tasks to come back to, the oldest first whatever order they came in."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __iter__(self) -> Iterator[str]:
        """The ids, the oldest in front, the rest roughly by age."""
        return (task_id for _, task_id in self._heap)

    def add(self, state: State, task: TaskRecord) -> None:
        heapq.heappush(self._heap, (task.n, task.id))
        if len(self._heap) > _most(state):  # a reader adds and never takes: keep what is open
            self._heap = sorted({(n, t) for n, t in self._heap if t in state.tasks})

    def first(self, state: State, wanted: Callable[[TaskRecord], bool]) -> TaskRecord | None:
        """The oldest that is (still) wanted; drops what is stale."""
        while self._heap:
            n, task_id = self._heap[0]
            task = state.tasks.get(task_id)
            if task is not None and task.n == n and wanted(task):
                return task
            heapq.heappop(self._heap)
        return None


class Queues:
    """Heaps of waiting tasks by queue, and one of timers."""

    __slots__ = ("timers", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[QueueKey, list[tuple[int, int, str]]] = {}
        self.timers: list[tuple[int, str]] = []

    def add(self, state: State, task: TaskRecord) -> None:
        key = queue_key(task)
        heap = self.waiting.setdefault(key, [])
        heapq.heappush(heap, (task.rank, task.n, task.id))
        if len(heap) > _most(state):
            queued = [t for t in state.tasks.values() if t.status == QUEUED]
            heap[:] = [(t.rank, t.n, t.id) for t in queued if queue_key(t) == key]
            heapq.heapify(heap)

    def remind(self, state: State, task: TaskRecord) -> None:
        """Come back to ``task`` when it is due."""
        heapq.heappush(self.timers, (wake_at(task), task.id))
        if len(self.timers) > _most(state):
            timed = (BACKOFF, *RUNNING)
            self.timers = [(wake_at(t), t.id) for t in state.tasks.values() if t.status in timed]
            heapq.heapify(self.timers)

    def head(self, state: State, key: QueueKey) -> TaskRecord | None:
        """The task of this queue to try first, or None; drops what is stale."""
        heap = self.waiting.get(key, [])
        while heap:
            rank, n, task_id = heap[0]
            task = state.tasks.get(task_id)
            if (
                task is not None
                and (task.rank, task.n) == (rank, n)
                and _waits_in(state, task, key)
            ):
                return task
            heapq.heappop(heap)
        self.waiting.pop(key, None)
        return None

    def by_rank(self, state: State) -> list[tuple[int, int, QueueKey]]:
        """All queues with a head, the one to try first in front."""
        found = [(t.rank, t.n, k) for k in list(self.waiting) if (t := self.head(state, k))]
        heapq.heapify(found)
        return found

    def next_timer(self, state: State, now: int) -> TaskRecord | None:
        """A task whose backoff or time is over at ``now``; stale timers are dropped."""
        while self.timers and self.timers[0][0] <= now:
            due, task_id = self.timers[0]
            task = state.tasks.get(task_id)
            if task is not None and wake_at(task) == due and task.status in (BACKOFF, *RUNNING):
                return task
            heapq.heappop(self.timers)
        return None

    def next_due(self) -> int:
        """The earliest timer in µs, 0 when there is none (it may be stale)."""
        return self.timers[0][0] if self.timers else 0
