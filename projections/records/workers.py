"""A worker and its newest session."""

from __future__ import annotations

import msgspec

from events.worker import PERMISSION, serves_model

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
    cheap: str = ""  # its agent's models for the two tiers of the routes, where it names them
    capable: str = ""
    # What its agent says of itself, since when (µs) and by whose word; "" where none does.
    agent_state: str = ""
    agent_since: int = 0
    agent_by: str = ""
    agent_about: str = ""

    @property
    def asks(self) -> bool:
        """Whether its agent waits for a person's permission."""
        return self.status == ALIVE and self.agent_state == PERMISSION

    @property
    def free(self) -> int:
        return self.capacity - len(self.running) if self.status == ALIVE and not self.paused else 0

    def serves(self, agent: str, model: str) -> bool:
        return self.is_agent(agent) and serves_model(self.models, model)

    @property
    def first_model(self) -> str:
        """The first model that it names in full, "" where it names none."""
        return next((model for model in self.models if "*" not in model), "")

    def is_agent(self, agent: str) -> bool:
        return not self.agent or self.agent == agent

    def model_for(self, model: str, *, cheap: bool) -> str:
        """The model it would use for a route to ``model``: that one, else its own of the same tier;
        "" where it has none."""
        if serves_model(self.models, model):
            return model
        return self.cheap if cheap else self.capable
