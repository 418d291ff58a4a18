"""The log: one ordered stream, appended to by turns and read by everybody."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, MutableSequence, Sequence
from typing import Any

import msgspec

from events.envelope import (
    Event,
    ForeignEntry,
    UnsupportedEvent,
    decode,
    words_of,
)
from events.keys import Keys
from events.log import START, after, parse_id
from events.task import TaskForgotten
from events.usage import ProgressUpdated, UsageRecorded
from services.decider import Taken
from services.runtime.errors import CommandRefused, LogError
from services.runtime.failpoints import point
from services.store.carried import entries_now_at
from services.store.client import Client, SyncClient
from services.store.scripts import Argument, script

__all__ = ["START", "Appended", "Base", "Log", "after", "decoded", "owned", "parse_id"]

CLOCK_DIFFERENCE_MAX = 5_000_000  # µs: a turn decided on a clock further off is decided again
READ_COUNT = 1_000  # entries a read: 5,000 was measured 19 % slower
DAY_US = 86_400_000_000


class Base(msgspec.Struct, frozen=True, gc=False):
    """What a turn is decided on: the last event folded, its time (µs, 0: not compared), and the
    last entry seen, which is another where foreign entries stand behind that event."""

    event: str
    at: int = 0
    entry: str = ""


def new_name() -> str:
    """A name for a log that begins: no other has it."""
    return secrets.token_hex(8)


class Note(msgspec.Struct, gc=False):
    """An entry of an inbox, by its key: it carries the log id of the event that it stands for."""

    inbox: str
    log_id: str
    fields: list[str]  # names and values in turn


class Appended(msgspec.Struct, frozen=True):
    """What became of a turn: ``ok``, ``conflict`` (with the entries missed: none where only a
    foreign entry went away), ``gone``, ``behind`` (with the last id given out) or ``clock``.
    ``noted``: every note stands in its inbox, too."""

    outcome: str
    server_time: int
    missed: list[Any] = []
    last_id: str = START
    noted: bool = True


def _is_foreign(event: Event) -> bool:
    """Whether it is about work that asb did not dispatch: that takes no task id from anybody."""
    payload = event.data
    return type(payload) in (ProgressUpdated, UsageRecorded) and not payload.attempt


def decoded(entries: Sequence[Any], foreign: MutableSequence[str] | None = None) -> list[Event]:
    """Raw entries of the log as events. Foreign ones are left out; their ids go to ``foreign``.

    Raises LogError for what must not be skipped.
    """
    try:
        return [decode(entry) for entry in entries]
    except (ForeignEntry, UnsupportedEvent):
        return [event for _, event in owned(entries, foreign)]


def owned(
    entries: Iterable[Any], foreign: MutableSequence[str] | None = None
) -> Iterator[tuple[Any, Event]]:
    """As ``decoded``, each event with its raw entry."""
    for entry in entries:
        try:
            yield entry, decode(entry)
        except ForeignEntry:
            if foreign is not None:
                foreign.append(entry[0].decode())
        except UnsupportedEvent as error:
            raise LogError(
                f"cannot go on: {error}",
                hint="was it written by a newer asb? Then upgrade this one",
            ) from error


class Log:
    """The log of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._append = script("append")
        self._one_slot = True  # until a server says that inboxes lie in other slots than the log

    async def append(
        self,
        expected: Base | str,
        now: int,
        events: list[Event],
        taken: Iterable[Taken] = (),
        notes: Sequence[Note] = (),
    ) -> Appended:
        """Append ``events`` iff the log's last entry is still ``expected``, and ``notes`` of them.

        Raises RedisUnavailable when the outcome is unknown, CommandRefused (nothing was written)
        where a key it needs is of another type.
        """
        base = Base(expected) if isinstance(expected, str) else expected
        notes = notes if self._one_slot else ()
        keys, args = self._arguments(base, now, events, list(taken), notes)
        if events:
            point("append.before")
        if notes:
            point("inbox.before")
        try:
            reply = await self._append(self._client, keys, args)
        except CommandRefused as error:
            if not notes or not str(error).startswith("CROSSSLOT"):
                raise
            self._one_slot = False  # a Cluster: whoever projects the inboxes writes to them
            return await self.append(base, now, events, taken, notes)
        if events:
            point("append.after")
        if notes:
            point("inbox.after")
        outcome = reply[0].decode()
        missed: list[Any] = reply[2] if outcome == "conflict" else []
        last_id = reply[2].decode() if outcome == "behind" else START
        noted = self._one_slot and outcome == "ok" and not reply[2]
        return Appended(outcome, int(reply[1]), missed, last_id, noted)

    def _arguments(
        self,
        base: Base,
        now: int,
        events: list[Event],
        taken: list[Taken],
        notes: Sequence[Note],
    ) -> tuple[list[str], list[Argument]]:
        indexes: dict[str, list[str]] = {}
        args: list[Argument] = [base.entry or base.event, now, CLOCK_DIFFERENCE_MAX]
        args += [len(events), 0, base.event, base.at or "", 0]
        for e in events:
            args += (e.log_id, e.data.type, e.id, e.source, e.origin, e.raw)
            task = getattr(e.data, "task", "")
            if task and not _is_foreign(e):
                indexes.setdefault(task, []).append(e.log_id)
        args[4] = len(indexes)
        for ids in indexes.values():
            args.append(len(ids))
            args += ids
        prefix, duplicates = self._keys.task_index_prefix, self._keys.duplicates(now // DAY_US)
        keys = [self._keys.log, *(prefix + t for t in indexes), *(duplicates for _ in taken)]
        for mark in taken:
            args += (mark.key, f"{mark.digest} {mark.place}")
        for e in events:
            if type(e.data) is TaskForgotten:  # nobody shows its words from this moment on
                keys.append(self._keys.forgotten)
                args += (e.data.task, e.log_id)
        inboxes: dict[str, list[Note]] = {}
        for note in notes:
            inboxes.setdefault(note.inbox, []).append(note)
        args[7] = len(inboxes)
        for inbox, of_it in inboxes.items():
            keys.append(inbox)
            args.append(len(of_it))
            for note in of_it:
                args += (note.log_id, len(note.fields) // 2, *note.fields)
        return keys, args

    async def last_id(self) -> str:
        """The last id the log gave out, "0-0" for an empty one."""
        reply = await self._client.call("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1)
        return reply[0][0].decode() if reply else START

    async def holds(self, base: Base) -> bool:
        """Whether the event is (still) there, and still that one; the start of the log always is.
        An event of another time has taken its id on a log that went back and on again."""
        if base.event == START:
            return True
        reply = await self._client.call("XRANGE", self._keys.log, base.event, base.event)
        if reply:
            return not base.at or int(reply[0][1][9]) == base.at
        return await self._trimmed_to_nothing(base.event)

    async def _trimmed_to_nothing(self, entry_id: str) -> bool:
        """Whether every entry was deleted by hand and this was the last one ever: who has folded it
        knows all there was."""
        try:
            info = await self._client.call("XINFO", "STREAM", self._keys.log)
        except CommandRefused:  # no such key
            return False
        stream = dict(zip(info[0::2], info[1::2], strict=True))
        return stream[b"length"] == 0 and stream[b"last-generated-id"].decode() == entry_id

    async def read(self, cursor: str, until: str = "+") -> AsyncIterator[list[Event]]:
        """The events after ``cursor``, in batches. Raises LogError."""
        while True:
            entries = await self._client.call(
                "XRANGE", self._keys.log, f"({cursor}", until, "COUNT", READ_COUNT
            )
            if entries:
                cursor = entries[-1][0].decode()
                yield decoded(entries)
            if len(entries) < READ_COUNT:
                return

    async def texts(self, places: dict[str, str]) -> dict[str, str]:
        """The prompts of tasks, by task id; ``places`` maps it to the log id of its submission."""
        there = await entries_now_at(self._client, self._keys, places.values())
        read = ((task, decoded([there[p]])) for task, p in places.items() if p in there)
        return {task: words_of(events[0]).get("text", "") for task, events in read if events}

    async def words_at(self, place: str) -> dict[str, Any]:
        """The words of the event at ``place``, none where it is gone."""
        there = await entries_now_at(self._client, self._keys, [place])
        events = decoded(list(there.values()))
        return words_of(events[0]) if events else {}

    async def taken_ids(self, ids: Iterable[str], now: int, days: int) -> dict[str, str]:
        """The idempotency keys taken within ``days``, with the digest of their content. One that
        was taken by an event which the log has lost is free again."""
        wanted = list(ids)
        if not wanted:
            return {}
        today = now // DAY_US
        replies = await self._client.all(
            ("HMGET", self._keys.duplicates(today - back), *wanted) for back in range(days + 1)
        )
        taken: dict[str, tuple[str, str]] = {}
        for reply in replies:
            for key, value in zip(wanted, reply, strict=True):
                if value is not None:
                    taken.setdefault(key, split_taken(value))
        lost = await self._lost(place for _, place in taken.values())
        return {key: digest for key, (digest, place) in taken.items() if place not in lost}

    async def known_tasks(self, tasks: Iterable[str]) -> frozenset[str]:
        """Which of these task ids stand on the log, or stood on its trimmed part."""
        wanted = list(tasks)
        replies = await self._client.all(
            ("LINDEX", self._keys.task_index(task), 0) for task in wanted
        )
        places = {
            task: place.decode()
            for task, place in zip(wanted, replies, strict=True)
            if place is not None
        }
        lost = await self._lost(places.values())
        return frozenset(task for task, place in places.items() if place not in lost)

    async def _lost(self, places: Iterable[str]) -> set[str]:
        """Which of these places the log has lost at its end: a hand deleted the entry, or the log
        went back. What lies before its first entry was trimmed, and counts."""
        wanted = sorted({place for place in places if place})
        if not wanted:
            return set()
        first, *replies = await self._client.all(
            ("XRANGE", self._keys.log, *where)
            for where in (("-", "+", "COUNT", 1), *((place, place) for place in wanted))
        )
        begin = first[0][0].decode() if first else START
        missing = (p for p, reply in zip(wanted, replies, strict=True) if not reply)
        return {place for place in missing if after(place, begin)}


def stands(client: SyncClient, keys: Keys, place: str, at: int) -> bool:
    """Whether the event at ``place`` is (still) on the log, and still the one of that time (µs): on
    a log that went back and on again another may have its id. The start of the log always is."""
    if place == START:
        return True
    entries = client.call("XRANGE", keys.log, place, place)
    return bool(entries) and int(entries[0][1][9]) == at


def split_taken(value: bytes) -> tuple[str, str]:
    """What a hash of idempotency keys says: the digest, and the log id of the event."""
    digest, _, place = value.decode().rpartition(" ")
    return digest, place
