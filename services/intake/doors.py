"""Front doors of people's own, and entries that would close a door. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event
from events.worker import DoorOpened
from projections.state import State
from services.intake import shapes
from services.intake.shapes import Bad
from services.turn import DoorEntry

if TYPE_CHECKING:
    from services.intake.case import Case

AHEAD_MS = 60_000  # more than clocks differ
GIVEN_OUT_MS = 86_400_000  # how long nobody may have taken anything when the clock stepped back
AHEAD_ERROR = (
    "its entry id lies more than a minute in the future; let Redis give the id: XADD … '*' …"
)


class OpenIn(msgspec.Struct):
    name: str


_open = msgspec.json.Decoder(OpenIn)


def opened(case: Case) -> Iterable[Event]:
    """From here on the door of ``name`` is read."""
    if case.door_name:
        raise Bad("doors are opened through the shared door only")
    d: OpenIn = shapes.decode(case.raw, _open)
    shapes.check_name(d.name, "name")
    door = f"{case.main_door}:{d.name}"
    if door not in case.state.doors:
        yield case.event(DoorOpened(door, d.name))


def newest_ms(state: State, door: str, now: int, latest: int) -> int:
    """The largest entry id (its milliseconds) that a door may have at ``now``, µs.

    ``latest`` (µs) is the latest that the server's clock was ever seen at. Ids themselves prove
    nothing, so no number of entries moves this bound. After the clock stepped back Redis goes on in
    the old millisecond, that of the door's cursor, and what it gave out before is taken as well.
    """
    taken = int(state.doors.get(door, "0-0").partition("-")[0])
    latest_ms, now_ms = max(latest, state.meta.clock) // 1000, now // 1000
    if latest_ms - now_ms > AHEAD_MS:
        return max(taken, latest_ms + GIVEN_OUT_MS)
    return max(taken, latest_ms + AHEAD_MS, now_ms + AHEAD_MS)


def is_ahead(state: State, entry: DoorEntry, now: int, latest: int) -> bool:
    """Whether the entry's id would keep all that follow at its door in the future, or out.

    The first such entry of a door is somebody's own making. Those behind it got their ids from
    Redis: they are put back with new ones when the first has left.
    """
    ms = int(entry.id.partition("-")[0])
    return ms > now // 1000 + AHEAD_MS and ms > newest_ms(state, entry.door, now, latest)
