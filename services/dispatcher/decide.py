"""Dispatch: waiting tasks meet free workers, as far as the budgets allow. PURE."""

from __future__ import annotations

import heapq

from events.task import PRIORITIES, TaskDeferred, TaskDispatched
from projections import estimates, throttle
from projections.state import State
from projections.tasks import Task
from services.dispatcher import attempts, guard
from services.dispatcher.crew import Crew, Post
from services.turn import Decisions, Inputs, decided

BY = "dispatcher"
KEEP_ROOM_AFTER = 600_000_000  # µs: a task that waited this long at the head has room kept for it


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """End what is over, then start what may start."""
    yield from attempts.decide(state, now, inputs)
    yield from guard.decide(state, now)
    yield from dispatch(state, now)


def dispatch(state: State, now: int) -> Decisions:
    """Try the heads of the queues in order of rank; a head that may not start blocks its queue."""
    crew = Crew(state, now)
    if not crew.free:
        return
    heads = state.queues.by_rank(state)
    kept: dict[str, list[int]] = {}
    lowest = PRIORITIES.index(state.policy.min_priority)
    while heads and crew.free:
        _, _, key = heapq.heappop(heads)
        if key.priority < lowest:
            continue
        task = state.queues.head(state, key)
        if task is None:
            continue
        found = _admit(state, now, task, crew, kept)
        if isinstance(found, throttle.Refusal):
            if found.never:
                yield decided(TaskDeferred(task.id, in_words(found)), BY)
            else:
                if now - task.submitted_at >= KEEP_ROOM_AFTER:
                    _keep_room(state, task, kept)
                continue
        elif found is None:
            continue
        else:
            yield decided(found, BY)
            crew.took(found.worker)
        following = state.queues.head(state, key)
        if following is not None:
            heapq.heappush(heads, (following.rank, following.n, key))


def _admit(
    state: State, now: int, task: Task, crew: Crew, kept: dict[str, list[int]]
) -> TaskDispatched | throttle.Refusal | None:
    """The dispatch of ``task``, why the budgets refuse it, or None where no worker is free."""
    refusal: throttle.Refusal | None = None
    for post in crew.posts(task):
        keys = throttle.scope_keys(post.worker.name, post.agent, post.model, task.project)
        asked = estimates.ask(state, task, post.model, keys)
        refusal = throttle.refusal(state, keys, task.priority, asked, now, kept)
        if refusal is None:
            return _dispatched(task, post, asked, now)
        if not refusal.scope.startswith("worker:"):
            break  # another worker of the same route would be refused as well
    return refusal


def _dispatched(task: Task, post: Post, asked: tuple[int, int, int], now: int) -> TaskDispatched:
    return TaskDispatched(
        task.id,
        task.attempt + 1,
        post.worker.name,
        post.worker.session,
        post.agent,
        post.model,
        asked[0],
        asked[1],
        now + task.timeout_s * 1_000_000,
        post.why,
    )


def _keep_room(state: State, task: Task, kept: dict[str, list[int]]) -> None:
    """Later tasks of this turn leave room for ``task`` in the scopes it will touch in any case."""
    keys = throttle.scope_keys("", task.agent, task.model, task.project)
    asked = estimates.ask(state, task, task.model, keys)
    for key in keys:
        room = kept.setdefault(key, [0, 0, 0])
        for i in range(3):
            room[i] += asked[i]


def in_words(refusal: throttle.Refusal) -> str:
    """A refusal as a sentence: which limit, how much is missing."""
    r = refusal
    if r.never:
        return (
            f"it asks for more than the {r.unit}/{r.window} limit of {r.scope} "
            f"({r.limit:,}) ever allows at its priority"
        )
    return f"{r.unit}/{r.window} of {r.scope}: {r.missing:,} missing of {r.limit:,}"
