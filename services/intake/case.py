"""One intake entry on its way: what the handlers need to judge it. PURE."""

from __future__ import annotations

import msgspec

from events.envelope import Event, Payload, encode
from projections.state import State
from services.intake.shapes import Bad
from services.turn import Defaults, DoorEntry, Known


class Case(msgspec.Struct):
    """See the module."""

    state: State
    now: int
    entry: DoorEntry
    defaults: Defaults
    known: Known
    main_door: str
    raw: bytes = b""  # its data as JSON

    @property
    def door_name(self) -> str:
        """The name of an agent's own intake stream, "" for the shared one."""
        return self.entry.door[len(self.main_door) + 1 :]

    def event(self, payload: Payload, raw: bytes = b"") -> Event:
        """``payload`` as an event that came through this intake stream."""
        e = self.entry
        return Event(payload, source=e.door, origin=f"{e.door} {e.id}", raw=raw)

    def told(self, payload: Payload) -> Event:
        """``payload`` as an event that carries the writer's own words, untouched, as ``told``."""
        return self.event(payload, encode(payload)[:-1] + b',"told":' + self.raw + b"}")

    def check_speaks_for(self, worker: str) -> None:
        """An agent's own intake stream speaks for its worker alone; the shared one makes a claim.
        Raises Bad."""
        if self.door_name and worker and self.door_name != worker:
            raise Bad(f"the door of {self.door_name} may not speak for worker {worker!r}")
