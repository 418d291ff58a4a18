"""One intake entry on its way: what the handlers need to judge it. PURE."""

from __future__ import annotations

import msgspec

from events.envelope import Event, Payload, encode
from projections.state import State
from services.decider import Defaults, IntakeEntry, Known
from services.intake.schema import Rejected


class Case(msgspec.Struct):
    """See the module."""

    state: State
    now: int
    entry: IntakeEntry
    defaults: Defaults
    known: Known
    main_intake: str
    raw: bytes = b""  # its data as JSON

    @property
    def intake_name(self) -> str:
        """The name of an agent's own intake stream, "" for the shared one."""
        return self.entry.intake[len(self.main_intake) + 1 :]

    def event(self, payload: Payload, raw: bytes = b"") -> Event:
        """``payload`` as an event that came through this intake stream."""
        e = self.entry
        return Event(payload, source=e.intake, origin=f"{e.intake} {e.id}", raw=raw)

    def reported(self, payload: Payload) -> Event:
        """``payload`` as an event that carries the writer's own words, untouched, as
        ``reported``."""
        return self.event(payload, encode(payload)[:-1] + b',"reported":' + self.raw + b"}")

    def check_speaks_for(self, worker: str) -> None:
        """An agent's own intake stream speaks for its worker alone; the shared one makes a claim.
        Raises Bad."""
        if self.intake_name and worker and self.intake_name != worker:
            raise Rejected(f"the intake of {self.intake_name} may not speak for worker {worker!r}")
