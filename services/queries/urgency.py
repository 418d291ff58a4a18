"""Workers by urgency: who needs a look first, on what evidence, and how old that is. PURE."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from projections import budgets, usage
from projections.accounts import account_of, is_limited
from projections.format import first_line
from projections.records import ALIVE, RUNNING, Cell, TaskRecord, Worker
from projections.state import State
from projections.windows import MINUTE
from services.queries.figures import natural

STALLED_US = 15 * MINUTE  # of work without any sign, though the agent may only think
GONE_ROWS = 20  # of those that left or were lost: the newest
ORDER = (
    *("asks", "stalled", "dead", "limited", "unknown", "paused", "working", "busy", "idle"),
    *("lost", "left"),
)
TITLE_MAX = 200


class WorkerRow(msgspec.Struct, frozen=True):
    """A worker. ``word``: one of ORDER. ``evidence``: what its last sign was, ``sign_age`` ago."""

    worker: str
    word: str
    agent: str
    model: str
    account: str
    capacity: int
    running: int
    task: str
    title: str
    attempt: int
    max_attempts: int
    evidence: str
    sign_age: int
    tokens: int
    cost_nanos: int
    tokens_hour: int
    held_tokens: int
    level: str
    completed: int
    failed: int
    session: str


def title_of(texts: Mapping[str, str], task: str) -> str:
    """What a task is about, on one line; "" where its prompt is not among ``texts``."""
    return first_line(texts.get(task, ""))[:TITLE_MAX]


def sign_of(state: State, task: TaskRecord) -> tuple[str, int]:
    """The last sign of a running task: what it was, and when (µs)."""
    signs = [(task.dispatched_at, "dispatched"), (task.started_at, "started")]
    signs += [(mark.at, "usage") for mark in task.marks[-1:]]
    if (document := state.progress.get(f"{task.run_agent}:{task.id}")) is not None:
        signs.append((document.at, "progress"))
    at, evidence = max(signs)
    return evidence, at


def worker_rows(state: State, now: int, texts: Mapping[str, str]) -> list[WorkerRow]:
    """Those that are here, the most urgent first; then the newest of those that are gone."""
    cells = usage.by(state.lifetime, "worker")
    rows = [
        _row(state, worker, cells.get(worker.name, Cell()), now, texts)
        for worker in state.workers.values()
    ]
    rows.sort(key=lambda row: (ORDER.index(row.word), -_stale(row), natural(row.worker)))
    here = [row for row in rows if row.word not in ("lost", "left")]
    gone = [row for row in rows if row.word in ("lost", "left")]
    return here + gone[:GONE_ROWS]


def _stale(row: WorkerRow) -> int:
    """Of those that are stalled the one without a sign for longest comes first."""
    return row.sign_age if row.word == "stalled" else 0


def _row(state: State, worker: Worker, cell: Cell, now: int, texts: Mapping[str, str]) -> WorkerRow:
    tasks = [state.tasks[name] for name in sorted(worker.running) if name in state.tasks]
    tasks = [task for task in tasks if task.status in RUNNING]
    signs = {task.id: sign_of(state, task) for task in tasks}
    oldest = min(tasks, key=lambda t: signs[t.id][1], default=None)
    evidence, at = signs[oldest.id] if oldest else ("joined", worker.joined_at)
    if worker.asks or worker.agent_since > at:
        evidence, at = worker.agent_by or "silence", worker.agent_since
    key = "worker:" + worker.name
    return WorkerRow(
        worker=worker.name,
        word=_word(state, worker, now - at if oldest else 0),
        agent=(oldest.run_agent if oldest else "") or worker.agent,
        model=(oldest.run_model if oldest else "") or worker.first_model,
        account=account_of(worker),
        capacity=worker.capacity,
        running=len(worker.running),
        task=oldest.id if oldest else "",
        title=title_of(texts, oldest.id) if oldest else "",
        attempt=oldest.attempt if oldest else 0,
        max_attempts=oldest.max_attempts if oldest else 0,
        evidence=evidence,
        sign_age=max(0, now - at),
        tokens=cell.tokens,
        cost_nanos=cell.nanos,
        tokens_hour=budgets.used(state, key, "hour", now).tokens,
        held_tokens=budgets.held(state, key, "tokens"),
        level=budgets.LEVELS[budgets.scope_level(state, key, now)],
        completed=worker.completed,
        failed=worker.failed,
        session=worker.session,
    )


def _word(state: State, worker: Worker, silent: int) -> str:
    if worker.status != ALIVE:
        return worker.status
    if worker.asks:
        return "asks"
    if worker.agent_state == "dead":
        return "dead"
    if worker.running and silent > STALLED_US:
        return "stalled"
    if is_limited(state, worker) or worker.agent_state == "limited":
        return "limited"
    if worker.running:
        return "working"
    if worker.paused:
        return "paused"
    # Busy with work that is not ours; unknown where nothing tells what it does.
    return worker.agent_state if worker.agent_state in ("busy", "unknown") else "idle"
