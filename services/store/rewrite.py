"""A stream written anew: how words leave Redis.

Redis keeps the bytes of deleted entries until their whole node goes, so entries are copied aside
with their ids, some changed, some left out, and the copy takes the stream's place. Ids, last id,
counters and consumer groups stay; who reads or appends meanwhile notices nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from events.keys import rewrite_copy, rewrite_run, rewritten
from events.log import START
from services.runtime.errors import CommandRefused
from services.runtime.failpoints import point
from services.store.client import Client
from services.store.replies import info_of
from services.store.scripts import Argument, script

COUNT = 500  # entries a script: a longer one stops Redis for too long
BYTES = 2_000_000  # of entries a script, more or less
FIELDS_MAX = 7_000  # values of one entry that a script can hand on
TRIES = 5  # how often a copy is begun that somebody else's hand has spoilt
SHARE_PERCENT = 110  # of a stream's size that has to be free for its copy

Fields: TypeAlias = list[bytes]
Change: TypeAlias = Callable[[str, Fields], Fields | None]
"""What becomes of an entry: other fields, none (``[]``) where it is left out, None as it is."""


class RewriteRefused(Exception):
    """A stream cannot be written anew now; the text says why, and what helps."""


class Rewritten(msgspec.Struct, frozen=True):
    """What a rewrite did: entries copied, and how many of them were changed or left out."""

    copied: int = 0
    changed: int = 0


class Rewrite:
    """Writes one stream anew. ``alive`` is asked for before each step, and may raise."""

    def __init__(
        self, client: Client, stream: str, change: Change, alive: Callable[[], Awaitable[None]]
    ) -> None:
        self._client, self._stream, self._change, self._alive = client, stream, change, alive
        self._run = secrets.token_hex(8)
        self._copied = self._changed = self._left_out = 0
        self._count = COUNT
        self._keys = [
            stream,
            rewrite_copy(stream),
            rewrite_run(stream),
            rewritten(stream),
        ]

    async def run(self) -> Rewritten:
        """Do it, from the beginning to the exchange. Raises RewriteRefused and RedisUnavailable."""
        await check_memory(self._client, self._stream)
        for _ in range(TRIES):
            self._copied = self._changed = self._left_out = 0
            begun = await script("rewrite_begin")(self._client, self._keys[:3], [self._run])
            if not begun:
                return Rewritten()  # no stream, so nothing stands there
            point("rewrite.begun")
            if await self._copy():
                point("rewrite.exchanged")
                return Rewritten(self._copied, self._changed)
        raise RewriteRefused(f"{self._stream} was changed by another hand each time it was copied")

    async def _copy(self) -> bool:
        """Copy all and exchange; whether nobody spoilt it."""
        cursor = START
        while True:
            await self._alive()
            entries = await self._client.call(
                "XRANGE", self._stream, f"({cursor}", "+", "COUNT", self._count
            )
            last = len(entries) < self._count
            outcome, copied = await self._step(cursor, entries, last=last)
            if outcome in ("lost", "changed"):
                return False
            if outcome == "ok":
                self._copied += copied
                point("rewrite.step")
            if outcome == "ok" and last:
                return True
            if outcome == "ok":
                cursor = entries[-1][0].decode()
                self._fit(entries)

    def _fit(self, entries: list[Any]) -> None:
        """How many entries the next script may copy: long ones take longer."""
        size = sum(sum(map(len, fields)) for _, fields in entries)
        self._count = max(1, min(COUNT, len(entries) * BYTES // max(1, size)))

    async def _step(self, cursor: str, entries: list[Any], *, last: bool) -> tuple[str, int]:
        changed, left_out = 0, 0
        args: list[Argument] = []
        for place, fields in entries:
            after = self._change(place.decode(), fields)
            if len(fields) > FIELDS_MAX and (after is None or len(after) > FIELDS_MAX):
                raise RewriteRefused(
                    f"an entry of {self._stream} has {len(fields) // 2:,} fields, too many to be "
                    f"copied; delete it: XDEL {self._stream} {place.decode()}"
                )
            if after is not None:
                changed, left_out = changed + 1, left_out + (not after)
                args += (place, len(after) // 2, *after)
        until = entries[-1][0] if entries else cursor
        head: list[Argument] = [self._run, self._copied, cursor, until, "last" if last else ""]
        head += [self._left_out + left_out, changed]
        reply = await script("rewrite")(self._client, self._keys, head + args)
        outcome = reply[0].decode()
        if outcome == "ok":
            self._changed, self._left_out = self._changed + changed, self._left_out + left_out
        return outcome, reply[1] if outcome == "ok" else 0


async def check_memory(client: Client, stream: str) -> None:
    """Raise RewriteRefused unless the server has room for a copy of ``stream``, where it says how
    much it has."""
    try:
        size = await client.call("MEMORY", "USAGE", stream) or 0
        info = await client.beside(stream, "INFO", "memory")
    except CommandRefused:
        return
    said = info_of(info)
    used, bound = int(said.get("used_memory", 0)), int(said.get("maxmemory", 0))
    bound = bound or int(said.get("total_system_memory", 0))
    needed = size * SHARE_PERCENT // 100
    if bound and used + needed > bound:
        raise RewriteRefused(
            f"{stream} takes {size / 2**20:,.0f} MiB and its copy as much, and Redis has "
            f"{max(0, bound - used) / 2**20:,.0f} MiB left: raise maxmemory for a while"
        )


async def has_any(client: Client, stream: str, wanted: Callable[[str, Fields], bool]) -> bool:
    """Whether some entry of ``stream`` is ``wanted``; reads it up to there."""
    cursor, count = START, COUNT
    while True:
        entries = await client.call("XRANGE", stream, f"({cursor}", "+", "COUNT", count)
        if any(wanted(place.decode(), fields) for place, fields in entries):
            return True
        if len(entries) < count:
            return False
        cursor = entries[-1][0].decode()
