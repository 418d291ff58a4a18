"""The state of a bus, kept up to date by whoever looks at it again and again."""

from __future__ import annotations

from projections import fold
from projections.state import State
from services.client.bus import Bus
from services.store import log


def stands(bus: Bus, state: State) -> bool:
    """Whether the last event that was folded is still on the log, and still that one."""
    return log.stands(bus.client, bus.keys, state.meta.log_id, state.meta.at)


class Followed:
    """Follows one bus. Every method may raise RedisUnavailable and LogError."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._state = bus.state()

    def stands(self) -> bool:
        """Whether what was read is still there."""
        return stands(self.bus, self._state)

    def look(self) -> State:
        """The state as the log has it now."""
        if not self.stands():
            self._state = self.bus.state()
        for events in self.bus.read(self._state.meta.log_id):
            for event in events:
                fold.apply(self._state, event)
        return self._state
