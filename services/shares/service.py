"""The service that moves shares of a whole between buses: it reads their logs, and sends each bus
what its share is to become. It remembers nothing: where it was stands on the logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio.to_thread
import msgspec
from msgspec.structs import replace

from events.commands.budgets import ShareChange
from events.keys import Keys
from projections.shares import SCOPE, share_of
from projections.state import State
from services.client.bus import Bus
from services.client.followed import Followed
from services.projector import Projector, Setup
from services.queries import demand
from services.queries.shares import contradiction, settings_of
from services.runtime.clock import elapsed
from services.runtime.errors import AsbError, CommandRefused, ConfigError
from services.runtime.failpoints import point
from services.runtime.settings import Settings
from services.runtime.settings_shares import ShareOfBus, ShareSetting
from services.shares.decide import Member, Whole, decide
from services.store.client import SyncClient
from services.store.embedded import resolve_url
from services.store.replicas import replicated

log = logging.getLogger("asb")

LOOK_S = 0.5
AGAIN_S = 5.0  # a bus that cannot be read is tried again, and what changed nothing is sent again


class Watched:
    """Where a bus is, and its state, as long as it can be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._followed: Followed | None = None
        self._not_before = 0.0
        self._sent: dict[tuple[str, str], tuple[ShareChange, float]] = {}
        self.problem: str = ""

    def look(self) -> tuple[State, int] | None:
        """Its state, and its server's time; None where it cannot be read."""
        if elapsed() < self._not_before:
            return None
        try:
            if self._followed is None:
                keys = Keys(self._settings.namespace)
                client = SyncClient(resolve_url(self._settings), keys.log)
                bus = Bus(self._settings, client, keys)
                self._followed = Followed(bus)
            seen = self._followed.look(), self._followed.bus.now()
        except (AsbError, CommandRefused) as error:
            self.lose(error)
            return None
        self.problem = ""
        return seen

    def lose(self, error: Exception) -> None:
        """It could not be asked: it is opened anew after a while."""
        said = str(error).splitlines()[0]
        if said != self.problem:
            log.warning("shares: a bus cannot be read: %s", said)
        self.problem, self._not_before = said, elapsed() + AGAIN_S
        if self._followed is not None:
            self._followed.bus.client.close()
            self._followed = None

    def is_lasting(self) -> bool:
        """Whether no failover can lose what was read of its log, and none just has."""
        if self._followed is None:
            return False
        try:
            return replicated(self._followed.bus.client) and self._followed.stands()
        except (AsbError, CommandRefused) as error:
            self.lose(error)
            return False

    @property
    def bus(self) -> Bus | None:
        """The bus, where it could be read."""
        return None if self._followed is None else self._followed.bus

    def tell(self, change: ShareChange) -> bool:
        """Send it a change, unless it was sent just now; whether it was."""
        name, now = (change.unit, change.window), elapsed()
        last = self._sent.get(name)
        if self.bus is None or (last and last[0] == change and now - last[1] < AGAIN_S):
            return False
        self._sent[name] = change, now
        share, reason = msgspec.to_builtins(change), reason_of(change)
        point("shares.before")
        self.bus.send("policy.changed", {"share": share, "reason": reason})
        point("shares.after")
        return True


def reason_of(change: ShareChange) -> str:
    """What a change is, for the record."""
    gives = [f"gives to {bus}" for bus in sorted(change.give)]
    takes = [f"takes from {bus}" for bus in sorted(change.take)]
    return f"the share of {change.bus}: {', '.join(gives + takes) or 'as the others know it'}"


class Shares(Projector):
    """Looks at all buses, and moves."""

    look_s = LOOK_S

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._places: dict[tuple[str | None, str | None], Watched] = {}
        self._sent = 0

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: what was sent, and why a bus cannot be read."""
        problems = sorted(place.problem for place in self._places.values() if place.problem)
        return {"sent": self._sent, "unreadable": len(problems), "problem": "; ".join(problems)}

    async def flush(self, woken: bool) -> None:
        """One look at all buses, and what follows from it."""
        await anyio.to_thread.run_sync(self._move, abandon_on_cancel=True)

    def _move(self) -> None:
        for setting in self._settings.shares:
            members = dict(self._members(setting))
            for name, change in decide(whole_of(setting), members).items():
                place = self._place(next(x for x in setting.buses if x.name == name))
                try:
                    self._sent += place.tell(change)
                except (AsbError, CommandRefused) as error:
                    place.lose(error)

    def _place(self, bus: ShareOfBus) -> Watched:
        key = bus.redis_url, bus.namespace
        if key not in self._places:
            self._places[key] = Watched(settings_of(self._settings, bus))
        return self._places[key]

    def _members(self, setting: ShareSetting) -> Iterator[tuple[str, Member | None]]:
        """All buses as their logs say; what one gave is offered once no failover can lose it."""
        read = {bus.name: self._member(setting, bus) for bus in setting.buses}
        there = [member for member in read.values() if member is not None]
        for bus in setting.buses:
            member = read[bus.name]
            if member is not None and any(other.takes(member) for other in there):
                member = replace(member, lasting=self._place(bus).is_lasting())
            yield bus.name, member

    def _member(self, setting: ShareSetting, bus: ShareOfBus) -> Member | None:
        place = self._place(bus)
        seen = place.look()
        if seen is None:
            return None
        state, now = seen
        share = share_of(state.policy, SCOPE, setting.unit, setting.window)
        problem = contradiction(setting, bus, share)
        if problem:
            place.lose(ConfigError(problem))
            return None
        window = state, setting.unit, setting.window, now
        return Member(bus.name, share, demand.committed(*window), demand.wanted(*window), now)


def whole_of(setting: ShareSetting) -> Whole:
    """The whole that a setting asks for."""
    leaving = frozenset(bus.name for bus in setting.buses if bus.leaving)
    amount = setting.exact_amount
    return Whole(setting.unit, setting.window, amount, setting.buses[0].name, leaving)


def projectors(setup: Setup) -> list[Projector]:
    """What `asb service shares` runs. Raises ConfigError where nothing is divided."""
    if not setup.settings.shares:
        raise ConfigError(
            "no limit is divided over several buses: [[shares]] is not set",
            hint="name the whole and its buses in the configuration: see ops/topologies.md",
        )
    return [Shares(setup.settings)]
