"""The log: one ordered stream, appended to by turns and read by everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from events.envelope import Event, decode
from events.keys import Keys
from events.usage import ProgressUpdated, UsageRecorded
from services.runtime.client import Client
from services.runtime.points import point
from services.runtime.scripts import Argument, script
from services.turn import Taken

CLOCK_DIFFERENCE_MAX = 5_000_000  # µs: a turn decided on a clock further off is decided again
READ_COUNT = 1_000  # entries a read: 5,000 was measured 19 % slower
DAY_US = 86_400_000_000
START = "0-0"


class Appended(msgspec.Struct, frozen=True):
    """What became of a turn: ``ok``, ``conflict`` (with the entries missed) or ``clock``."""

    outcome: str
    server_time: int
    missed: list[Any] = []


def after(x: str, y: str) -> bool:
    """Whether the entry id ``x`` lies after ``y``."""
    return parse_id(x) > parse_id(y)


def parse_id(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)


def _is_foreign(event: Event) -> bool:
    """Whether it is about work that asb did not dispatch: that takes no task id from anybody."""
    d = event.data
    return isinstance(d, ProgressUpdated | UsageRecorded) and not d.attempt


class Log:
    """The log of one namespace."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._append = script("append")

    async def append(
        self, expected: str, now: int, events: list[Event], taken: Iterable[Taken] = ()
    ) -> Appended:
        """Append ``events`` iff the log's last id is still ``expected``.

        Raises RedisUnavailable when the outcome is unknown.
        """
        keys, args = self._arguments(expected, now, events, list(taken))
        if events:
            point("append.before")
        reply = await self._append(self._client, keys, args)
        if events:
            point("append.after")
        outcome = reply[0].decode()
        return Appended(outcome, int(reply[1]), reply[2] if outcome == "conflict" else [])

    def _arguments(
        self, expected: str, now: int, events: list[Event], taken: list[Taken]
    ) -> tuple[list[str], list[Argument]]:
        indexes: dict[str, list[str]] = {}
        args: list[Argument] = [expected, now, CLOCK_DIFFERENCE_MAX, len(events), 0]
        for e in events:
            args += (e.log_id, e.data.type, e.id, e.source, e.origin, e.raw)
            task = getattr(e.data, "task", "")
            if task and not _is_foreign(e):
                indexes.setdefault(task, []).append(e.log_id)
        args[4] = len(indexes)
        for ids in indexes.values():
            args.append(len(ids))
            args += ids
        duplicates = self._keys.duplicates(now // DAY_US)
        for mark in taken:
            args += (mark.key, mark.digest)
        prefix = self._keys.task_index_prefix
        keys = [self._keys.log, *(prefix + t for t in indexes), *(duplicates for _ in taken)]
        return keys, args

    async def last_id(self) -> str:
        """The last id the log gave out, "0-0" for an empty one."""
        found = await self._client.call("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else START

    async def holds(self, entry_id: str) -> bool:
        """Whether the entry is (still) there; the start of the log always is."""
        if entry_id == START:
            return True
        return bool(await self._client.call("XRANGE", self._keys.log, entry_id, entry_id))

    async def read(self, cursor: str, until: str = "+") -> AsyncIterator[list[Event]]:
        """The events after ``cursor``, in batches. Raises UnsupportedEvent."""
        while True:
            entries = await self._client.call(
                "XRANGE", self._keys.log, f"({cursor}", until, "COUNT", READ_COUNT
            )
            if entries:
                cursor = entries[-1][0].decode()
                yield [decode(entry) for entry in entries]
            if len(entries) < READ_COUNT:
                return

    async def texts(self, places: dict[str, str]) -> dict[str, str]:
        """The prompts of tasks, by task id; ``places`` maps it to the log id of its submission."""
        if not places:
            return {}
        replies = await self._client.all(
            ("XRANGE", self._keys.log, place, place) for place in places.values()
        )
        found = zip(places, replies, strict=True)
        return {task: decode(entries[0]).data.text for task, entries in found if entries}

    async def taken_ids(self, ids: Iterable[str], now: int, days: int) -> dict[str, str]:
        """The idempotency keys taken within ``days``, with the digest of their content."""
        wanted = list(ids)
        if not wanted:
            return {}
        today = now // DAY_US
        replies = await self._client.all(
            ("HMGET", self._keys.duplicates(today - back), *wanted) for back in range(days + 1)
        )
        found: dict[str, str] = {}
        for reply in replies:
            for key, digest in zip(wanted, reply, strict=True):
                if digest is not None:
                    found.setdefault(key, digest.decode())
        return found

    async def known_tasks(self, tasks: Iterable[str]) -> frozenset[str]:
        """Which of these task ids ever stood on the log."""
        wanted = list(tasks)
        replies = (
            await self._client.all(("EXISTS", self._keys.task_index(task)) for task in wanted)
            if wanted
            else []
        )
        return frozenset(t for t, found in zip(wanted, replies, strict=True) if found == 1)
