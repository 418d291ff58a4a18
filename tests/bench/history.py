"""A long log without an engine: the four events of each task, in turns as an engine appends
them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from events.envelope import Payload, Reported, encode
from events.keys import Keys
from events.log import NAMED
from events.policy import PolicyChanged
from events.task import (
    Candidate,
    Charge,
    TaskCompleted,
    TaskDelegated,
    TaskDispatched,
    TaskSubmitted,
)
from events.worker import WorkerJoined, WorkerLeft
from services.store.client import SyncClient
from tests.bench.titles import titles

A_TURN = 50  # tasks submitted, delegated and dispatched, and as many completed
Command = tuple[str | bytes | int, ...]
SPAN_US = 86_400_000_000  # the history lies within the last day, as buckets see it
WORKERS = 5
SECRET = b"5" * 64
ROUTES = (("codex", "sonnet", "coding"), ("claude", "haiku", "documentation"))


class History:
    """Writes ever more of one history."""

    def __init__(
        self,
        client: SyncClient,
        keys: Keys,
        events: int,
        policy: PolicyChanged,
        *,
        indexed: bool = False,
    ) -> None:
        self._client, self._keys, self._indexed = client, keys, indexed
        self._step = SPAN_US // (events // (4 * A_TURN) + 1_000)
        self._at = time.time_ns() // 1000 - SPAN_US
        self._tasks = 0
        self._ended = 0
        self.events = 0
        self._append([(policy, ""), *((_joined(n), f"intake 1-{n}") for n in range(WORKERS))])

    def grow(self, events: int) -> None:
        """Append about ``events`` more."""
        goal = self.events + events
        while self.events < goal:
            self._append(list(self._turn()))

    def rest(self, waiting: int) -> None:
        """What runs is completed, the workers leave, and ``waiting`` tasks have their route."""
        main = self._keys.main_intake
        for first in range(self._ended, self._tasks, A_TURN):
            last = min(first + A_TURN, self._tasks)
            self._append([(_completed(n), f"{main} 2-{2 * n + 1}") for n in range(first, last)])
        self._ended = self._tasks
        self._append([(WorkerLeft(*_worker(n)), f"intake 2-{n}") for n in range(WORKERS)])
        first, self._tasks = self._tasks, self._tasks + waiting
        for start in range(first, self._tasks, A_TURN):
            new = range(start, min(start + A_TURN, self._tasks))
            reported = zip(new, titles(len(new), start), strict=True)
            self._append([(TaskSubmitted(_task(n), t), f"{main} 2-{2 * n}") for n, t in reported])
            self._append([(_delegated(n), "") for n in new])

    def _turn(self) -> Iterator[tuple[Payload | bytes, str]]:
        first = self._tasks
        self._tasks += A_TURN
        new = range(first, self._tasks)
        for n in range(self._ended, first):
            yield _completed(n), f"{self._keys.main_intake} 2-{2 * n + 1}"
        self._ended = first
        for n, text in zip(new, titles(A_TURN, first), strict=True):
            yield TaskSubmitted(_task(n), text), f"{self._keys.main_intake} 2-{2 * n}"
        for n in new:
            yield _delegated(n), ""
        for n in new:
            yield _dispatched(n, self._at), ""

    def _append(self, events: list[tuple[Payload | bytes, str]]) -> None:
        self._at += self._step
        log, at, ms = self._keys.log, self._at, self._at // 1000
        commands = [
            _entry(log, f"{ms}-{n}", at, payload, origin, named=not self.events and n == 0)
            for n, (payload, origin) in enumerate(events)
        ]
        if self._indexed:
            commands += self._indexes(ms, [payload for payload, _ in events])
        self._client.pipeline(commands)
        self.events += len(events)

    def _indexes(self, ms: int, payloads: list[Payload | bytes]) -> list[Command]:
        """The task index, as the append script keeps it."""
        found: dict[str, list[str]] = {}
        for n, payload in enumerate(payloads):
            task = _END.decode(payload).task if isinstance(payload, bytes) else ""
            task = task or getattr(payload, "task", "")
            if task:
                found.setdefault(task, []).append(f"{ms}-{n}")
        return [("RPUSH", self._keys.task_index(task), *ids) for task, ids in found.items()]


class _End(msgspec.Struct):
    task: str


_END = msgspec.json.Decoder(_End)


def _entry(
    log: str, place: str, at: int, payload: Payload | bytes, origin: str, *, named: bool
) -> Command:
    """One event; ``named``: the log's first, which carries its name."""
    kind, raw = (
        (payload.type, encode(payload, SECRET))
        if isinstance(payload, Payload)
        else (TaskCompleted.type, payload)
    )
    source = origin.partition(" ")[0] or "dispatcher"
    fields = (
        "type",
        kind,
        "id",
        NAMED + "bench" if named else place,
        "source",
        source,
        "from",
        origin,
        "at",
        at,
        "data",
        raw,
    )
    return "XADD", log, place, *fields


def _task(n: int) -> str:
    return f"1795330000000-{n}"


def _worker(n: int) -> tuple[str, str]:
    return f"w{n % WORKERS}", f"1795329999999-{n % WORKERS}"


def _joined(n: int) -> WorkerJoined:
    name, session = _worker(n)
    return WorkerJoined(name, session, capacity=200)


def _delegated(n: int) -> TaskDelegated:
    agent, model, kind = ROUTES[n % 2]
    words = f"“fix” and “crash” speak for {kind}: {agent} with {model}, worth sonnet"
    found = (Candidate(kind, agent, model, 40), Candidate("testing", "codex", "sonnet", 12))
    return TaskDelegated(_task(n), kind, agent, model, "medium", 1012, words, found)


def _dispatched(n: int, at: int) -> TaskDispatched:
    agent, model, _ = ROUTES[n % 2]
    end = at + 7_200_000_000
    return TaskDispatched(_task(n), 1, *_worker(n), agent, model, 1012, 15_180_000, end)


def _completed(n: int) -> bytes:
    agent, model, kind = ROUTES[n % 2]
    name, session = _worker(n)
    charged = Charge(
        agent,
        model,
        name,
        kind=kind,
        input_tokens=600,
        output_tokens=240,
        tokens=840,
        nanos=12_600_000,
        tasks=1,
        book=1,
        meter="driver",
    )
    words = {"result": "done", "usage": {"input_tokens": 600, "output_tokens": 240}}
    numbers = Reported(600, 240, duration_ms=812)
    return encode(TaskCompleted(_task(n), 1, session, False, charged), SECRET, words, {}, numbers)
