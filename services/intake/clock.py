"""An operator's word on the server's clock. PURE."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from events.clock import ClockConfirmed
from events.envelope import Event
from services.intake import schema
from services.intake.case import Case
from services.intake.schema import Rejected

REASON_MAX = 500


class ConfirmClock(msgspec.Struct):
    """``clock.confirmed`` as it is sent."""

    reason: str = ""


_confirm = msgspec.json.Decoder(ConfirmClock)


def confirmed(case: Case) -> Iterable[Event]:
    """The server's clock is right: what only its step made unreachable may be forgotten."""
    if case.intake_name:
        raise Rejected("the clock is confirmed through the shared intake only")
    command: ConfirmClock = schema.decode(case.raw, _confirm)
    yield case.event(ClockConfirmed(command.reason[:REASON_MAX]))
