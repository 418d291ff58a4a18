"""Whether somebody is there for a task that is for one agent only. PURE."""

from __future__ import annotations

from projections.records import ALIVE
from projections.state import State


def nobody_is(state: State, agent: str) -> str:
    """What whoever asks for ``agent`` should know at once: that no living worker says it is this
    agent, and what follows; "" where one does."""
    alive = [worker for worker in state.workers.values() if worker.status == ALIVE]
    if any(worker.agent == agent for worker in alive):
        return ""
    if any(not worker.agent for worker in alive):
        return f"no worker says it is {agent}: one that serves every agent takes it"
    return f"no worker of {agent} has joined: it waits for one"
