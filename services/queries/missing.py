"""Which services nobody runs, by the heartbeats of those that run. PURE."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from services import assembly
from services.store.heartbeat import DECIDES, PROJECTS, Beat


class MissingPart(NamedTuple):
    """Part of a service that no process runs: what it decides, or what it projects."""

    service: str
    does: str

    def __str__(self) -> str:
        return f"{self.does} {self.service}" if self.service in _BOTH else f"runs {self.service}"


_BOTH = frozenset(assembly.DECIDERS) & frozenset(assembly.PROJECTORS)
EVERY = (
    *(MissingPart(name, DECIDES) for name in assembly.DECIDERS),
    *(MissingPart(name, PROJECTS) for name in assembly.PROJECTORS),
)
# What stands still without a part that tasks need, for somebody who waits for one.
STANDS_STILL = {
    MissingPart("intake", DECIDES): "entries wait at the intake",
    MissingPart("delegator", DECIDES): "new tasks get no route",
    MissingPart("dispatcher", DECIDES): "no task is given out",
    MissingPart("inbox", PROJECTS): "workers are not told of their tasks",
}


def missing(running: Collection[Beat]) -> list[MissingPart]:
    """The parts of services that nobody runs, in their order."""
    present = {
        MissingPart(beat.service, role)
        for beat in running
        for role in (DECIDES, PROJECTS)
        if beat.does(role)
    }
    return [part for part in EVERY if part not in present]


def missing_names(running: Collection[Beat]) -> list[str]:
    """The names of the services of which a part is missing, in their order."""
    return list(dict.fromkeys(part.service for part in missing(running)))
