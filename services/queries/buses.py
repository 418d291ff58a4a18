"""All buses of one server, a row each: ``asb status --all-namespaces``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from events.keys import Keys
from projections import budgets, usage
from services.client.bus import Bus
from services.queries.figures import running_count, waiting_count
from services.queries.notices import level_of
from services.runtime.errors import AsbError
from services.store import rebuild

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+")


class BusRow(msgspec.Struct, frozen=True):
    """How one bus stands; ``problem`` where it cannot be read, and then nothing else."""

    namespace: str
    waiting: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    cost_nanos: int = 0
    level: str = ""
    level_reason: str = ""
    problem: str = ""


def namespaces(bus: Bus) -> list[str]:
    """The namespaces on this server whose log has begun."""
    logs = {key.decode("utf-8", "replace") for key in bus.client.scan(Keys("*").log, "stream")}
    names = {log.removesuffix(Keys("").log) for log in logs}
    return sorted(name for name in names if _NAMESPACE.fullmatch(name) and _has_begun(bus, name))


def _has_begun(bus: Bus, namespace: str) -> bool:
    try:
        return rebuild.first_event(bus.client, Keys(namespace)) is not None
    except AsbError:
        return True  # it is one of ours: its row says what is wrong


def bus_rows(bus: Bus) -> Iterator[BusRow]:
    """A row for each bus on the server of ``bus``, read one after the other."""
    for namespace in namespaces(bus):
        settings = replace(bus.settings, namespace=namespace)
        yield bus_row(Bus(settings, bus.client, Keys(namespace)))


def bus_row(bus: Bus) -> BusRow:
    """How ``bus`` stands now."""
    try:
        state = bus.state()
    except AsbError as error:
        return BusRow(bus.keys.namespace, problem=str(error))
    total = usage.total(state.lifetime.values())
    level, reason = level_of(state, "global", bus.now())
    return BusRow(
        bus.keys.namespace,
        waiting_count(state),
        running_count(state),
        state.meta.completed,
        state.meta.failed,
        total.tokens,
        total.nanos,
        budgets.LEVELS[level],
        reason,
    )
