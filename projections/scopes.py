"""The scopes that budgets know: ``global``, and one for each worker, agent, model and project."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

SCOPES_MAX = 10_000  # past so many, new ones of a kind share ``<kind>:other``


@lru_cache(maxsize=10_000)
def scope_keys(worker: str, agent: str, model: str, project: str) -> tuple[str, ...]:
    """The scopes that work of this kind touches; an empty name touches none."""
    keys = ["global"]
    if worker:
        keys.append("worker:" + worker)
    if agent:
        keys.append("agent:" + agent)
    if model:
        keys.append("model:" + model)
    if project:
        keys.append("project:" + project)
    return tuple(keys)


def kind_of(key: str) -> str:
    """The kind of a scope: ``worker`` of ``worker:w1``."""
    return key.partition(":")[0]


def place_of(key: str, known: Collection[str]) -> str:
    """The scope in which work of ``key`` is counted: its own, or the one that the rest share."""
    if key in known or len(known) < SCOPES_MAX:
        return key
    return kind_of(key) + ":other"
