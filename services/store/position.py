"""Where a host stands on the log, beside its state: foreign entries, and ids that are used up."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from events.envelope import Event
from events.log import START, after, parse_id
from projections.records import Meta
from projections.state import State
from services.runtime.errors import LogError
from services.store.log import Base, decoded

FOREIGN_KEPT = 1_000  # ids of foreign entries; they are told of once an hour
LAST_MS = (1 << 64) - 1


class Position:
    """``foreign``: log ids of the entries that were skipped, in order."""

    def __init__(self) -> None:
        self.foreign: deque[str] = deque(maxlen=FOREIGN_KEPT)
        self._entry = START  # the last entry seen, where that is a foreign one
        self._floor = START  # the last id known to be given out, though its entry may be gone

    def begin(self, foreign: Sequence[str]) -> None:
        """The log was folded anew, and these entries of it were skipped. Ids given out before are
        not given out again, also where the log has forgotten them: views and inboxes have not."""
        self.foreign.clear()
        self.foreign.extend(foreign)
        self._entry = self.foreign[-1] if self.foreign else START

    def decoded(self, entries: Sequence[Any]) -> list[Event]:
        """Entries that were read, as events. Raises LogError."""
        skipped: list[str] = []
        events = decoded(entries, skipped)
        newest = self.foreign[-1] if self.foreign else START
        self.foreign.extend(place for place in skipped if after(place, newest))
        if entries:
            self._entry = entries[-1][0].decode()
        return events

    def edited(self) -> None:
        """Foreign entries were taken away: only events count now."""
        self._entry = START

    def used_up(self, entry_id: str) -> None:
        """No id up to this one can be given out (again)."""
        self._floor = max(self._floor, entry_id, key=parse_id)

    def last_seen(self, state: State) -> str:
        """The last entry that was folded or skipped."""
        return max(self._entry, state.meta.log_id, key=parse_id)

    def base(self, state: State) -> Base:
        """What a turn on ``state`` is decided on."""
        meta = state.meta
        return Base(meta.log_id, meta.at if meta.events else 0, self.last_seen(state))

    def floor(self, state: State) -> str:
        """Events get ids after this one. Raises LogError where there are none."""
        floor = max(self.last_seen(state), self._floor, key=parse_id)
        if parse_id(floor)[0] >= LAST_MS:
            raise LogError(
                f"somebody closed the log with an entry of the highest id, {floor}",
                hint=_reopening(floor, state.meta),
            )
        return floor


def _reopening(floor: str, meta: Meta) -> str:
    """The commands that let the log go on. From Redis 7 on a stream does not go back behind what
    was deleted last unless that mark goes back first."""
    back = (
        f"XSETID LOG {floor} ENTRIESADDED {meta.events + FOREIGN_KEPT} MAXDELETEDID {meta.log_id}"
    )
    return (
        f"with redis-cli, LOG being the key of the log: XDEL LOG {floor}, then (Redis 7 and newer) "
        f"{back}, then XSETID LOG {meta.log_id}; start again"
    )
