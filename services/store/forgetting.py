"""Words leave Redis: who does it, over which keys, and when it is done.

One host does it at a time, for all that is to be forgotten by then; a host that dies at it leaves
the log as it was, and another begins anew.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import anyio

from events.envelope import without_words
from events.keys import Keys, escaped, rewrite_copy
from events.log import parse_id
from services.runtime.errors import CommandRefused, RedisUnsuitable
from services.runtime.failpoints import point
from services.store.client import Client
from services.store.raw_entries import task_of
from services.store.replies import info_of
from services.store.rewrite import Fields, Rewrite, RewriteRefused, has_any

logger = logging.getLogger("asb")

HELD_MS = 5_000  # how long nobody else takes over from a host that says nothing more
SCAN_COUNT = 500
AOF_POLL_S = 0.1
AOF_MAX_S = 3_600.0
WAITAOF_MS = 10_000
PROBLEM_S = 600
Alive = Callable[[], Awaitable[None]]
IsAbout = Callable[[str, str, Fields], bool]  # intake, entry id, fields
_NO_TEXT = frozenset(
    b"type log task attempt session kind agent model deadline priority timeout_s action".split()
)  # fields of an inbox entry
_LETTER = 8  # values of a dead letter before those of its entry: intake, entry, error, size


class LostHold(Exception):
    """Another host has taken over."""


class Hold:
    """The right to take words out, of one host at a time."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._key = client, keys.rewriter
        self._token = secrets.token_hex(8)

    async def take(self) -> bool:
        """Whether it is ours now."""
        return bool(await self._client.call("SET", self._key, self._token, "NX", "PX", HELD_MS))

    async def keep(self) -> None:
        """It is still ours. Raises LostHold."""
        if await self._client.call("GET", self._key) != self._token.encode():
            raise LostHold
        await self._client.call("PEXPIRE", self._key, HELD_MS)

    async def release(self) -> None:
        if await self._client.call("GET", self._key) == self._token.encode():
            await self._client.call("DEL", self._key)


class Removal:
    """Takes the words of ``tasks`` out of everything the bus keeps in Redis."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        tasks: Collection[str],
        cursors: dict[str, str],
        is_about: IsAbout,
        alive: Alive,
    ) -> None:
        """``cursors``: up to which entry each intake was taken in."""
        self._client, self._keys = client, keys
        self._tasks, self._cursors, self._is_about, self._alive = tasks, cursors, is_about, alive
        self.entries = 0

    async def run(self, now: int) -> str:
        """Do it; where the server may still hold the bytes, "" for nowhere. ``now``: µs.

        Raises RewriteRefused, LostHold and RedisUnavailable.
        """
        keys = self._keys
        self.entries += await self._log(now)
        point("forget.log")
        for intake in await self._scan("stream", escaped(keys.main_intake) + "*"):
            if intake == keys.main_intake or intake.startswith(keys.main_intake + ":"):
                await self._intake(intake)
        point("forget.intakes")
        await self._rewritten(keys.deadletter, self._in_letter, self._letter)
        point("forget.letters")
        await self._progress()
        for inbox in await self._scan("stream", escaped(keys.inbox("")) + "*"):
            await self._rewritten(inbox, self._in_inbox, self._inbox)
        point("forget.inboxes")
        kept = await on_disk(self._client, self._alive)
        await self._client.call("DEL", keys.rewrite_problem)
        return kept

    async def _rewritten(
        self,
        stream: str,
        wanted: Callable[[str, Fields], bool],
        change: Callable[[str, Fields], Fields],
    ) -> int:
        """Write ``stream`` anew where something in it is ``wanted``; how many it changed."""
        await self._alive()
        if not await has_any(self._client, stream, wanted):
            await self._client.call("UNLINK", rewrite_copy(stream))  # of somebody who died at it
            return 0

        def changed(place: str, fields: Fields) -> Fields | None:
            return change(place, fields) if wanted(place, fields) else None

        return (await Rewrite(self._client, stream, changed, self._alive).run()).changed

    # -- the log ---------------------------------------------------------------------------------

    async def _log(self, now: int) -> int:
        def wanted(_place: str, fields: Fields) -> bool:
            return len(fields) >= 12 and b'"words":' in fields[11] and self._is_ours(fields[11])

        def change(_place: str, fields: Fields) -> Fields:
            return [*fields[:11], without_words(fields[11], now), *fields[12:]]

        changed = await self._rewritten(self._keys.log, wanted, change)
        return changed + await self._rewritten(self._keys.carried, wanted, change)

    def _is_ours(self, data: bytes) -> bool:
        return task_of(data) in self._tasks

    # -- what else holds words ---------------------------------------------------------------------

    async def _intake(self, intake: str) -> None:
        """What was taken in leaves; what was not is kept as marks only once it is."""
        cursor = parse_id(self._cursors.get(intake, "0-0"))

        def wanted(place: str, fields: Fields) -> bool:
            return parse_id(place) <= cursor and self._is_about(intake, place, fields)

        await self._rewritten(intake, wanted, lambda _place, _fields: [])

    def _in_letter(self, _place: str, fields: Fields) -> bool:
        intake, entry = (fields[n].decode(errors="replace") for n in (1, 3))
        return len(fields) > _LETTER and self._is_about(intake, entry, fields[_LETTER:])

    @staticmethod
    def _letter(_place: str, fields: Fields) -> Fields:
        return [*fields[:4], b"error", b"its words were forgotten", *fields[6:_LETTER]]

    def _in_inbox(self, _place: str, fields: Fields) -> bool:
        names = dict(zip(fields[0::2], fields[1::2], strict=False))
        ours = names.get(b"task", b"").decode(errors="replace") in self._tasks
        return ours and not names.keys() <= _NO_TEXT

    @staticmethod
    def _inbox(_place: str, fields: Fields) -> Fields:
        """Without its texts. A dispatch becomes another type: nobody runs it on an empty prompt."""
        kept: Fields = []
        for name, value in zip(fields[0::2], fields[1::2], strict=False):
            dispatch = (name, value) == (b"type", b"task.dispatched")
            kept += (name, b"task.forgotten" if dispatch else value) if name in _NO_TEXT else ()
        return kept

    async def _progress(self) -> None:
        prefix = self._keys.progress_prefix
        for key in await self._scan("string", escaped(prefix) + "*"):
            if key.removeprefix(prefix).partition(":")[2] in self._tasks:
                await self._client.call("DEL", key)

    async def _scan(self, kind: str, pattern: str) -> list[str]:
        """The keys of this type that are like ``pattern``."""
        keys: set[str] = set()
        cursor = b"0"
        while True:
            await self._alive()
            cursor, page = await self._client.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, "TYPE", kind
            )
            keys.update(key.decode(errors="surrogateescape") for key in page)
            if cursor == b"0":
                return sorted(keys)


async def clean_intake(client: Client, intake: str, upto: str, alive: Alive) -> None:
    """Everything up to the entry ``upto`` leaves ``intake``, its bytes too."""
    bound = parse_id(upto)

    def change(place: str, _fields: Fields) -> Fields | None:
        return [] if parse_id(place) <= bound else None

    await Rewrite(client, intake, change, alive).run()


# -- the server's files ----------------------------------------------------------------------------


async def on_disk(client: Client, alive: Alive) -> str:
    """Have the server's files hold what its memory holds. Where they may not, in words."""
    if not any(info.get("aof_enabled") == "1" for info in await _persistence(client)):
        return "" if await _no_snapshots(client) else "its RDB file, until its next save"
    try:
        await _rewrite_aof(client, alive)
    except (CommandRefused, RedisUnsuitable):
        return "its append-only file, until it rewrites that" + await _flushed(client)
    return "" if await _no_snapshots(client) else "its RDB file, until its next save"


async def _rewrite_aof(client: Client, alive: Alive) -> None:
    """Begun after now, and over. Raises CommandRefused where it is refused or fails."""
    await _aof_idle(client, alive)
    await client.everywhere("BGREWRITEAOF")
    point("forget.aof")
    await _aof_idle(client, alive)
    done = [info.get("aof_last_bgrewrite_status", "ok") for info in await _persistence(client)]
    if set(done) != {"ok"}:
        raise CommandRefused("the append-only file could not be rewritten: see the server's log")


async def _aof_idle(client: Client, alive: Alive) -> None:
    with anyio.move_on_after(AOF_MAX_S):
        while any(map(_is_busy, await _persistence(client))):
            await alive()
            await anyio.sleep(AOF_POLL_S)
        return
    raise CommandRefused("the append-only file is being rewritten for an hour already")


def _is_busy(info: dict[str, str]) -> bool:
    return "1" in (info.get("aof_rewrite_in_progress"), info.get("aof_rewrite_scheduled"))


async def _flushed(client: Client) -> str:
    try:
        await client.everywhere("WAITAOF", 1, 0, WAITAOF_MS)
    except (CommandRefused, RedisUnsuitable):
        return ""
    return " (it is flushed)"


async def _no_snapshots(client: Client) -> bool:
    try:
        replies: list[Any] = await client.everywhere("CONFIG", "GET", "save")
    except (CommandRefused, RedisUnsuitable):
        return False
    return all(len(reply) == 2 and not reply[1] for reply in replies)


async def _persistence(client: Client) -> list[dict[str, str]]:
    """Of every server that holds a part of the bus."""
    return [info_of(info) for info in await client.everywhere("INFO", "persistence")]


async def tell_problem(client: Client, keys: Keys, problem: RewriteRefused) -> None:
    """Keep, for doctor, why words are still there."""
    if await client.call("GET", keys.rewrite_problem) != str(problem).encode():
        logger.error("words that are to be forgotten are still there: %s", problem)
    await client.call("SET", keys.rewrite_problem, str(problem), "EX", PROBLEM_S)
