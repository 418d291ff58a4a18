"""What the projectors of a host are told of a turn, and the notes that its append writes along."""

from __future__ import annotations

from collections.abc import Sequence

from events.envelope import Event
from projections.state import State
from services.projector import Projector
from services.store.log import Note


class News:
    """Of one turn. ``late``: a projector could not make its notes, so it is to be fed before the
    next turn is decided."""

    def __init__(
        self, projectors: Sequence[Projector], events: Sequence[Event], state: State
    ) -> None:
        """``events`` were decided; ``state`` is the one after them."""
        self._events = events
        self._noting: list[tuple[Projector, Sequence[Note]]] = []
        self._fed: list[Projector] = []
        self.late = False
        self.notes: list[Note] = []
        for projector in projectors:
            notes = projector.notes(events, state) if projector.takes_notes else None
            if notes is None:
                self.late |= projector.takes_notes
                self._fed.append(projector)
            else:
                self._noting.append((projector, notes))
                self.notes += notes

    def appended(self, written: bool) -> None:
        """The turn stands on the log, and its notes in the inboxes if they were ``written``."""
        for projector, notes in self._noting:
            projector.noted(notes, written)

    def tell(self, state: State) -> None:
        """Feed whoever took no notes; ``state`` holds nothing that may be undone."""
        for projector in self._fed:
            projector.feed(self._events, state)
