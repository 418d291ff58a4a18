"""The work that takes words out of Redis, when it is due: somebody forgot a task, words have been
kept for as long as they may be, or a raw entry must not stay at its intake."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import anyio

from events.log import WordsRemoved
from projections.forgetting import is_due
from projections.state import State
from services.decider import Inputs, IntakeEntry
from services.mentions import is_about
from services.projector import Setup
from services.runtime.clock import elapsed
from services.runtime.failpoints import point
from services.store.expiry import expired_tasks
from services.store.forgetting import Hold, LostHold, Removal, clean_intake, tell_problem
from services.store.log import after
from services.store.rewrite import Fields, RewriteRefused

logger = logging.getLogger("asb")

LOOK_S = 0.5
CLEAN_S = 60.0  # how often intakes are looked at for entries that must not stay
RAW_MS = 50 * 60_000  # how long such an entry may stay: it is read again where the log went back
DAY_US = 86_400_000_000
RETRY_S = 30.0  # after a removal that was refused


class WordRemoval:
    """One of these runs in every engine; a hold in Redis lets one of them work at a time."""

    def __init__(self, setup: Setup, inputs: Inputs, state: Callable[[], State]) -> None:
        self._client, self._keys, self._inputs = setup.client, setup.keys, inputs
        self._keep_days = setup.settings.privacy.keep_days
        self._state = state
        self._cleaned = self._refused = 0.0

    async def look(self, wake: Callable[[], None]) -> None:
        """One look, after a pause. ``wake`` lets a turn tell of what was done."""
        await anyio.sleep(LOOK_S)
        state = self._state()
        if not state.meta.events or state.ahead or elapsed() < self._refused:
            return
        cleans = elapsed() - self._cleaned >= CLEAN_S
        if not (is_due(state) or self._keep_days or cleans):
            return
        seconds, micros = await self._client.call("TIME")
        now = int(seconds) * 1_000_000 + int(micros)
        before = self._keep_until(state, now)
        if not (is_due(state) or before or cleans):
            return
        self._cleaned = elapsed() if cleans else self._cleaned
        hold = Hold(self._client, self._keys)
        if not await hold.take():
            return
        try:
            if is_due(state) or before:
                await self._remove(state, now, before, hold)
                wake()
            if cleans:
                await self._clean(state, now // 1000, hold)
        except RewriteRefused as problem:
            self._refused = elapsed() + RETRY_S
            await tell_problem(self._client, self._keys, problem)
        except LostHold:
            logger.warning("another host goes on with taking words out")
        finally:
            with contextlib.suppress(Exception):
                await hold.release()

    def _keep_until(self, state: State, now: int) -> int:
        """Words of tasks that ended before then are to go today, µs; 0 where none are."""
        if not self._keep_days or now - state.meta.words_before < (self._keep_days + 1) * DAY_US:
            return 0
        return now - self._keep_days * DAY_US

    async def _remove(self, state: State, now: int, before: int, hold: Hold) -> None:
        until, forgotten = state.meta.forgotten_id, dict(state.forgotten)
        cursors, main = dict(state.intakes), self._keys.main_intake
        expired = set[str]()
        if before:
            expired = await expired_tasks(self._client, self._keys, before, hold.keep)
        tasks = forgotten.keys() | expired

        def about(intake: str, place: str, fields: Fields) -> bool:
            return is_about(IntakeEntry(intake, place, fields), main, tasks)

        removal = Removal(self._client, self._keys, tasks, cursors, about, hold.keep)
        kept = await removal.run(now)
        waiting = await self._client.call("HGETALL", self._keys.forgotten)
        done = [t for t in waiting[0::2] if t.decode(errors="replace") in forgotten]
        gone = len(expired) + len(done)
        self._inputs.words_removed = WordsRemoved(until, before, gone, removal.entries, kept)
        point("forget.done")
        if done:
            await self._client.call("HDEL", self._keys.forgotten, *done)

    async def _clean(self, state: State, now_ms: int, hold: Hold) -> None:
        """Raw entries that must not stay leave their intakes, as soon as nobody may need them."""
        reply = await self._client.call("HGETALL", self._keys.unclean)
        old = f"{max(0, now_ms - RAW_MS)}-0"
        for name, value in zip(reply[0::2], reply[1::2], strict=True):
            intake, entry = name.decode(), value.decode()
            cursor = state.intakes.get(intake, "0-0")
            if after(entry, old) or after(entry, cursor):
                continue
            await clean_intake(self._client, intake, entry, hold.keep)
            if await self._client.call("HGET", self._keys.unclean, name) == value:
                await self._client.call("HDEL", self._keys.unclean, name)
