"""The delegator under its first name.

from services.task_delegator import get_delegator

result = get_delegator().delegate_task("Your task here")
result["agent"], result.model
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import msgspec

from services.delegator.classify import Delegation, Delegator

__all__ = ["TaskDelegation", "TaskDelegator", "get_delegator"]


class TaskDelegation(Mapping[str, object]):
    """A delegation which can be read by attribute and by key.

    ``task_type`` (the kind of work), ``agent``, ``model``, ``complexity``,
    ``estimated_tokens``, ``reasoning`` (why) and ``session_target`` (whose sessions take it: the
    agent's); beside them ``kind`` and ``reason``, which are the names on the log, and
    ``candidates``.
    """

    def __init__(self, delegation: Delegation) -> None:
        self.delegation = delegation
        self.kind = delegation.kind
        self.agent = delegation.agent
        self.model = delegation.model
        self.complexity = delegation.complexity
        self.estimated_tokens = delegation.estimated_tokens
        self.candidates = delegation.candidates
        self.reason = delegation.reason
        self.task_type = delegation.kind
        self.reasoning = delegation.reason
        self.session_target = delegation.agent

    def __getitem__(self, key: str) -> object:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __repr__(self) -> str:
        return repr(self.delegation)

    def to_dict(self) -> dict[str, object]:
        """Plain values, as JSON has them."""
        plain = msgspec.json.decode(msgspec.json.encode(self.delegation), type=dict[str, object])
        first = {name: getattr(self, name) for name in ("task_type", "reasoning", "session_target")}
        return {**plain, **first}


class TaskDelegator:
    """Asks the delegator; holds nothing of its own."""

    def __init__(self, delegator: Delegator | None = None) -> None:
        self._delegator = delegator or Delegator()

    def delegate_task(self, task: str, *, kind: str | None = None) -> TaskDelegation:
        """Where the task goes, and why."""
        return TaskDelegation(self._delegator.delegate(task, kind=kind))


@functools.cache
def get_delegator() -> TaskDelegator:
    """The shared instance."""
    return TaskDelegator()
