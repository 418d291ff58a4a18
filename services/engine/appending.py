"""A decided turn goes to Redis: the log, the inboxes, the dead letters, the intakes it cleans."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from services.decider import Rejection
from services.engine.deciding import Decided
from services.engine.stats import Stats
from services.store.dead_letters import DeadLetters
from services.store.intakes import Intakes
from services.store.log import START, Appended, Log


class UnderWay(NamedTuple):
    """A turn on its way to the log, what will become of it, and when (``elapsed``) it was sent."""

    decided: Decided
    reply: Awaitable[Appended]
    sent: float


class Appending:
    """What an engine writes of its turns."""

    def __init__(self, log: Log, intakes: Intakes, letters: DeadLetters, stats: Stats) -> None:
        self._log, self._intakes, self._letters, self._stats = log, intakes, letters, stats

    async def append(
        self, decided: Decided, meanwhile: Callable[[Decided], None] | None
    ) -> Appended:
        """Put a turn on the log, and what it refused among the dead letters; ``meanwhile`` is
        called while the turn is on its way. Raises as ``Log.append``."""
        turn, base = decided.turn, decided.base
        await self._intakes.mark_unclean(turn.unclean)
        if turn.refused:  # on an outdated state a good report looks like one about nothing
            appended = await self._log.append(base, turn.now, [])
            if appended.outcome != "ok":
                return appended
            self._stats.refused += len(turn.refused)
            await self._letters.write(turn.refused)
        if not turn.events:
            return Appended("ok", 0)
        notes = decided.news.notes if decided.news is not None else ()
        work = self._log.append(base, turn.now, turn.events, turn.taken, notes)
        if meanwhile is None:
            return await work  # sent at once, and not at the loop's next round
        reply = asyncio.ensure_future(work)
        try:
            await asyncio.sleep(0)  # it is sent
            meanwhile(decided)
            return await reply
        finally:
            reply.cancel()

    async def expel(self, refused: Sequence[Rejection], cursors: Mapping[str, str]) -> None:
        """Entries with ids of the far future leave their intakes, once they are dead letters."""
        ahead = [rejection for rejection in refused if rejection.back_to]
        for intake, first in {(r.entry.intake, r.back_to) for r in ahead}:
            ids = [r.entry.id for r in ahead if r.entry.intake == intake]
            await self._intakes.expel(intake, ids, first, cursors.get(intake, START))
            await self._letters.forget(intake, ids)
