"""The host: one loop that runs any set of services over one state.

One turn: take what stands at the intakes, let the deciders speak (each on the state so far), append
what they said iff the log's last id is still the one they decided on, then let the projectors write
what follows from it. A conflict, a lost reply, a restart and a second instance are one case: undo
the turn, fold what the log says, decide again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel

from events.clock import ClockStepped
from events.envelope import Event
from projections import fold
from projections.state import State
from services.decider import Decider, Inputs
from services.engine.appending import Appending
from services.engine.counters import Counters
from services.engine.deciding import Decided, Deciding
from services.engine.news import News
from services.engine.next_turn import NextTurn
from services.engine.past import Past
from services.engine.standby import Standby
from services.engine.stats import Stats
from services.engine.trouble import RETRY_S, Trouble, Work
from services.engine.upkeep import Upkeep
from services.projector import Projector, Setup
from services.runtime.clock import ServerClock, elapsed
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.dead_letters import DeadLetters
from services.store.heartbeat import BEAT_S, Heartbeat
from services.store.intakes import Intakes
from services.store.log import START, Appended, Log, after, new_name
from services.store.position import Position

logger = logging.getLogger("asb")

IDLE_S = 1.0  # how often an idle engine looks whether the log moved without it
FOLLOW_MS = 1_000  # one look for what others append
STANDS_EVERY_S = 0.1  # how often the state is one that stands, for whoever shows it …
AHEAD_MIN = 4  # … but for turns that take long: so many are decided ahead in between


class Host:
    """Deciders and projectors over one state, one reader and one appender."""

    def __init__(
        self,
        setup: Setup,
        deciders: Sequence[Decider],
        projectors: Sequence[Projector],
        inputs: Inputs,
        heartbeat: Heartbeat,
        *,
        whole_engine: bool,
    ) -> None:
        """``whole_engine``: these are all the deciders there are."""
        self._client, self._keys = client, keys = setup.client, setup.keys
        self._heartbeat = heartbeat
        self.letters = DeadLetters(client, keys, setup.settings.deadletters)
        self._deciders, self._projectors = deciders, projectors
        self._texts = setup.texts
        self._whole_engine, self._standby = whole_engine, Standby(deciders)
        inputs.log_name = inputs.log_name or new_name()
        self._arrived: deque[Any] = deque()
        self._followed = START  # the last event folded for good: not one of a turn under way
        self._epoch = 0  # counts the times at which what was read ahead is no longer trusted
        self._doubt = False  # a reader lost Redis: what it sees next may follow another past
        self._wake = anyio.Event()
        self._position = Position()
        self._trouble = Trouble(client, keys)
        self._engine = "the engine" if deciders else "the reader of the log"
        self.log = Log(client, keys)
        self.intakes = Intakes(client, keys, self._entries_arrived)
        self._upkeep = Upkeep(
            setup, self.log, self._position, inputs, self.intakes, lambda: self.state
        )
        self._past = Past(setup, self._position, self._upkeep.beginning, inputs)
        self.clock = ServerClock()
        self._deciding = Deciding(
            setup, deciders, projectors, inputs, self._position, self.clock,
            self._upkeep.watch,
        )  # fmt: skip
        self.stats = Stats()
        self._appending = Appending(self.log, self.intakes, self.letters, self.stats)
        self._counters = Counters(
            self._standby, self.intakes, self.letters, self._position, self._trouble, self.stats
        )
        self._next = NextTurn(self._deciding, self._appending, self.intakes)
        self._resting = False  # it waits until there is something to do
        self._untold: list[News] = []  # of turns on the log, for projectors that see the state
        self._stood_at = elapsed()
        self.state = State()
        self.ready = anyio.Event()

    # -- life ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fold the log. Raises LogError when it must not be folded, and RedisUnavailable."""
        self._restored(self._past.fold())

    async def run(self) -> None:
        """Run until cancelled. Raises LogError when the log must not be folded any further."""
        if not self.stats.rebuilds:
            self.begin()
        await self._tell_time()
        async with anyio.create_task_group() as tasks:
            works: list[Work] = [*(p.run for p in self._projectors), self._follow, self._beat]
            if self._deciders:
                works.append(self.intakes.read_once)
                works += self._upkeep.works(
                    lambda: self._wake.set(), reads_intakes=self._deciding.reads_intakes
                )
            for work in works:
                tasks.start_soon(self._trouble.through, work, self._lost)
            self.ready.set()
            try:
                while True:
                    await self._step()
            finally:
                await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Heartbeats of a host that ends in order end with it, where Redis answers."""
        with (
            anyio.move_on_after(1.0, shield=True),
            contextlib.suppress(AsbError, CommandRefused),
        ):
            await self._heartbeat.end()

    def _lost(self) -> None:
        """A reader lost Redis: what it sees next may follow another past."""
        self._doubt = True
        self._wake.set()

    async def _beat(self) -> None:
        await self._heartbeat.beat(self.figures())
        await anyio.sleep(BEAT_S)

    def figures(self) -> dict[str, str | int]:
        """The counters of this process."""
        return self._counters.of(self.state)

    def _restored(self, state: State) -> None:
        """``state`` was folded from the log; what was in memory is gone."""
        self.state = state
        self.stats.rebuilds += 1
        self._followed = self._position.last_seen(state)
        self.intakes.reset(state.intakes)
        for projector in self._projectors:
            projector.restored(state)

    async def _tell_time(self) -> None:
        sent = elapsed()
        seconds, micros = await self._client.call("TIME")
        self._set_clock(int(seconds) * 1_000_000 + int(micros), sent)
        self._upkeep.watch.found_again()

    def _set_clock(self, server_us: int, sent: float) -> None:
        """The server told its time. A step of it moves the expiry of heartbeats, too."""
        if self.clock.set(server_us, sent):
            self._upkeep.watch.found_again()

    async def _step(self) -> None:
        try:
            if self._doubt and self._next.begun is None:
                self._next.undo(self.state)
                self._tell()
                raise RedisUnavailable("a connection to Redis was lost")
            if self._next.ahead is None and self._wake.is_set():  # the turn sees what it was for
                self._wake = anyio.Event()
            self._fold_arrived()
            again = await self._turn()
            self._trouble.over(self._engine)
            if not again:
                await self._rest()
        except RedisUnavailable as error:
            await self._outage(error)
        except CommandRefused as error:  # nothing of the turn was written
            await self._trouble.tell(self._engine, error)
            await anyio.sleep(RETRY_S[1])

    async def _outage(self, error: RedisUnavailable) -> None:
        """Wait for Redis; then make sure the past this state stands on is still there."""
        self.stats.outages += 1
        logger.warning("%s; waiting for it", str(error).splitlines()[0])
        pause = RETRY_S[0]
        while True:
            await anyio.sleep(pause)
            pause = min(2 * pause, RETRY_S[1])
            self._doubt = False
            self._epoch += 1
            self._arrived.clear()
            try:
                if not await self.log.holds(self._position.base(self.state)):
                    self._restored(await self._past.fold_again(self.state))
                self._position.edited()
                self.intakes.reset(self.state.intakes)
                for projector in self._projectors:
                    projector.restored(self.state)
                await self._tell_time()
                if self._deciders:
                    await self._deciding.secret.renew()
            except RedisUnavailable:
                continue
            except CommandRefused as refused:
                await self._trouble.tell(self._engine, refused)
                continue
            logger.warning("Redis is back")
            return

    async def _rest(self) -> None:
        """Wait until there is something to do: an entry, a timer, or the regular look."""
        due = self.state.indexes.queues.next_due()
        now = self.clock.now()
        pause = min(IDLE_S, max(0.0, (due - now) / 1_000_000)) if due > now else IDLE_S
        wake, idle = self._wake, False

        def over() -> None:
            nonlocal idle
            idle = pause == IDLE_S and not wake.is_set()
            wake.set()

        alarm = asyncio.get_running_loop().call_later(pause, over)
        self._resting = True
        try:
            await wake.wait()
        finally:
            self._resting = False
            alarm.cancel()
        if idle:  # then no turn has begun
            await self._look()

    async def _look(self) -> None:
        """Nothing happened for a while: has the log moved without us, or gone back?"""
        if self._deciders:
            sent = elapsed()
            now = self.clock.now()
            base = self._position.base(self.state)
            self._conclude(await self.log.append(base, now, []), None, sent)
        elif not await self.log.holds(self._position.base(self.state)):
            raise RedisUnavailable("the log went back behind what was folded")

    # -- a turn --------------------------------------------------------------------------------

    def _entries_arrived(self) -> None:
        """A turn that nothing else has to precede begins within the reply that brought its entries;
        the host concludes it."""
        if self._resting and not self._wake.is_set() and self._alone and self._client.is_ready:
            self._next.begin(self.state)
        self._wake.set()

    async def _turn(self) -> bool:
        """Decide and append once. True when another turn should follow at once."""
        if not self._deciders or self._standby.leaves(self.intakes.waited_s()):
            return False
        # From time to time none goes on, so that others see a state that stands.
        fresh = len(self._untold) < AHEAD_MIN or elapsed() - self._stood_at < STANDS_EVERY_S
        decided, reply, sent = await self._next.taken(self.state, go_on=fresh and self._alone)
        turn = decided.turn
        try:
            appended = await reply
        except BaseException:
            self._next.undo(self.state)
            self.state.rollback()  # the outcome is unknown: the log will tell
            self._tell()
            self._standby.unsure(turn.events)
            raise
        again = self._conclude(appended, decided, sent)
        await anyio.lowlevel.checkpoint()  # first whoever waits for notes, or for this very state
        if appended.outcome == "ok":
            await self._appending.expel(turn.refused, self.state.intakes)
        return again

    def _conclude(self, appended: Appended, decided: Decided | None, sent: float) -> bool:
        """Keep a turn that reached the log, or undo it and fold what was missed."""
        if appended.server_time:
            self._set_clock(appended.server_time, sent)
        if appended.outcome == "ok":
            if decided is not None:
                self._keep(decided, appended.noted)
                # The deciders left nothing undone that they could see, unless they were cut short.
                more = decided.turn.more or self._next.ahead is not None
                waits = bool(self._next.entries(1)) or self._deciding.awaits_text(self.state)
                return more or waits
            return False
        self._next.undo(self.state)
        if decided is not None:
            self.state.rollback()
        self._tell()
        if appended.outcome == "gone":
            raise RedisUnavailable("the log went back behind what was folded")
        if appended.outcome == "behind":
            self._position.used_up(appended.last_id)
        if appended.outcome == "conflict":
            self.stats.conflicts += 1
            if not appended.missed:
                self._position.edited()
            self._fold(self._position.decoded(appended.missed))
            self.intakes.drop_taken(self.state.intakes)
        return True

    def _keep(self, decided: Decided, noted: bool) -> None:
        turn, news = decided.turn, decided.news
        self.state.commit()
        self.intakes.drop(turn.consumed)
        if news is not None:
            self._standby.kept()
            self._heard_of_steps(turn.events)
            self.stats.turns += 1
            self.stats.events += len(turn.events)
            news.appended(noted)
            self._untold.append(news)
        if self._next.ahead is None:
            if turn.events:
                self.state.dirty_scopes.clear()
            self._tell()

    def _tell(self) -> None:
        """Nothing is ahead of the log: whoever reads the state is told what happened."""
        self._stood_at = elapsed()
        self._followed = self._position.last_seen(self.state)
        self.intakes.open_all(self.state.intakes)
        untold, self._untold = self._untold, []
        for news in untold:
            news.tell(self.state)
        for projector in self._projectors:
            projector.stands()

    # -- others on the log -----------------------------------------------------------------------

    async def _follow(self) -> None:
        """Bring in what others append. An engine that is alone learns it from conflicts instead."""
        if self._whole_engine and not self._standby.on:
            await anyio.sleep(0.2)
            return
        cursor, epoch = self._followed, self._epoch
        if self._arrived and after(self._arrived[-1][0].decode(), cursor):
            cursor = self._arrived[-1][0].decode()
        # A connection opened anew without a word may lead to a log that went back: it is asked
        # on the same one whether what was read before still stands there.
        stands, reply = await self._client.block_on_one(
            ("XRANGE", self._keys.log, cursor, cursor),
            ("XREAD", "COUNT", 1000, "BLOCK", FOLLOW_MS, "STREAMS", self._keys.log, cursor),
        )
        if not reply:
            return
        if cursor != START and not stands:
            raise RedisUnavailable("the log went back behind what was read")
        if epoch == self._epoch:
            self._arrived.extend(reply[0][1])
            self._wake.set()

    def _fold_arrived(self) -> None:
        if not self._arrived or self._next.begun is not None:
            return
        self._next.undo(self.state)
        self._tell()
        entries = [e for e in self._arrived if after(e[0].decode(), self.state.meta.log_id)]
        self._arrived.clear()
        if entries:
            self._fold(self._position.decoded(entries))
            self.intakes.drop_taken(self.state.intakes)

    def _fold(self, events: list[Event]) -> None:
        """Fold what others appended; one who decides what we decide makes us the standby."""
        fresh = [e for e in events if after(e.log_id, self.state.meta.log_id)]
        for event in fresh:
            fold.apply(self.state, event)
            self._texts.saw(event)
            self._standby.saw(event)
        self._heard_of_steps(fresh)
        self._followed = self._position.last_seen(self.state)
        self.intakes.open_all(self.state.intakes)
        if fresh:
            for projector in self._projectors:
                projector.feed(fresh, self.state)

    @property
    def _alone(self) -> bool:
        """Whether nobody else is known to append, and nothing of others is still to be folded."""
        return self._whole_engine and not self._standby.on and not self._arrived

    def _heard_of_steps(self, events: Sequence[Event]) -> None:
        for event in events:
            if type(event.data) is ClockStepped:
                self.clock.reported(event.data.by)
