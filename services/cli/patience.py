"""Why nothing happens: whether a desk takes in what comes, and what tasks wait for."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from projections.state import State
from projections.tasks import RUNNING
from services.cli.bus import Bus
from services.cli.follow import repeats
from services.cli.out import note
from services.cli.waiting import Waiting
from services.cli.words import span
from services.intake import shapes
from services.runtime import replay
from services.runtime.log import after

PATIENCE_MS = 3_000  # an entry that waits at a door for longer has no desk
LOOKED_AT = 500  # entries at a door
NO_DESK = "no desk runs: entries wait at the door; start `asb up`"


def silence(b: Bus, state: State, now: int) -> int:
    """For how long entries wait at the shared door for a desk, µs; 0 where none does.

    A desk has no sign of life of its own: entries that it does not take in tell.
    """
    door = b.keys.main_door
    done = state.doors.get(door, "0-0")
    mark = b.client.call("HGET", b.keys.deadletter_marks, door)  # what is refused moves no cursor
    if mark is not None and after(mark.decode(), done):
        done = mark.decode()
    entries: list[Any] = b.client.call("XRANGE", door, f"({done}", "+", "COUNT", LOOKED_AT)
    before = now // 1000 - PATIENCE_MS
    old = [(ms, e[1]) for e in entries if (ms := int(e[0].partition(b"-")[0])) < before]
    given = [_given(fields) for _, fields in old]
    same = repeats(b, {one for one in given if one[0]})
    return next(
        (now - ms * 1000 for (ms, _), one in zip(old, given, strict=True) if one not in same), 0
    )


def _given(fields: list[bytes]) -> tuple[str, str]:
    """The idempotency key of an entry and its digest: of a repeat the desk says nothing."""
    try:
        kind, key, raw = shapes.read(fields)
    except shapes.Bad:
        return "", ""
    return key, shapes.digest_of(kind, raw)


def no_desk(b: Bus, state: State, now: int) -> str:
    """A line that says that no desk runs, "" where one does, or nobody can tell."""
    silent = silence(b, state, now)
    return f"no desk has answered for {span(silent)}; start `asb up`" if silent else ""


def catch_up(b: Bus, state: State) -> None:
    """Fold what came since."""
    for events in replay.read_log(b.client, b.keys, state.meta.log_id):
        for event in events:
            state.apply(event)


class Patience:
    """Says, once per change, why tasks that somebody waits for do not move."""

    def __init__(self, b: Bus) -> None:
        self._bus = b
        self._state: State | None = None
        self._said = ""

    def look(self, tasks: Collection[str]) -> None:
        """Nothing was heard of ``tasks`` for a while."""
        found = self._reason(tasks)
        plain = re.sub(r"\d[\d,.]*( (ms|s|min|h|d)\b)*", "", found)  # a countdown is no change
        if found and plain != self._said:
            note(found)
        self._said = plain or self._said

    def _reason(self, tasks: Collection[str]) -> str:
        if self._state is None:
            self._state = self._bus.state()
        else:
            catch_up(self._bus, self._state)
        state, now = self._state, self._bus.now()
        if silence(self._bus, state, now):
            return NO_DESK
        waiting = [t for name in tasks if (t := state.tasks.get(name)) is not None]
        if not waiting or any(t.status in RUNNING for t in waiting):
            return ""
        first = min(waiting, key=lambda t: (t.rank, t.n))
        more = f" (and {len(tasks) - 1:,} more)" if len(tasks) > 1 else ""
        return f"{first.id}{more} waits: {Waiting(state, now).reason(first)}"
