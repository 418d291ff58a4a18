"""What the page shows of a running bus: made once for all who look, and only while one does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import anyio
import anyio.to_thread
import msgspec

from events.envelope import Event
from events.log import START, after
from events.task import TaskForgotten
from projections.records import TaskRecord
from projections.state import State
from services.client.bus import Bus
from services.queries.fleet import Overview, Surroundings
from services.queries.overview import overview, places_of_texts, plain, tasks_shown
from services.queries.status import prompts
from services.queries.timeline import EventRow, event_row
from services.queries.watching import TAIL, Prompts, events_before, surroundings_of
from services.runtime.clock import ServerClock, elapsed
from services.runtime.errors import CommandRefused, RedisUnavailable

OpenedBus: TypeAlias = Callable[[], AbstractContextManager[Bus]]  # for a thread that asks it
POLL_S = 2.0
OLD_S = 10.0  # a picture older than this is made anew: windows end and workers stall without events
AWAY = "Redis does not answer: this is the last that was seen"


class Picture(msgspec.Struct, frozen=True):
    """An overview as JSON, and the log id it stands for."""

    as_of: str
    overview: bytes


class Live:
    """The newest state, and pictures of it. ``opened`` gives a bus to a thread that asks it."""

    def __init__(self, opened: OpenedBus) -> None:
        self._opened = opened
        self._state = State()
        self._tail: deque[Event] = deque(maxlen=TAIL)
        self._prompts = Prompts()
        self._around = Surroundings()
        self._clock = ServerClock()
        self._news = anyio.Event()
        self._making = anyio.Lock()
        self._made: tuple[int, Picture] | None = None
        self._made_at = 0.0
        self._forgot = START  # where the newest task.forgotten stands
        self.version = 0  # 0: nothing is known yet
        self.viewers = 0

    def feed(self, events: Sequence[Event], state: State) -> None:
        """Committed events, in order, and the state after them."""
        self._tail.extend(events)
        for event in events:
            if isinstance(event.data, TaskForgotten):  # nothing of it stays here
                self._tail.clear()
                self._prompts.texts.clear()
                self._forgot = event.log_id
        self.restored(state)

    def restored(self, state: State) -> None:
        if state is not self._state:
            self._tail.clear()  # of another log, or of one that went back
        self._state = state
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._news.set()

    async def newer(self, version: int) -> None:
        """Wait until there is something newer than ``version``."""
        while self.version == version:
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()

    # -- what others know --------------------------------------------------------------------------

    async def poll(self) -> None:
        """Look, while somebody watches, at what does not stand on the log."""
        if not self.viewers or not self.version:
            return
        tasks = tasks_shown(self._state)
        try:
            sent = elapsed()
            around, server_us = await anyio.to_thread.run_sync(self._look, tasks)
            self._clock.set(server_us, sent)
        except (RedisUnavailable, CommandRefused):
            around = Surroundings(no_engine=AWAY)
        if around != self._around or self._is_old():
            self._around = around
            self._changed()

    def _is_old(self) -> bool:
        return elapsed() - self._made_at > OLD_S

    def _look(self, tasks: list[TaskRecord]) -> tuple[Surroundings, int]:
        with self._opened() as bus:
            return surroundings_of(bus, tasks), bus.now()

    # -- pictures ----------------------------------------------------------------------------------

    async def picture(self) -> Picture:
        """The fleet as it is now; the same one for all who ask before there are news, or before
        it has grown old."""
        async with self._making:
            if self._made and self._made[0] == self.version and not self._is_old():
                return self._made[1]
            if not self._clock.latest:  # nobody has looked yet: what time is it there?
                await self.poll()
            await self._fetch()
            while self._state.ahead:  # noqa: ASYNC110 - a turn may yet be undone, within milliseconds
                await anyio.sleep(0.001)
            version, view = self.version, self._overview()
            picture = Picture(view.as_of, msgspec.json.encode(plain(view)))
            self._made, self._made_at = (version, picture), elapsed()
            return picture

    def _overview(self) -> Overview:
        now = max(self._clock.now(), self._state.meta.at)
        return overview(self._state, now, self._prompts.texts, self._around)

    async def _fetch(self) -> None:
        """Prompts that the next picture names and nobody has asked for yet."""
        places = self._prompts.missing(places_of_texts(self._state))
        if not places:
            return
        try:
            self._prompts.add(await anyio.to_thread.run_sync(self._texts, places))
        except (RedisUnavailable, CommandRefused):
            return  # shown by their ids

    def _texts(self, places: dict[str, str]) -> dict[str, str]:
        with self._opened() as bus:
            return prompts(bus, places)

    async def rows(self, seen: str, until: str) -> tuple[list[EventRow], bool]:
        """The events after ``seen`` ("": none was) and up to ``until``, the last ``TAIL`` of them;
        and whether they begin anew: nothing was seen before, the log has gone back since, or
        something was forgotten."""
        anew = not seen or after(seen, until) or after(self._forgot, seen)
        first = self._tail[0].log_id if self._tail else ""
        if not anew and first and not after(first, seen):
            events = [e for e in self._tail if after(e.log_id, seen)]
            return [event_row(e) for e in events if not after(e.log_id, until)], False
        if not anew and seen == until:
            return [], False
        try:
            return await anyio.to_thread.run_sync(self._read, START if anew else seen, until), anew
        except (RedisUnavailable, CommandRefused):
            return [], False

    def _read(self, seen: str, until: str) -> list[EventRow]:
        with self._opened() as bus:
            return events_before(bus, until, seen)
