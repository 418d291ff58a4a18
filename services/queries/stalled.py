"""Why nothing happens: whether an engine takes in what comes, and what tasks wait for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from typing import Any

from projections import fold
from projections.records import RUNNING
from projections.state import State
from services.assembly import DECIDERS, ENGINE
from services.client.bus import Bus
from services.client.follow import repeats
from services.intake import schema
from services.queries.missing import STANDS_STILL, missing, missing_names
from services.queries.tasks import last_errors
from services.queries.waiting import Waiting
from services.store.heartbeat import Beat, beats
from services.store.log import after

UNTAKEN_S = 2.0  # what waits first at an intake for longer has no engine that takes it
LOOK_S = 0.1
LOOKED_AT = 500  # entries at an intake
STALLED_S = 5  # an engine that took nothing in for longer, while entries wait, is told of
NO_ENGINE = "no engine runs: what is submitted waits at the intake; start `asb up`"


class Unanswered:
    """For how long the first entry at the shared intake has been waiting, by our own clock.

    Entry ids do not tell: the clock they came from may have stepped, or somebody chose them.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._first = ""
        self._since = 0.0

    def waited_s(self, state: State) -> float:
        """Seconds since this entry was first seen waiting; 0 where none waits."""
        first = _first_waiting(self._bus, state)
        if first != self._first:
            self._first, self._since = first, time.monotonic()
        return time.monotonic() - self._since if first else 0.0


def silent(bus: Bus, state: State) -> bool:
    """Whether entries wait at the shared intake and none is taken, for as long as we look: up to
    two seconds where something waits. ``state`` is folded on meanwhile."""
    first = _first_waiting(bus, state)
    until = time.monotonic() + UNTAKEN_S
    while first and time.monotonic() < until:
        time.sleep(LOOK_S)
        catch_up(bus, state)
        if _first_waiting(bus, state) != first:
            return False
    return bool(first)


def _first_waiting(bus: Bus, state: State) -> str:
    """The first entry at the shared intake that nobody has taken; "" where there is none."""
    intake = bus.keys.main_intake
    done = state.intakes.get(intake, "0-0")
    mark = bus.client.call(
        "HGET", bus.keys.deadletter_marks, intake
    )  # what is refused moves no cursor
    if mark is not None and after(mark.decode(), done):
        done = mark.decode()
    entries: list[Any] = bus.client.call("XRANGE", intake, f"({done}", "+", "COUNT", LOOKED_AT)
    secret = bus.secret
    given = [_given(fields, secret) for _, fields in entries]
    same = repeats(bus, {key for key in given if key[0]})
    waiting = (e[0].decode() for e, key in zip(entries, given, strict=True) if key not in same)
    return next(waiting, "")


def _given(fields: list[bytes], secret: bytes) -> tuple[str, str]:
    """The idempotency key of an entry and its digest: of a repeat the engine says nothing."""
    try:
        kind, key, raw = schema.read(fields)
    except schema.Rejected:
        return "", ""
    return key, schema.digest_of(kind, raw, secret)


def not_at_work(running: Collection[Beat], names: Collection[str], host: str) -> str:
    """Why the services ``names`` are not at work on ``host``, "" where they are: for a health check
    of one container, which the troubles of others do not concern."""
    here = [beat for beat in running if beat.figures.get("host") == host]
    present = {beat.service for beat in here}
    wanted = [n for name in names for n in (DECIDERS if name == ENGINE else (name,))]
    if gone := [name for name in wanted if name not in present]:
        return f"on {host} no {' and '.join(gone)} gives a heartbeat"
    stalled = stalled_s([beat for beat in here if beat.service in wanted])
    return f"it has taken in nothing for {stalled} s" if stalled > STALLED_S else ""


def no_engine(running: Collection[Beat]) -> str:
    """A line that says which services for tasks nobody runs, or that the engine takes nothing
    in; "" where all is well. Their heartbeats tell; ids and times of entries say nothing about
    that."""
    parts = [part for part in missing(running) if part in STANDS_STILL]
    gone = [part.service for part in parts]
    if "intake" in gone and "dispatcher" in gone:
        return NO_ENGINE
    if gone:
        names, still = " and ".join(gone), "; ".join(STANDS_STILL[part] for part in parts)
        return f"no {names} runs: {still}; start `asb up`, or `asb service {' '.join(gone)}`"
    stalled = stalled_s(running)
    if stalled > STALLED_S:
        return f"the engine runs, and has taken in nothing for {stalled} s; see `asb doctor`"
    return ""


def engines(running: Collection[Beat]) -> list[Beat]:
    """Those that take in what comes; a standby does not."""
    intakes = (beat for beat in running if beat.service == "intake")
    return [beat for beat in intakes if beat.figures.get("role") == "active"]


def stalled_s(running: Collection[Beat]) -> int:
    """For how many seconds the engine has taken nothing in though entries wait, by its own
    clock."""
    return max((engine.number("stalled_s") for engine in engines(running)), default=0)


def catch_up(bus: Bus, state: State) -> None:
    """Fold what came since."""
    for events in bus.read(state.meta.log_id):
        for event in events:
            fold.apply(state, event)


class Stalled:
    """Says, once per change, why tasks that somebody waits for do not move."""

    def __init__(self, bus: Bus, say: Callable[[str], object]) -> None:
        self._bus, self._say_it = bus, say
        self._state: State | None = None
        self._said = ""
        self._unanswered = Unanswered(bus)

    def look(self, tasks: Collection[str]) -> None:
        """Nothing was heard of ``tasks`` for a while."""
        reason = self._reason(tasks)
        plain = re.sub(r"\d[\d,.]*( (ms|s|min|h|d)\b)*", "", reason)  # a countdown is no change
        if reason and plain != self._said:
            self._say_it(reason)
        self._said = plain or self._said

    def _reason(self, tasks: Collection[str]) -> str:
        if self._state is None:
            self._state = self._bus.state()
        else:
            catch_up(self._bus, self._state)
        state, now = self._state, self._bus.now()
        running = beats(self._bus.client, self._bus.keys)
        if gone := no_engine(running):
            return gone
        if self._unanswered.waited_s(state) >= UNTAKEN_S:
            return NO_ENGINE
        waiting = [t for name in tasks if (t := state.tasks.get(name)) is not None]
        if not waiting or any(t.status in RUNNING for t in waiting):
            return ""
        first = min(waiting, key=lambda t: (t.rank, t.n))
        more = f" (and {len(tasks) - 1:,} more)" if len(tasks) > 1 else ""
        errors = last_errors(self._bus, [first])
        why = Waiting(state, now, missing_names(running), errors).reason(first)
        return f"{first.id}{more} waits: {why}"
