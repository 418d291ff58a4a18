"""A host put together from any set of services."""

from __future__ import annotations

from collections.abc import Collection

from events.keys import Keys
from services import assembly
from services.decider import Inputs
from services.engine.host import Host
from services.projector import Setup
from services.runtime import initial_policy, prices
from services.runtime.settings import Settings
from services.store.client import Client
from services.store.heartbeat import DECIDES, PROJECTS, Heartbeat, Role
from services.store.prompts import Texts


def host(client: Client, settings: Settings, names: Collection[str] = assembly.SERVICES) -> Host:
    """A host for the services of these names; the deciders among them form one engine."""
    keys = Keys(settings.namespace)
    deciding = assembly.deciding(names)
    inputs = Inputs(
        defaults=initial_policy.defaults(settings),
        main_intake=keys.main_intake,
        initial_policy=initial_policy.policy(settings) if deciding else None,
        price_lookup=prices.lookup,
    )
    setup = Setup(client, keys, Texts(), settings)
    projectors = assembly.projectors(names, setup)
    roles = [Role(name, DECIDES) for name in deciding]
    roles += [Role(name, PROJECTS, p.figures) for name, of in projectors.items() for p in of]
    return Host(
        setup,
        assembly.deciders(names, settings),
        [projector for of in projectors.values() for projector in of],
        inputs,
        Heartbeat(client, keys, roles),
        whole_engine=deciding == assembly.DECIDERS,
    )
