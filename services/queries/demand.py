"""What a bus would use if its limits let it: what its waiting tasks ask for. PURE."""

from __future__ import annotations

from events.policy import UNITS
from events.task import PRIORITIES
from projections import budgets, estimates
from projections.shares import SCOPE
from projections.state import State
from services.dispatcher.placement import Placement


def committed(state: State, unit: str, window: str, now: int) -> int:
    """What is used and held of everything in the window of ``now``."""
    use = budgets.used(state, SCOPE, window, now).of(unit)
    return use + budgets.held(state, SCOPE, unit)


def wanted(state: State, unit: str, window: str, now: int) -> int:
    """The least limit under which as many waiting tasks could start as there are free workers.

    The tasks of one queue are taken for as large as its head: they are alike within a power of two.
    """
    placement = Placement(state, now)
    amount = least = committed(state, unit, window, now)
    free, lowest = placement.free, PRIORITIES.index(state.policy.min_priority)
    for *_, key, task in sorted(state.indexes.queues.by_rank()):
        if free <= 0:
            break
        if key.priority < lowest:
            continue
        posts = placement.posts(task)
        if not posts:
            continue
        number = min(free, len(state.indexes.queues.waiting[key]))
        amount += number * estimates.ask(state, task, posts[0].model, ())[UNITS.index(unit)]
        least = max(least, budgets.least_limit(task.priority, amount))
        free -= number
    return least
