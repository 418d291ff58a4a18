"""A moment of the log: named by a log id or a time, and the state as it was then."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from events.log import START
from projections.state import State
from services.client.bus import Bus
from services.runtime.errors import Refused

LAST = "18446744073709551615"  # the largest second part of an id
HOW = (
    "a log id (1763793042123-0), a time (2026-11-22T06:30 or 06:30:42, UTC unless it says "
    "otherwise), or how long ago (-15m, -2h, -3d)"
)
_ID = re.compile(r"\d{10,19}-\d{1,19}|0-0")
_AGO = re.compile(r"-(\d{1,6})([smhd])")
_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(msgspec.Struct, frozen=True):
    """A place on the log: everything up to ``until``, seen at ``now`` (µs; 0: the time of the last
    event up to there)."""

    until: str
    now: int = 0


def moment(text: str, now: int) -> Moment:
    """What ``text`` names, at the server's time ``now`` (µs). Raises Refused for what names none.

    A time counts by the ids of the log, which are the server's milliseconds.
    """
    text = text.strip()
    if _ID.fullmatch(text):
        return Moment(text)
    at = _time(text, now)
    if at is None:
        raise Refused(f"{text!r} names no moment", hint=HOW)
    return Moment(f"{max(0, at // 1000)}-{LAST}", at)


def _time(text: str, now: int) -> int | None:
    """The time that ``text`` names, µs."""
    server = datetime.fromtimestamp(now // 1_000_000, UTC)
    try:
        if ago := _AGO.fullmatch(text):
            named = server - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        elif _OF_DAY.fullmatch(text):
            day = datetime.fromisoformat(f"{server.date().isoformat()}T{text.zfill(5)}")
            named = day.replace(tzinfo=UTC)
            named -= timedelta(days=1) if named > server else timedelta()
        else:
            named = datetime.fromisoformat(text)
            named = named if named.tzinfo else named.replace(tzinfo=UTC)
        return int(named.timestamp() * 1000) * 1000
    except (ValueError, OverflowError):
        return None


def state_at(bus: Bus, chosen: Moment) -> tuple[State, int]:
    """The state at a moment and its time, µs. Raises Refused where the log had not begun."""
    state = bus.state(chosen.until)
    if state.meta.log_id == START:
        first = bus.history.first()
        raise Refused(
            "there was no log yet at that moment",
            hint=f"it begins at {first}" if first else "the log is empty: submit a task",
        )
    return state, max(chosen.now, state.meta.at)


def step(bus: Bus, log_id: str, by: int) -> str:
    """The log id ``by`` entries after (before, where negative) ``log_id``; the first or last one
    where there are not so many."""
    history = bus.history
    batches = history.newest(f"({log_id}") if by < 0 else history.entries(log_id)
    left = max(1, abs(by))
    for batch in batches:
        log_id = batch[min(left, len(batch)) - 1][0].decode()
        left -= len(batch)
        if left <= 0:
            break
    return log_id
