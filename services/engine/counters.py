"""The counters of an engine's process, for its heartbeats."""

from __future__ import annotations

import msgspec

from projections.state import State
from services.engine.standby import Standby
from services.engine.stats import Stats
from services.engine.trouble import Trouble
from services.runtime.clock import elapsed
from services.store.dead_letters import DeadLetters
from services.store.intakes import Intakes
from services.store.position import Position


class Counters(msgspec.Struct):
    """What they are read from."""

    standby: Standby
    intakes: Intakes
    letters: DeadLetters
    position: Position
    trouble: Trouble
    stats: Stats
    moved: tuple[str, float] = ("", 0.0)  # where the log stood at the last beat that saw it move

    def of(self, state: State) -> dict[str, str | int]:
        """``stalled_s``: for how long entries have waited at the intake while the log did not move,
        by our own monotonic clock. ``taken``: the newest entry of the shared intake that was
        taken in, also where it changed nothing and no event says so."""
        now, place, waiting = elapsed(), state.meta.log_id, len(self.intakes)
        if place != self.moved[0] or not waiting:
            self.moved = (place, now)
        return {
            "role": "standby" if self.standby.on else "active",
            "log_id": place,
            "folded": state.meta.events,
            "waiting": waiting,
            "taken": self.intakes.taken,
            "dead_letters_dropped": self.letters.dropped,
            "stalled_s": int(now - self.moved[1]),
            "foreign": len(self.position.foreign),
            "holding": self.trouble.text,
            **msgspec.structs.asdict(self.stats),
        }
