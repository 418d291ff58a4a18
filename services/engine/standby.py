"""Who does the work where several hosts run the same deciders. Judged by our own monotonic clock:
what entry ids and ``at`` say about age is wrong as soon as somebody's clock has stepped."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from events.envelope import Event
from services.decider import Decider
from services.runtime.clock import elapsed

STANDBY_S = 1.0  # work that has been there for so long is left to nobody
UNSURE_MAX = 64  # turns whose outcome is unknown, remembered at once


class Standby:
    """Whether this host leaves the work to another one that runs the same ``deciders``.

    ``on`` when another one has decided what ours could have; off again with our own next turn.
    """

    def __init__(self, deciders: Collection[Decider]) -> None:
        self.on = False
        self._names = frozenset(decider.name for decider in deciders)
        self._takes_entries = any(decider.asks is not None for decider in deciders)
        self._others_moved = elapsed()
        self._unsure: deque[frozenset[tuple[str, int, bytes]]] = deque(maxlen=UNSURE_MAX)

    def unsure(self, events: Sequence[Event]) -> None:
        """Nobody knows whether this turn of ours reached the log: its reply was lost."""
        self._unsure.append(frozenset(_mark(event) for event in events))

    def kept(self) -> None:
        """A turn of ours reached the log."""
        self.on = False
        self._unsure.clear()

    def saw(self, event: Event) -> None:
        """An event from the log that was not known to be ours."""
        if self._is_of_our_kind(event) and not self._is_ours(event):
            self.on = True
            self._others_moved = elapsed()

    def leaves(self, waited_s: float | None) -> bool:
        """Whether the work is left to another host. It is ours to do though another one used to do
        it when that has not moved the log for a second, and the first entry at the intakes, if
        there is one, has been first for ``waited_s``, over a second."""
        if not self.on:
            return False
        if elapsed() - self._others_moved <= STANDBY_S:
            return True
        return waited_s is not None and waited_s <= STANDBY_S

    def _is_of_our_kind(self, event: Event) -> bool:
        """Whether a decider that we run has decided it: what has an origin came by the intakes."""
        return self._takes_entries if event.origin else event.source in self._names

    def _is_ours(self, event: Event) -> bool:
        mark = _mark(event)
        return any(mark in turn for turn in self._unsure)


def _mark(event: Event) -> tuple[str, int, bytes]:
    """Two hosts may give the same log id, but not to the same decision at the same microsecond."""
    return event.log_id, event.at, event.raw
