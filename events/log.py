"""The log as such: its ids, its first event, and what happens to it."""

from __future__ import annotations

from events.envelope import Event, Payload, wire
from events.words import Label, Phrase

START = "0-0"  # before the first entry
NAMED = "log:"  # what the event id of a log's first event begins with; a random name follows


def parse_id(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)


def is_id(text: str) -> bool:
    """Whether ``text`` is the whole id of an entry."""
    ms, dash, seq = text.partition("-")
    return bool(dash) and all(n.isascii() and n.isdigit() and len(n) <= 20 for n in (ms, seq))


def after(x: str, y: str) -> bool:
    """Whether the entry id ``x`` lies after ``y``."""
    return parse_id(x) > parse_id(y)


def begins(event: Event) -> bool:
    """Whether a log begins with this event: it carries the log's name, which a host gave it. (An
    id that came in with an entry may look the same.)"""
    return event.id.startswith(NAMED) and not event.origin


@wire("log.went_back")
class LogWentBack(Payload):
    """A host saw its past go: what it had folded last is not on the log any more.

    ``was``: the log id of that event, ``now``: the last event the log still held when it looked,
    "0-0" for an empty one. What was used between the two is forgotten with it.
    """

    was: Label
    now: Label


@wire("log.trimmed")
class LogTrimmed(Payload):
    """Somebody cut the beginning off the log: ``first`` is the first entry now, "0-0" where nothing
    was left. Whoever says this had folded what is gone, and keeps it in a snapshot."""

    first: Label


@wire("log.foreign_entries")
class LogForeignEntries(Payload):
    """Entries on the log that asb did not write. They are skipped; this says so.

    ``count``: how many since it was last said (at least, where they are very many), with the log
    ids of the ``first`` and the ``last`` of them.
    """

    count: int
    first: Label
    last: Label


@wire("words.removed")
class WordsRemoved(Payload):
    """Words were taken out of the log and of every stream that held them.

    ``until``: the log id of the last ``task.forgotten`` that this carries out, "" for none.
    ``before``: words of tasks that had ended by then (µs) went too, 0 for none. ``tasks`` and
    ``entries`` count what was taken out this time; ``kept`` says where the server may still hold
    the bytes, "" for nowhere.
    """

    until: Label = ""
    before: int = 0
    tasks: int = 0
    entries: int = 0
    kept: Phrase = ""
