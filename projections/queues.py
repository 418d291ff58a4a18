"""Where open tasks wait: an index over their records, never encoded, rebuilt on loading.

Entries may be stale (a task ended, went to another queue, or a turn was rolled back); every use
checks them against the record. That keeps each change O(log n) and rollback trivial.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from projections.records import BACKOFF, QUEUED, RUNNING, TaskRecord

Tasks: TypeAlias = Mapping[str, TaskRecord]


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


# Rank and number of a task, which order it, its queue and its record.
Head: TypeAlias = tuple[int, int, QueueKey, TaskRecord]

# The worker ends a task at its deadline itself; this much later (µs) the engine no longer waits.
TIMEOUT_GRACE = 60_000_000


def bound(tasks: Tasks) -> int:
    """How long a heap may grow before its stale entries are thrown out."""
    return 1_000 + 4 * len(tasks)


def queue_key(task: TaskRecord) -> QueueKey:
    return QueueKey(*_alike(task))


def _alike(task: TaskRecord) -> tuple[int, str, str, str, str, str, int]:
    """A queue's key as a plain tuple, which is equal to it and made in half the time."""
    return (
        task.priority,
        task.agent,
        task.model,
        task.given,
        task.given_worker,
        task.project,
        task.estimate.bit_length(),
    )


def wake_at(task: TaskRecord) -> int:
    """When a timer of ``task`` is due, µs."""
    return task.due + TIMEOUT_GRACE if task.status in RUNNING else task.due


class Pile:
    """Tasks to come back to, the oldest first whatever order they came in."""

    __slots__ = ("_heap", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        """``tasks`` are all that are open."""
        self._tasks = tasks
        self._heap: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __iter__(self) -> Iterator[str]:
        """The ids, the oldest in front, the rest roughly by age."""
        return (task_id for _, task_id in self._heap)

    def add(self, task: TaskRecord) -> None:
        heapq.heappush(self._heap, (task.n, task.id))
        if len(self._heap) > bound(self._tasks):  # a reader adds and never takes: keep the open
            self._heap = sorted({(n, t) for n, t in self._heap if t in self._tasks})

    def first(self, wanted: Callable[[TaskRecord], bool]) -> TaskRecord | None:
        """The oldest that is (still) wanted; drops what is stale."""
        while self._heap:
            n, task_id = self._heap[0]
            task = self._tasks.get(task_id)
            if task is not None and task.n == n and wanted(task):
                return task
            heapq.heappop(self._heap)
        return None


class Queues:
    """Heaps of waiting tasks by queue, and one of timers."""

    __slots__ = ("_set_aside", "_tasks", "timers", "waiting")

    def __init__(self, tasks: Tasks, set_aside: Container[str]) -> None:
        """``tasks`` are all that are open, ``set_aside`` those that no limit in force admits."""
        self._tasks, self._set_aside = tasks, set_aside
        self.waiting: dict[QueueKey, list[tuple[int, int, str]]] = {}
        self.timers: list[tuple[int, str]] = []

    def add(self, task: TaskRecord) -> None:
        key = queue_key(task)
        heap = self.waiting.setdefault(key, [])
        heapq.heappush(heap, (task.rank, task.n, task.id))
        if len(heap) > bound(self._tasks):
            queued = [t for t in self._tasks.values() if t.status == QUEUED]
            heap[:] = [(t.rank, t.n, t.id) for t in queued if queue_key(t) == key]
            heapq.heapify(heap)

    def remind(self, task: TaskRecord) -> None:
        """Come back to ``task`` when it is due."""
        heapq.heappush(self.timers, (wake_at(task), task.id))
        if len(self.timers) > bound(self._tasks):
            timed = (BACKOFF, *RUNNING)
            self.timers = [(wake_at(t), t.id) for t in self._tasks.values() if t.status in timed]
            heapq.heapify(self.timers)

    def head(self, key: QueueKey) -> TaskRecord | None:
        """The task of this queue to try first, or None; drops what is stale."""
        heap = self.waiting.get(key, [])
        while heap:
            rank, n, task_id = heap[0]
            task = self._tasks.get(task_id)
            if task is not None and (task.rank, task.n) == (rank, n) and self._waits_in(task, key):
                return task
            heapq.heappop(heap)
        self.waiting.pop(key, None)
        return None

    def _waits_in(self, task: TaskRecord, key: QueueKey) -> bool:
        return task.status == QUEUED and task.id not in self._set_aside and _alike(task) == key

    def by_rank(self) -> list[Head]:
        """The heads of all queues, as a heap: the one to try first in front."""
        heads = [(t.rank, t.n, k, t) for k in list(self.waiting) if (t := self.head(k))]
        heapq.heapify(heads)
        return heads

    def next_timer(self, now: int) -> TaskRecord | None:
        """A task whose backoff or time is over at ``now``; stale timers are dropped."""
        while self.timers and self.timers[0][0] <= now:
            due, task_id = self.timers[0]
            task = self._tasks.get(task_id)
            if task is not None and wake_at(task) == due and task.status in (BACKOFF, *RUNNING):
                return task
            heapq.heappop(self.timers)
        return None

    def next_due(self) -> int:
        """The earliest timer in µs, 0 when there is none (it may be stale)."""
        return self.timers[0][0] if self.timers else 0


class Standing:
    """How many open tasks are in each status, by priority: kept as they move, so that nobody has to
    walk them."""

    __slots__ = ("counts",)

    def __init__(self, tasks: Iterable[TaskRecord] = ()) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        for task in tasks:
            self.enter(task)

    def enter(self, task: TaskRecord) -> None:
        key = (task.status, task.priority)
        self.counts[key] = self.counts.get(key, 0) + 1

    def leave(self, task: TaskRecord) -> None:
        self.counts[task.status, task.priority] -= 1

    def in_status(self, *statuses: str) -> int:
        """How many tasks are in any of these."""
        return sum(n for (status, _), n in self.counts.items() if status in statuses)
