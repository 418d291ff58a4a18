"""The one list of services, by the names users start them under; each is loaded when started."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from services.decider import Decider
    from services.delegator.classify import Delegator
    from services.projector import Projector, Setup
    from services.runtime.settings import Settings


class Service(msgspec.Struct, frozen=True):
    """A service: the module with its ``DECIDER``, the one with its ``projectors(setup)``; "" for
    what it is not."""

    decider: str = ""
    projectors: str = ""


SERVICES: Final[Mapping[str, Service]] = {
    "intake": Service(decider="services.intake.decide"),
    "delegator": Service(decider="services.delegator.decide"),
    "dispatcher": Service(decider="services.dispatcher.decide"),
    "throttle": Service("services.throttle.decide", "services.throttle.projector"),
    "reports": Service("services.reports.decide", "services.reports.projector"),
    "inbox": Service(projectors="services.inbox.projector"),
    "progress": Service(projectors="services.progress.watch"),
    "usage": Service(projectors="services.usage.projector"),
    "snapshots": Service(projectors="services.snapshots.projector"),
    "archive": Service(projectors="services.archive.projector"),
}
# Readers beside the bus, in processes of their own: what they do is off the engine's loop.
READERS: Final[Mapping[str, Service]] = {
    "exporter": Service(projectors="services.exporter.service"),
    "web": Service(projectors="services.web.service"),
}
# For those who want them, and no part of every bus: what agents tell where they run, and what a
# collector of OpenTelemetry is told, and what moves between several buses.
OPTIONAL: Final[Mapping[str, Service]] = {
    "telemetry": Service(projectors="services.telemetry.service"),
    "traces": Service(projectors="services.traces.service"),
    "shares": Service(projectors="services.shares.service"),
}
OF_EVERY_BUS: Final = {**SERVICES, **READERS}
STARTABLE: Final = {**OF_EVERY_BUS, **OPTIONAL}
DECIDERS: Final = tuple(name for name, service in SERVICES.items() if service.decider)
PROJECTORS: Final = tuple(name for name, service in SERVICES.items() if service.projectors)
ENGINE: Final = "engine"  # all deciders together
OF_EVERY_ENGINE: Final = (
    "services.engine.first_policy",
    "services.engine.continuity",
    "services.engine.clock_steps",
    "services.engine.eviction",
    "services.engine.forgetting",
)


def unknown(names: Collection[str]) -> str:
    """The first of ``names`` that is no service, "" where all are."""
    return next((name for name in names if name != ENGINE and name not in STARTABLE), "")


def deciding(names: Collection[str]) -> tuple[str, ...]:
    """The deciders among ``names``, in the order in which they speak."""
    return tuple(name for name in DECIDERS if ENGINE in names or name in names)


def projecting(names: Collection[str]) -> tuple[str, ...]:
    """The projectors among ``names``."""
    return tuple(name for name in (*PROJECTORS, *READERS, *OPTIONAL) if name in names)


def deciders(names: Collection[str], settings: Settings) -> list[Decider]:
    """The deciders among ``names``; before them speak those that every engine has, of the log's
    first event, the log itself, the clock and the server."""
    chosen = [_decider(name, settings) for name in deciding(names)]
    own = [import_module(module).DECIDER for module in OF_EVERY_ENGINE]
    return [*own, *chosen] if chosen else []


def _decider(name: str, settings: Settings) -> Decider:
    module = import_module(SERVICES[name].decider)
    if name == "delegator":
        return module.decider(delegator_of(settings))
    return module.DECIDER


def projectors(names: Collection[str], setup: Setup) -> dict[str, Sequence[Projector]]:
    """The projectors of each of ``names`` that has some."""
    return {
        name: import_module(STARTABLE[name].projectors).projectors(setup)
        for name in projecting(names)
    }


def delegator_of(settings: Settings) -> Delegator:
    """The delegator with the routes and rules of ``settings``, and what it ships with."""
    from services.delegator.classify import DEFAULT_ROUTES, Delegator, Route, Rule

    routes = dict(DEFAULT_ROUTES)
    routes.update({kind: Route(r.agent, r.model) for kind, r in settings.delegator.routes.items()})
    rules = [Rule(r.kind, r.pattern, r.weight) for r in settings.delegator.rules]
    return Delegator(routes, rules, when_unsure=settings.delegator.when_unsure)
