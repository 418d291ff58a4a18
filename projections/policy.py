"""The policy in force: the last ``policy.changed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.envelope import Event
from events.money import Price

if TYPE_CHECKING:
    from projections.state import State


def changed(state: State, event: Event) -> None:
    """Another policy; what could never fit under the old one is tried again."""
    state.set_policy(event.data)
    for task in state.tasks.values():
        if task.deferred:
            state.undo.touch(task)
            task.deferred = False
            state.index(task)


def price_of(state: State, model: str) -> Price | None:
    """The price of ``model``, None when the book does not know it (unknown is not zero)."""
    return state.policy.prices.get(model)
