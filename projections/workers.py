"""Workers as the log knows them: sessions, capacity, what each runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event

if TYPE_CHECKING:
    from projections.state import State

ALIVE, LEFT, LOST = "alive", "left", "lost"


class Worker(msgspec.Struct, array_like=True, gc=False):
    """A name and its newest session. ``running`` maps task to attempt; ``joined_at`` is µs."""

    name: str
    session: str
    agent: str = ""  # "" serves all agents
    models: tuple[str, ...] = ()
    capacity: int = 1
    account: str = ""
    lease_s: int = 60
    heartbeat: bool = True
    instance: str = ""
    status: str = ALIVE
    paused: bool = False
    joined_at: int = 0
    running: dict[str, int] = {}
    last_kind: str = ""
    dispatched: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def free(self) -> int:
        return self.capacity - len(self.running) if self.status == ALIVE and not self.paused else 0

    def serves(self, agent: str, model: str) -> bool:
        return (not self.agent or self.agent == agent) and (not self.models or model in self.models)


def joined(state: State, event: Event) -> None:
    """A session opens; what an earlier one of the same name held becomes orphaned, except the
    attempts the worker says, with evidence, it still runs."""
    payload = event.data
    old = state.workers.get(payload.worker)
    worker = Worker(
        payload.worker,
        payload.session,
        payload.agent or "",
        payload.models,
        payload.capacity,
        payload.account or "",
        payload.lease_s,
        payload.heartbeat,
        payload.instance,
        joined_at=event.at,
        running={},
    )
    if old is not None:
        worker.paused = old.paused
        worker.completed, worker.failed = old.completed, old.failed
        worker.dispatched, worker.last_kind = old.dispatched, old.last_kind
        kept = {h.task: h.attempt for h in payload.holds if h.evidence}
        for task_id, attempt in old.running.items():
            task = state.tasks[task_id]
            if kept.get(task_id) == attempt:
                state.journal.touch(task)
                task.session = payload.session
                worker.running[task_id] = attempt
            else:
                state.orphans.add(state, task)
    state.journal.put(state.workers, payload.worker, worker)


def ended(state: State, event: Event) -> None:
    """``worker.left`` and ``worker.lost``: the session is over, what it ran is orphaned."""
    payload = event.data
    worker = state.workers.get(payload.worker)
    if worker is None or (payload.session and payload.session != worker.session):
        return
    state.journal.touch(worker)
    worker.status = LEFT if payload.type == "worker.left" else LOST
    for task_id in worker.running:
        state.orphans.add(state, state.tasks[task_id])
    worker.running = {}


def paused(state: State, event: Event) -> None:
    _pause(state, event, True)


def resumed(state: State, event: Event) -> None:
    _pause(state, event, False)


def intake_opened(state: State, event: Event) -> None:
    """An intake of somebody's own is read from its beginning."""
    if event.data.intake not in state.intakes:
        state.journal.put(state.intakes, event.data.intake, "0-0")


def _pause(state: State, event: Event, value: bool) -> None:
    worker = state.workers.get(event.data.worker)
    if worker is not None:
        state.journal.touch(worker)
        worker.paused = value
