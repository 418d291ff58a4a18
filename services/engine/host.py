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
import msgspec

from events.clock import ClockStepped
from events.envelope import Event
from projections import fold
from projections.state import State
from services.decider import Decider, Inputs, Rejection
from services.engine.lookups import Lookups
from services.engine.past import Past
from services.engine.standby import Standby
from services.engine.stats import Stats
from services.engine.trouble import RETRY_S, Trouble, Work
from services.engine.turn import Turn, run_turn
from services.engine.upkeep import Upkeep
from services.projector import Projector, Setup
from services.runtime.clock import ServerClock, elapsed
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.dead_letters import DeadLetters
from services.store.heartbeat import BEAT_S, Heartbeat
from services.store.intakes import Intakes
from services.store.log import START, Appended, Base, Log, after, new_name
from services.store.position import Position
from services.store.secret import Secret

logger = logging.getLogger("asb")

PEEK_COUNT = 128  # intake entries a turn may look at; it takes in as many as fit
IDLE_S = 1.0  # how often an idle engine looks whether the log moved without it


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
        self._heartbeat, self._secret = heartbeat, Secret(client, keys)
        self.letters = DeadLetters(client, keys, setup.settings.deadletters)
        self._moved = ("", elapsed())  # where the log stood at the last beat that saw it move
        self._deciders, self._projectors = deciders, projectors
        self._inputs, self._texts = inputs, setup.texts
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
        self.intakes = Intakes(client, keys)
        self._lookups = Lookups(client, keys, self.log, deciders)
        self._upkeep = Upkeep(
            setup, self.log, self._position, inputs, self.intakes, lambda: self.state
        )
        self._past = Past(setup, self._position, self._upkeep.beginning, inputs)
        self.clock = ServerClock()
        self.state = State()
        self.stats = Stats()
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
                works.append(self._read_intakes)
                works += self._upkeep.works(
                    lambda: self._wake.set(), reads_intakes=self._reads_intakes
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
        """The counters of this process, for its heartbeats. ``stalled_s``: for how long entries
        have waited at the intake while the log did not move, by our own monotonic clock."""
        now, place, waiting = elapsed(), self.state.meta.log_id, len(self.intakes)
        if place != self._moved[0] or not waiting:
            self._moved = (place, now)
        return {
            "role": "standby" if self._standby.on else "active",
            "log_id": place,
            "folded": self.state.meta.events,
            "waiting": waiting,
            "dead_letters_dropped": self.letters.dropped,
            "stalled_s": int(now - self._moved[1]),
            "foreign": len(self._position.foreign),
            "holding": self._trouble.text,
            **msgspec.structs.asdict(self.stats),
        }

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
            if self._doubt:
                raise RedisUnavailable("a connection to Redis was lost")
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
                    await self._secret.renew()
            except RedisUnavailable:
                continue
            except CommandRefused as refused:
                await self._trouble.tell(self._engine, refused)
                continue
            logger.warning("Redis is back")
            return

    async def _rest(self) -> None:
        """Wait until there is something to do: an entry, a timer, or the regular look."""
        due = self.state.queues.next_due()
        now = self.clock.now()
        pause = min(IDLE_S, max(0.0, (due - now) / 1_000_000)) if due > now else IDLE_S
        began, wake = elapsed(), self._wake
        alarm = asyncio.get_running_loop().call_later(pause, wake.set)
        try:
            await wake.wait()
        finally:
            alarm.cancel()
        self._wake = self.intakes.wake = anyio.Event()
        if pause == IDLE_S and elapsed() - began >= IDLE_S:
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

    async def _turn(self) -> bool:
        """Decide and append once. True when another turn should follow at once."""
        if not self._deciders or (self._standby.on and not self._overdue()):
            return False
        entries = self.intakes.peek(PEEK_COUNT) if self._reads_intakes else []
        inputs = self._inputs
        inputs.entries = entries
        inputs.known = await self._lookups.known(self.state, entries, self.clock.now())
        await self._texts.fetch(self.log, self.state)
        inputs.texts, inputs.overlay = self._texts, self._texts.overlay
        inputs.secret = await self._secret.value()
        inputs.foreign = self._position.foreign
        base, floor = self._position.base(self.state), self._position.floor(self.state)
        now = self.clock.now()
        inputs.step, inputs.latest = self.clock.step, self.clock.latest
        watch = self._upkeep.watch
        inputs.absent_us, inputs.found_us = watch.absent_us(), watch.found_us()
        turn: Turn | None = None
        self.state.begin()
        try:
            turn = run_turn(self.state, now, self._deciders, inputs, floor)
            await self.intakes.mark_unclean(turn.unclean)
            sent, appended = elapsed(), Appended("ok", 0)
            if turn.refused:  # on an outdated state a good report looks like one about nothing
                appended = await self.log.append(base, now, [])
            if turn.refused and appended.outcome == "ok":
                self.stats.refused += len(turn.refused)
                await self.letters.write(turn.refused)
                sent, appended = elapsed(), Appended("ok", 0)
            if turn.events and appended.outcome == "ok":
                appended = await self.log.append(base, now, turn.events, turn.taken)
        except BaseException:
            self.state.rollback()  # the outcome is unknown: the log will tell
            self._standby.unsure(turn.events if turn is not None else ())
            raise
        again = self._conclude(appended, turn, sent)
        if turn.events:
            await anyio.lowlevel.checkpoint()  # first the inboxes: somebody waits for them
        if appended.outcome == "ok":
            await self._expel([rejection for rejection in turn.refused if rejection.back_to])
        return again

    async def _expel(self, ahead: Sequence[Rejection]) -> None:
        """Entries with ids of the far future leave their intakes, once they are dead letters."""
        for intake, first in {(r.entry.intake, r.back_to) for r in ahead}:
            ids = [r.entry.id for r in ahead if r.entry.intake == intake]
            await self.intakes.expel(intake, ids, first, self.state.intakes.get(intake, START))
            await self.letters.forget(intake, ids)

    def _text_missing(self) -> bool:
        """Whether a task still waits for its route: its prompt is to be fetched first."""
        routes = any(decider.reads_prompts for decider in self._deciders)
        return routes and self.state.next_undelegated() is not None

    @property
    def _reads_intakes(self) -> bool:
        return any(decider.asks is not None for decider in self._deciders)

    def _conclude(self, appended: Appended, turn: Turn | None, sent: float) -> bool:
        """Keep a turn that reached the log, or undo it and fold what was missed."""
        if appended.server_time:
            self._set_clock(appended.server_time, sent)
        if appended.outcome == "ok":
            if turn is not None:
                self._keep(turn)
                # The deciders left nothing undone that they could see, unless they were cut short.
                waiting = self._reads_intakes and len(self.intakes) > 0
                return turn.more or waiting or self._text_missing()
            return False
        if turn is not None:
            self.state.rollback()
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

    def _keep(self, turn: Turn) -> None:
        self.state.commit()
        self._followed = self._position.last_seen(self.state)
        self.intakes.drop(turn.consumed)
        self.intakes.open_all(self.state.intakes)
        if turn.events:
            self.state.dirty_scopes.clear()
            self._standby.kept()
            self._heard_of_steps(turn.events)
            self.stats.turns += 1
            self.stats.events += len(turn.events)
            for projector in self._projectors:
                projector.feed(turn.events, self.state)

    # -- others on the log -----------------------------------------------------------------------

    async def _follow(self) -> None:
        """Bring in what others append. An engine that is alone learns it from conflicts instead."""
        if self._whole_engine and not self._standby.on:
            await anyio.sleep(0.2)
            return
        cursor, epoch = self._followed, self._epoch
        if self._arrived and after(self._arrived[-1][0].decode(), cursor):
            cursor = self._arrived[-1][0].decode()
        reply = await self._client.block(
            "XREAD", "COUNT", 1000, "BLOCK", 500, "STREAMS", self._keys.log, cursor
        )
        if not reply:
            return
        # A connection opened anew without a word may lead to a log that went back.
        if not await self.log.holds(Base(cursor)):
            raise RedisUnavailable("the log went back behind what was read")
        if epoch == self._epoch:
            self._arrived.extend(reply[0][1])
            self._wake.set()

    def _fold_arrived(self) -> None:
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

    def _heard_of_steps(self, events: Sequence[Event]) -> None:
        for event in events:
            if type(event.data) is ClockStepped:
                self.clock.reported(event.data.by)

    def _overdue(self) -> bool:
        """Whether work that another host should have done is a second old."""
        return self._standby.overdue(self.intakes.waited_s())

    async def _read_intakes(self) -> None:
        self.intakes.wake = self._wake
        await self.intakes.read_once()
