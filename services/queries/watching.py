"""A bus that is watched: its state followed, its newest events, a past moment, one task.

What is watched is looked at again and again: whoever watches waits for a Redis that goes away, and
a log that went back is folded anew, and told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from events.log import START, after
from projections import fold
from projections.records import TaskRecord
from projections.state import State
from services.client.bus import Bus
from services.client.follow import story
from services.client.followed import stands
from services.client.lookup import unknown
from services.queries.fleet import Overview, Surroundings
from services.queries.missing import missing_names
from services.queries.moment import Moment, state_at
from services.queries.overview import overview, places_of_texts, tasks_shown
from services.queries.stalled import no_engine
from services.queries.status import prompts
from services.queries.tasks import last_errors, standing
from services.queries.timeline import EventRow, TaskPage, event_row, task_page
from services.runtime.clock import elapsed
from services.store import rebuild
from services.store.heartbeat import beats

TAIL = 200  # events of the end of the log that a watch remembers
TEXTS_MAX = 2_000
AROUND_S = 2.0


class Scene(msgspec.Struct, frozen=True):
    """What is shown of one moment: the fleet, and the events before it, the oldest first."""

    overview: Overview
    events: list[EventRow]


class Prompts:
    """Prompts that were fetched, by task: at most ``TEXTS_MAX``, the oldest forgotten first."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def missing(self, places: Mapping[str, str]) -> dict[str, str]:
        """Those of ``places`` (task → log id) that are not here."""
        return {task: place for task, place in places.items() if task not in self.texts}

    def add(self, texts: Mapping[str, str]) -> None:
        self.texts |= texts
        for task in list(self.texts)[: max(0, len(self.texts) - TEXTS_MAX)]:
            del self.texts[task]


def surroundings_of(bus: Bus, tasks: Sequence[TaskRecord]) -> Surroundings:
    """What other processes and keys know of a live bus. ``tasks``: those that are shown."""
    running = beats(bus.client, bus.keys)
    letters = bus.client.call("XLEN", bus.keys.deadletter)
    errors = last_errors(bus, tasks)
    return Surroundings(missing_names(running), letters, no_engine(running), errors)


def events_before(bus: Bus, until: str, log_id: str = START) -> list[EventRow]:
    """The last ``TAIL`` events up to ``until``, of those after ``log_id``, the oldest first."""
    entries: list[Any] = []
    for batch in bus.history.newest(until, log_id):
        entries += batch
        if len(entries) >= TAIL:
            break
    newest = rebuild.decoded(entries[:TAIL])
    return [event_row(event) for event in reversed(bus.shown(newest))]


def past(bus: Bus, chosen: Moment) -> Scene:
    """The fleet as it was. Raises Refused where the log had not begun."""
    state, now = state_at(bus, chosen)
    texts = prompts(bus, places_of_texts(state))
    shown = overview(state, now, texts, live=False)
    return Scene(shown, events_before(bus, shown.as_of))


def task_at(bus: Bus, task: str, chosen: Moment | None = None) -> TaskPage:
    """A task as it stands, or as it stood. Raises Refused where there was none."""
    state, now = (bus.state(), bus.now()) if chosen is None else state_at(bus, chosen)
    as_of = state.meta.log_id
    events = [event for event in story(bus, task) if not after(event.log_id, as_of)]
    if not events:
        raise unknown(bus, state, task)
    return task_page(standing(bus, state, now, task, events, live=chosen is None), as_of)


class FleetWatch:
    """Follows one bus. Every method may raise RedisUnavailable: then a new one goes on."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._state = bus.state()
        self._prompts = Prompts()
        self._forgotten: str = self._state.meta.forgotten_id
        self._tail = deque(events_before(bus, self._state.meta.log_id), maxlen=TAIL)
        self._surroundings, self._around_at = Surroundings(), None
        self.went_back = 0  # how often the log lost what had been seen of it

    def look(self) -> Scene:
        """The fleet as it is now."""
        if not stands(self._bus, self._state):
            self.went_back += 1
            self._state = self._bus.state()
            self._tail = deque(events_before(self._bus, self._state.meta.log_id), maxlen=TAIL)
        state = self._state
        for events in self._bus.read(state.meta.log_id):
            for event in self._bus.shown(events):
                fold.apply(state, event)
                self._tail.append(event_row(event))
        if state.meta.forgotten_id != self._forgotten:  # what is held of it here goes, too
            self._forgotten = state.meta.forgotten_id
            self._prompts = Prompts()
            self._tail = deque(events_before(self._bus, state.meta.log_id), maxlen=TAIL)
        places = self._prompts.missing(places_of_texts(state))
        self._prompts.add(prompts(self._bus, places) if places else {})
        shown = overview(state, self._bus.now(), self._prompts.texts, self._around(state))
        return Scene(shown, list(self._tail))

    def _around(self, state: State) -> Surroundings:
        """Looked up now and then: that a service is missing takes seconds to know anyhow."""
        now = elapsed()
        if self._around_at is None or now - self._around_at >= AROUND_S:
            self._surroundings = surroundings_of(self._bus, tasks_shown(state))
            self._around_at = now
        return self._surroundings
