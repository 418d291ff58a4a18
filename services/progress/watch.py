"""Where documents were written: told by the server, or found by a scan that keeps its pace.

Keyspace notifications tell at once where they are on; whether they are is not asked but tried: a
probe is set now and then, and heard or not. While it is heard nothing is scanned, but for one sweep
after each (re)connection, for what was written when nobody listened. Where it is not heard, sweeps
follow each other, at most 1 % of the server's time; a sweep costs by the whole keyspace.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio

from events.keys import Keys, escaped
from services.progress.projector import BATCH, Documents
from services.projector import Projector, Setup
from services.runtime.clock import elapsed
from services.runtime.errors import CommandRefused, RedisUnsuitable
from services.store.client import Client
from services.store.health import sends_needed_events

logger = logging.getLogger("asb")

PROBE_S = 10.0  # how often it is tried whether notifications are heard
HEARD_S = 0.5  # how soon a probe must be heard
RETRY_S = 30.0  # where this Redis user may not listen at all
SWEEP_S = 0.5  # at most so often
SHARE = 100  # one part in so many of the server's time
SCAN_COUNT = 1_000
GONE = frozenset((b"del", b"expired", b"expire", b"evicted", b"rename_from", b"persist"))


class Loop(Projector):
    """Work that runs beside, again and again; what happens on the log is no news to it."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._work = work

    async def run(self) -> None:
        """The work, once. Raises RedisUnavailable."""
        await self._work()


class ProgressWatch:
    """Tells ``documents`` where to look.

    ``works``: notifications are heard at present; ``wanted``: one sweep is due although they are.
    """

    def __init__(self, client: Client, keys: Keys, documents: Documents) -> None:
        self._client, self._keys, self._documents = client, keys, documents
        self._recent: deque[float] = deque(maxlen=20)  # seconds that SCAN took
        self.wanted = True
        self._probe_heard = anyio.Event()
        self._probe_wake = anyio.Event()
        self._sweep_wake = anyio.Event()
        self.works = False
        self.sweeps = 0

    def loops(self) -> list[Loop]:
        """What has to run, each by itself: one that waits for Redis must not hold up the others."""
        return [Loop(self.listen), Loop(self.probe), Loop(self.sweep), Loop(self._documents.take)]

    # -- told by the server --------------------------------------------------------------------

    async def listen(self) -> None:
        """Listen until the connection is lost. Raises RedisUnavailable."""
        messages = self._client.messages(*self._keys.notices)
        try:
            async for message in messages:
                self._hear(message)
        except (CommandRefused, RedisUnsuitable) as error:
            logger.warning("asb may not listen to this Redis: %s", str(error).splitlines()[0])
            await anyio.sleep(RETRY_S)
        finally:
            self._set(False)
            await messages.aclose()

    def _hear(self, message: list[Any]) -> None:
        if message[0] == b"psubscribe":  # what was written before nobody heard
            self._want_sweep()
            self._probe_wake.set()
        elif message[0] == b"pmessage":
            _, _, channel, word = message
            key = bytes(channel).partition(b"__:")[2]
            if key == self._keys.probe.encode():
                self._probe_heard.set()
            elif word not in GONE:
                self._documents.look(self._names([key]))

    async def probe(self) -> None:
        """Try whether notifications are heard; then wait a while, or for a new connection."""
        self._probe_heard, self._probe_wake = anyio.Event(), anyio.Event()
        await self._client.call("SET", self._keys.probe, 1, "EX", 60)
        with anyio.move_on_after(HEARD_S):
            await self._probe_heard.wait()
        self._set(self._probe_heard.is_set() and await self._all_tell())
        with anyio.move_on_after(PROBE_S):
            await self._probe_wake.wait()

    async def _all_tell(self) -> bool:
        """Whether every node of a Cluster tells of its keys, as the one that has the probe does."""
        if len(self._client.primaries) < 2:
            return True
        try:
            replies = await self._client.everywhere("CONFIG", "GET", "notify-keyspace-events")
        except (CommandRefused, RedisUnsuitable):
            return False
        return all(len(r) > 1 and sends_needed_events(r[1].decode()) for r in replies)

    def _set(self, works: bool) -> None:
        if works != self.works:
            self.works = works
            self._want_sweep()
            logger.debug("progress keys are %s", "announced by Redis" if works else "scanned for")

    # -- found by a scan -----------------------------------------------------------------------

    def _want_sweep(self) -> None:
        self.wanted = True
        self._sweep_wake.set()

    async def sweep(self) -> None:
        """Look through the whole keyspace once, if there is reason to. Raises RedisUnavailable."""
        if self.works and not self.wanted:
            self._sweep_wake = anyio.Event()
            await self._sweep_wake.wait()
            return
        wanted, self.wanted = self.wanted, False
        started = elapsed()
        cursor: str | bytes = "0"
        try:
            while cursor != b"0":
                cursor = await self._step(cursor)
                if self.works and not wanted:
                    return
        except BaseException:
            self.wanted = True
            raise
        self.sweeps += 1
        await anyio.sleep(max(0.0, SWEEP_S - (elapsed() - started)))

    async def _step(self, cursor: str | bytes) -> bytes:
        """One SCAN and what it found; then a rest that keeps both to their share of the time."""
        sent = elapsed()
        pattern = escaped(self._keys.progress_prefix) + "*"
        following, keys = await self._client.call(
            "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT
        )
        scanned = elapsed()
        self._recent.append(scanned - sent)
        names = self._names(keys)
        for start in range(0, len(names), BATCH):
            await self._documents.read_and_take(names[start : start + BATCH])
        # The quickest SCAN of late: what this process waited for besides is not the server's time.
        cost = min(self._recent) + (elapsed() - scanned)
        await anyio.sleep(SHARE * cost)
        return following

    def _names(self, keys: Iterable[bytes]) -> list[str]:
        """``<agent>:<task>`` of progress keys; a key that is no UTF-8 names nobody."""
        prefix = self._keys.progress_prefix.encode()
        names: list[str] = []
        for key in keys:
            try:
                names.append(key.removeprefix(prefix).decode())
            except UnicodeDecodeError:
                logger.warning("a progress key is not UTF-8 and is left alone: %r", key[:80])
        return names


def projectors(setup: Setup) -> list[Projector]:
    """What the progress service projects, and what keeps it told of what others write."""
    documents = Documents(setup.client, setup.keys, setup.settings.tasks.result_max_bytes)
    return [documents, *ProgressWatch(setup.client, setup.keys, documents).loops()]
