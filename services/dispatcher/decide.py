"""Dispatch: waiting tasks meet free workers, as far as the budgets allow. PURE."""

from __future__ import annotations

import heapq

import msgspec

from events.policy import UNITS
from events.task import PRIORITIES, TaskDeferred, TaskDispatched
from projections import budgets, estimates, scopes
from projections.records import TaskRecord
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided
from services.dispatcher import accounts, attempts, overruns
from services.dispatcher.placement import Placement, Post

BY = "dispatcher"
NEVER_FITS_MAX = 2_000  # tasks a turn sets aside; what stands behind them is looked at in the next
KEEP_ROOM_AFTER = 600_000_000  # µs: a task that waited this long at the head has room kept for it


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """End what is over, then start what may start."""
    yield from attempts.decide(state, now, inputs)
    yield from accounts.decide(state, now)
    yield from overruns.decide(state, now)
    yield from dispatch(state, now)


def dispatch(state: State, now: int) -> Decisions:
    """Try the heads of the queues in order of rank; a head that may not start blocks its queue."""
    placement = Placement(state, now)
    if not placement.free:
        return
    heads = state.indexes.queues.by_rank()
    kept: dict[str, list[int]] = {}
    lowest = PRIORITIES.index(state.policy.min_priority)
    looks = NEVER_FITS_MAX
    while heads and placement.free and looks:
        _, _, key, task = heapq.heappop(heads)
        if key.priority < lowest:
            continue
        answer = _admit(state, now, task, placement, kept)
        if isinstance(answer, Waits):
            if answer.never:
                yield from _set_aside(state, task, answer.refusal)
                looks -= 1
            else:
                if now - task.submitted_at >= KEEP_ROOM_AFTER:
                    _keep_room(state, now, task, kept)
                continue
        elif answer is None:
            continue
        else:
            yield decided(answer, BY)
            placement.took(answer.worker)
        following = state.indexes.queues.head(key)
        if following is not None:
            heapq.heappush(heads, (following.rank, following.n, key, following))


def _set_aside(state: State, task: TaskRecord, refusal: budgets.Refusal) -> Decisions:
    """No limit in force will ever admit ``task``: it is tried again under another policy.

    That is said once a task and limit, and not at all where a change of the policy made it so: the
    change is on the log, and an event for each task that waits would bury everything else.
    """
    state.set_aside(task)
    limit = f"{refusal.unit}/{refusal.window} of {refusal.scope}"
    if task.n > state.meta.policy_after and limit not in task.deferred:
        yield decided(TaskDeferred(task.id, in_words(refusal), limit), BY)


def never_fits(state: State, task: TaskRecord, placement: Placement, now: int) -> bool:
    """Whether no limit in force will ever admit ``task``, as far as the free workers tell."""
    if task.id in state.never_fits:
        return True
    answer = _admit(state, now, task, placement, {})
    return isinstance(answer, Waits) and answer.never


class Waits(msgspec.Struct, frozen=True, gc=False):
    """Why the budgets refuse a task; ``never``: no worker could ever take it under this policy."""

    refusal: budgets.Refusal
    never: bool


def _admit(
    state: State, now: int, task: TaskRecord, placement: Placement, kept: dict[str, list[int]]
) -> TaskDispatched | Waits | None:
    """The dispatch of ``task``, why the budgets refuse it, or None where no worker is free."""
    waits: Waits | None = None
    full: set[str] = set()  # scopes that refused: other workers in them would be refused as well
    for post in placement.posts(task):
        keys = scopes.scope_keys(post.worker.name, post.agent, post.model, task.project)
        if not full.isdisjoint(keys):
            continue
        asked = estimates.ask(state, task, post.model, keys)
        refusal = budgets.refusal(state, keys, task.priority, asked, now, kept)
        if refusal is None:
            return _dispatched(task, post, asked, now)
        full.add(refusal.scope)
        waits = Waits(refusal, refusal.never and _is_hopeless(state, task, post, refusal, asked))
        if waits.never:
            break
    return waits


def _is_hopeless(
    state: State,
    task: TaskRecord,
    post: Post,
    refusal: budgets.Refusal,
    asked: tuple[int, int, int],
) -> bool:
    """Whether what never fits here fits nowhere: not on another worker, nor on the task's own
    route when that has workers again."""
    kind = refusal.scope.partition(":")[0]
    if post.why and (kind in ("agent", "model") or refusal.unit == "money"):
        return False
    if kind != "worker" or task.given_worker:
        return True
    alike = [
        limit
        for limit in state.policy.limits
        if limit.scope.partition(":")[0] == "worker"
        and (limit.unit, limit.window) == (refusal.unit, refusal.window)
    ]
    asked_for = asked[UNITS.index(refusal.unit)]
    return any(limit.scope == "worker" for limit in alike) and all(
        asked_for > budgets.gate(task.priority, limit.amount) for limit in alike
    )


def _dispatched(
    task: TaskRecord, post: Post, asked: tuple[int, int, int], now: int
) -> TaskDispatched:
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


def _keep_room(state: State, now: int, task: TaskRecord, kept: dict[str, list[int]]) -> None:
    """Later tasks of this turn leave room for ``task`` in the scopes it will touch in any case,
    if it only waits for what others hold: where settled use keeps it out, nobody shall wait."""
    keys = scopes.scope_keys("", task.agent, task.model, task.project)
    asked = estimates.ask(state, task, task.model, keys)
    if budgets.refusal(state, keys, task.priority, asked, now, kept, holds=False) is not None:
        return
    for key in keys:
        room = kept.setdefault(key, [0, 0, 0])
        for i in range(3):
            room[i] += asked[i]


def in_words(refusal: budgets.Refusal) -> str:
    """A refusal as a sentence: which limit, how much is missing."""
    r = refusal
    if r.never:
        return (
            f"it asks for more than the {r.unit}/{r.window} limit of {r.scope} "
            f"({r.limit:,}) ever allows at its priority"
        )
    return f"{r.unit}/{r.window} of {r.scope}: {r.missing:,} missing of {r.limit:,}"


DECIDER = Decider(
    BY, decide, attempts.EMITS | accounts.EMITS | overruns.EMITS | {TaskDispatched, TaskDeferred}
)
