"""A worker and its newest session."""

from __future__ import annotations

import msgspec

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
