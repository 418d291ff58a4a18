"""What the log says of a period beyond sums: dearest tasks, failures, waits. PURE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import nlargest

import msgspec

from events.envelope import Event, text_of
from events.task import Charge

NO_WORDS = "(what it said is not kept any more)"
ENDS = ("task.completed", "task.failed", "task.cancelled", "task.requeued")


class Spent(msgspec.Struct):
    """What one task cost in the period, over all its attempts."""

    task: str
    tokens: int = 0
    nanos: int = 0
    agent: str = ""
    model: str = ""
    kind: str = ""


class Failure(msgspec.Struct):
    """Attempts that failed with the same words. ``final``: how many of them were the last."""

    error: str
    count: int = 0
    final: int = 0
    task: str = ""  # the newest


class WaitTimes(msgspec.Struct):
    """From submission to the first dispatch, µs, of the tasks submitted in the period."""

    count: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0
    longest_task: str = ""


class Facts(msgspec.Struct):
    """All of them. ``requeued`` attempts were taken from their worker; ``deferred`` tasks can
    never fit the limits as they are."""

    dearest: list[Spent] = []
    failures: list[Failure] = []
    waits: WaitTimes = msgspec.field(default_factory=WaitTimes)
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    requeued: int = 0
    deferred: int = 0


class Collector:
    """Folds the events of a period, ``start`` to ``end`` (half-open, µs of server time)."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end
        self._facts = Facts()
        self._submitted: dict[str, int] = {}
        self._waits: list[tuple[int, str]] = []
        self._spent: dict[str, Spent] = {}
        self._failures: dict[str, Failure] = {}
        self._counts: Counter[str] = Counter()

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._book(event)
            if self._start <= event.at < self._end:
                self._count(event)

    def _book(self, event: Event) -> None:
        """Usage counts on the day it is charged on, as in the report itself."""
        payload = event.data
        charged: Charge | None = getattr(payload, "charged", None)
        task: str = getattr(payload, "task", "")
        if charged is None or not task or not (charged.tokens or charged.nanos):
            return
        if self._start <= (charged.day_at or charged.window_at or event.at) < self._end:
            spent = self._spent.setdefault(task, Spent(task))
            spent.tokens += charged.tokens
            spent.nanos += charged.nanos
            spent.agent, spent.model, spent.kind = charged.agent, charged.model, charged.kind

    def _count(self, event: Event) -> None:
        payload, kind = event.data, event.data.type
        task: str = getattr(payload, "task", "")
        self._counts[kind] += 1
        if kind == "task.submitted":
            self._submitted[task] = event.at
        elif kind == "task.dispatched":
            since = self._submitted.pop(task, None)
            if since is not None:
                self._waits.append((event.at - since, task))
        elif kind in ENDS and not payload.stale:
            self._end_of(kind, event)

    def _end_of(self, kind: str, event: Event) -> None:
        facts, payload = self._facts, event.data
        facts.completed += kind == "task.completed"
        facts.cancelled += kind == "task.cancelled"
        facts.requeued += kind == "task.requeued"
        if kind == "task.failed":
            final = not payload.retry_at
            facts.failed += final
            words = " ".join(text_of(event, "error").split())[:200] or NO_WORDS
            failure = self._failures.setdefault(words, Failure(words))
            failure.count += 1
            failure.final += final
            failure.task = payload.task

    def facts(self, count: int = 10) -> Facts:
        """What was found; lists with their ``most`` first entries."""
        facts = self._facts
        facts.submitted = self._counts["task.submitted"]
        facts.deferred = self._counts["task.deferred"]
        facts.dearest = nlargest(count, self._spent.values(), key=lambda s: (s.nanos, s.tokens))
        facts.failures = nlargest(count, self._failures.values(), key=lambda f: f.count)
        if self._waits:
            waits = sorted(self._waits)
            count = len(waits)
            facts.waits = WaitTimes(
                count,
                waits[(count - 1) // 2][0],
                waits[(95 * count + 99) // 100 - 1][0],
                *waits[-1],
            )
        return facts
