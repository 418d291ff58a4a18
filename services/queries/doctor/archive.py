"""What doctor says of the archive: how far it reaches, how long the log stays in Redis, and whether
the archive holds words."""

from __future__ import annotations

from collections.abc import Iterator

from projections.format import count
from services.client.bus import Bus
from services.store.health import FactRow
from services.store.heartbeat import beats
from services.store.history import read_mark

LATE = 2  # times what the policy keeps, from which on the log is too long


def archive_rows(bus: Bus) -> Iterator[FactRow]:
    """From the mark in Redis and the service's heartbeat: the files may lie on another host."""
    policy, mark = bus.settings.archive, read_mark(bus.client, bus.keys)
    age = f" and {policy.keep_days:,} days" if policy.keep_days else ""
    bound = policy.keep_events + policy.segment_events
    length = bus.client.call("XLEN", bus.keys.log)
    words = f"the newest {policy.keep_events:,} entries{age} stay in Redis ({length:,} now)"
    hint = "the service `archive` cuts it: is it running, and what does it say on standard error?"
    yield ("retention", words, "warn" if length > LATE * bound else "ok", hint)
    for beat in beats(bus.client, bus.keys):
        if beat.service == "archive" and (error := beat.figures.get("archive_error")):
            hint = "until it can be archived the log in Redis grows; it is tried again by itself"
            yield ("archiving", error, "bad", hint)
    kept_words = "with" if policy.words else "without"
    if mark is None:
        value = f"nothing has left Redis yet; what does is archived {kept_words} what was written"
        yield ("archive", value, "ok", "")
        return
    holds = "with words of tasks and results" if mark.words else "without words"
    value = f"{count(mark.last.n, 'segment')} up to {mark.last.last}, {holds}, in {mark.place}"
    yield ("archive", f"{value}; `asb archive --verify` reads it", "ok", "")
