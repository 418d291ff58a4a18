"""An operator's word on the server's clock. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from events.clock import ClockConfirmed
from events.commands.operators import ConfirmClock
from events.envelope import Event
from services.intake.case import Case, takes

REASON_MAX = 500


@takes(ConfirmClock)
def confirmed(case: Case, command: ConfirmClock) -> Iterable[Event]:
    """The server's clock is right: what only its step made unreachable may be forgotten."""
    case.check_shared("the clock is confirmed")
    yield case.reported(ClockConfirmed(command.reason[:REASON_MAX]), command)
