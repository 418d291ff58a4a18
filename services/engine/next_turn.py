"""Which turn goes to the log next: one that was sent when its entries came, one that was decided
ahead, or one that is decided now."""

from __future__ import annotations

from projections.state import State
from services.decider import IntakeEntry
from services.engine.appending import Appending, UnderWay
from services.engine.deciding import Decided, Deciding
from services.runtime.begun import Begun
from services.runtime.clock import elapsed
from services.runtime.errors import LogError
from services.store.intakes import Intakes

PEEK_COUNT, PEEK_AHEAD = 100, 50  # intake entries to look at: a turn hardly takes in more


class NextTurn:
    """``begun`` is on its way to the log. ``ahead`` is decided on a turn that is, and not sent."""

    def __init__(self, deciding: Deciding, appending: Appending, intakes: Intakes) -> None:
        self._deciding, self._appending, self._intakes = deciding, appending, intakes
        self.begun: UnderWay | None = None
        self.ahead: Decided | None = None

    def begin(self, state: State) -> None:
        """Decide and send a turn within the reply that brought its entries, where Redis has not to
        be asked first: a task would be woken some rounds of the loop later."""
        try:
            decided = self._deciding.at_once(state, self.entries())
        except LogError:
            return  # whoever takes the next turn finds it, too
        if decided is not None:
            sent, work = elapsed(), self._appending.append(decided, None)
            self.begun = UnderWay(decided, Begun(work), sent)

    async def taken(self, state: State, *, go_on: bool) -> UnderWay:
        """The next turn: it is sent, or will be as soon as its reply is awaited. With ``go_on`` the
        one after it may be decided while it is on its way: that is sent when this one stands, and
        undone with it. Raises as ``Deciding.next``."""
        begun, self.begun = self.begun, None
        if begun is not None:
            return begun
        decided, self.ahead = self.ahead, None
        if decided is None:
            decided = await self._deciding.next(state, self.entries())

        def meanwhile(under_way: Decided) -> None:
            entries = self.entries(PEEK_AHEAD, under_way.turn.consumed)
            self.ahead = self._deciding.ahead(state, entries)

        ahead = meanwhile if go_on and self._goes_on(decided) else None
        return UnderWay(decided, self._appending.append(decided, ahead), elapsed())

    def _goes_on(self, decided: Decided) -> bool:
        turn, news = decided.turn, decided.news
        more = turn.more or len(self._intakes) > turn.consumed
        return more and not turn.refused and news is not None and not news.late

    def undo(self, state: State) -> None:
        """Undo what was decided ahead: it was never sent."""
        if self.ahead is not None:
            self.ahead = None
            state.rollback()

    def entries(self, count: int = PEEK_COUNT, behind: int = 0) -> list[IntakeEntry]:
        """Up to ``count`` that wait at the intakes, ``behind`` the first so many."""
        return self._intakes.peek(count, behind) if self._deciding.reads_intakes else []
