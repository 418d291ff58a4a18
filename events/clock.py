"""The server's clock, where it does not simply go on."""

from __future__ import annotations

from events.envelope import Payload, wire
from events.words import Text

LARGE_US = 3_600_000_000  # a step beyond this, either way, is an alert


@wire("clock.stepped")
class ClockStepped(Payload):
    """The server's clock stepped by ``by`` µs (back where negative); it was ``noticed`` (µs, by the
    clock after the step). Timers of open tasks move along; nothing is forgotten because of it."""

    by: int
    noticed: int

    @property
    def is_large(self) -> bool:
        """Whether somebody has to look at it."""
        return abs(self.by) > LARGE_US


@wire("clock.confirmed")
class ClockConfirmed(Payload):
    """An operator says that the server's clock is right now: what lies beyond every window by this
    clock may be forgotten again."""

    reason: Text = ""
