"""Who could take a task: the workers of one turn. PURE."""

from __future__ import annotations

import re
from typing import NamedTuple

from projections import budgets
from projections.accounts import is_limited
from projections.records import ALIVE, TaskRecord, Worker
from projections.state import State


class Post(NamedTuple):
    """A worker, and the agent and model it would run a task with; ``why`` if not the route's."""

    worker: Worker
    agent: str
    model: str
    why: str = ""


class Placement:
    """The live workers, their free slots and their headroom, as of one turn."""

    def __init__(self, state: State, now: int) -> None:
        self._state, self._now = state, now
        self._live = [
            w
            for w in state.workers.values()
            if w.status == ALIVE and not w.paused and not is_limited(state, w)
        ]
        self.free = sum(max(0, w.free) for w in self._live)
        self._routes: dict[tuple[str, str, str, str, str], list[Post]] = {}
        self._headrooms: dict[str, int] = {}
        by_level = state.policy.saving.start in budgets.LEVELS
        self._level = budgets.scope_level(state, "global", now) if by_level else 0

    def took(self, worker: str) -> None:
        """``worker`` was given a task: it has one slot and some headroom less."""
        self.free -= 1
        self._headrooms.pop(worker, None)

    def posts(self, task: TaskRecord) -> list[Post]:
        """Where ``task`` could run now, best first: most headroom, then similar work."""
        free = [post for post in self.route(task) if post.worker.free > 0]
        if len(free) > 1:
            free.sort(key=lambda post: self._merit(post.worker, task.kind))
        return free

    def route(self, task: TaskRecord) -> list[Post]:
        """All live workers that ``task`` could run on, busy ones too, in no order."""
        saving = self._saves(task)
        key = (task.agent, task.model, task.given, task.given_worker, saving)
        posts = self._routes.get(key)
        if posts is None:
            posts = self._routes[key] = self._serving(task, saving)
        return posts

    def _saves(self, task: TaskRecord) -> str:
        """Why the cheap model is preferred for ``task``, "" where it is not."""
        saving = self._state.policy.saving
        if saving.start == "off" or "m" in task.given or task.kind not in saving.kinds:
            return ""
        if task.escalated:  # it failed on the cheap model
            return ""
        if task.model == saving.model:
            return ""
        if saving.start == "always":
            return "saving is on"
        reached = self._level >= budgets.LEVELS.index(saving.start)
        return f"saving from {saving.start} on" if reached else ""

    def _merit(self, worker: Worker, kind: str) -> tuple[int, bool, str]:
        headroom = self._headrooms.get(worker.name)
        if headroom is None:
            headroom = self._headrooms[worker.name] = self._headroom(worker)
        return -headroom, worker.last_kind != kind, worker.name

    def _headroom(self, worker: Worker) -> int:
        """What is left of the tightest of its budgets and of its slots, in whole percent."""
        state, key = self._state, "worker:" + worker.name
        percent = 100 * worker.free // worker.capacity
        for limit in budgets.limits_for(state, key):
            if limit.amount > 0:
                spent = budgets.used(state, key, limit.window, self._now).of(limit.unit)
                spent += budgets.held(state, key, limit.unit)
                percent = min(percent, 100 * (limit.amount - spent) // limit.amount)
        return percent

    def _serving(self, task: TaskRecord, saving: str) -> list[Post]:
        """The live workers for a route; where none serves it, the next best, saying why."""
        live = self._live
        if task.given_worker:
            live = [w for w in live if w.name == task.given_worker]
        if saving:
            cheap = self._state.policy.saving.model
            posts = _serving_route(live, task, task.agent, cheap)
            if posts:
                return [
                    post._replace(why=f"{saving}: {cheap} instead of {task.model}")
                    for post in posts
                ]
        return _serving_route(live, task, task.agent, task.model)


def _serving_route(live: list[Worker], task: TaskRecord, agent: str, model: str) -> list[Post]:
    cheap = is_cheap(model)
    exact = [Post(w, w.agent or agent, model) for w in live if w.serves(agent, model)]
    if exact:
        return exact
    anyone, any_model = "a" not in task.given, "m" not in task.given
    why = f"no live worker serves {agent} with {model}"
    alike = any_model and [
        Post(w, w.agent or agent, own, f"its model for {model} is {own}")
        for w in live
        if w.is_agent(agent) and (own := w.model_for(model, cheap=cheap))
    ]
    if alike:
        return alike
    others: list[Post] = []
    if anyone:
        others = [Post(w, w.agent, model, why) for w in live if w.serves(w.agent, model)]
    if not others and anyone and any_model:
        others = [
            Post(w, w.agent, own, why) for w in live if (own := w.model_for(model, cheap=cheap))
        ]
    if not others and any_model:
        others = [
            Post(w, w.agent or agent, own, why)
            for w in live
            if (own := w.first_model) and (anyone or w.is_agent(agent))
        ]
    return others


_CHEAP = re.compile(r"haiku|mini|nano|lite|flash|luna|small|cheap")


def is_cheap(model: str) -> bool:
    """Whether a route's model is of the cheap tier, by its name: what is not is capable."""
    return _CHEAP.search(model) is not None
