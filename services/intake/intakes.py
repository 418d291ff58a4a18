"""Intake streams of people's own, and entries that would close an intake. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from events.commands.operators import OpenIntake
from events.envelope import Event
from events.worker import IntakeOpened
from projections.state import State
from services.decider import IntakeEntry
from services.intake import schema
from services.intake.case import Case, takes

AHEAD_MS = 60_000  # more than clocks differ
GIVEN_OUT_MS = 86_400_000  # how long nobody may have taken anything when the clock stepped back
AHEAD_ERROR = (
    "its entry id lies more than a minute in the future; let Redis give the id: XADD … '*' …"
)


@takes(OpenIntake)
def opened(case: Case, command: OpenIntake) -> Iterable[Event]:
    """From here on the intake of ``name`` is read."""
    case.check_shared("intakes are opened")
    schema.check_name(command.name, "name")
    intake = f"{case.main_intake}:{command.name}"
    if intake not in case.state.intakes:
        yield case.reported(IntakeOpened(intake, command.name), command)


def newest_ms(state: State, intake: str, now: int, latest: int) -> int:
    """The largest entry id (its milliseconds) that an intake may have at ``now``, µs.

    ``latest`` (µs) is the latest that the server's clock was ever seen at. Ids themselves prove
    nothing, so no number of entries moves this bound. After the clock stepped back Redis goes on in
    the old millisecond, that of the intake's cursor, and what it gave out before is taken as well.
    """
    taken = int(state.intakes.get(intake, "0-0").partition("-")[0])
    latest_ms, now_ms = max(latest, state.meta.clock) // 1000, now // 1000
    if latest_ms - now_ms > AHEAD_MS:
        return max(taken, latest_ms + GIVEN_OUT_MS)
    return max(taken, latest_ms + AHEAD_MS, now_ms + AHEAD_MS)


def is_ahead(state: State, entry: IntakeEntry, now: int, latest: int) -> bool:
    """Whether the entry's id would keep all that follow at its intake in the future, or out.

    The first such entry of an intake is somebody's own making. Those behind it got their ids from
    Redis: they are put back with new ones when the first has left.
    """
    ms = int(entry.id.partition("-")[0])
    return ms > now // 1000 + AHEAD_MS and ms > newest_ms(state, entry.intake, now, latest)
