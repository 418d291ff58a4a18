"""Waiting for the ends of tasks, and for the engine's answers: log and dead letters from a
moment on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, cast

import msgspec

from events.envelope import Event, text_of
from events.keys import DUPLICATE_DAYS
from events.log import after, is_id
from projections.windows import DAY as DAY_US
from services.client.bus import Bus
from services.client.dead_letters import READ_COUNT, dead_letters, last_dead_letter
from services.client.story import Story, end_of, is_end, result_of, status_of, with_result
from services.intake.schema import digest_of
from services.store import rebuild
from services.store.carried import entries_at
from services.store.heartbeat import beats
from services.store.log import parse_id, split_taken

BLOCK_MS = 500
ERROR_MAX = 500  # characters of an error that are shown


INDEX_PAGE = 8  # entries of a task's index that are read at once
QUIET_S = 5.0  # after that long without a word somebody wonders


class Ended(msgspec.Struct):
    """How a task ended; ``refused`` where it never became one."""

    task: str
    status: str
    error: str = ""
    story: Story | None = None

    @property
    def good(self) -> bool:
        return self.status == "completed"


def story(bus: Bus, task: str) -> list[Event]:
    """All events of a task, in order, by its index; a result that was reused stands in its end."""
    events = _indexed(bus, task)
    end = end_of(events)
    if end is not None and getattr(end.data, "reused", ""):
        end.raw = with_result(end.raw, result_of(_indexed(bus, end.data.reused)))
    return events


def archived(bus: Bus, tasks: Iterable[str]) -> dict[str, list[Event]]:
    """The events of each of these tasks that left Redis, in order, as far as they can be read on
    this host."""
    history = bus.history
    return {task: bus.shown(rebuild.decoded(history.of_task(task))) for task in tasks}


def _indexed(bus: Bus, task: str) -> list[Event]:
    places = [p.decode() for p in bus.client.call("LRANGE", bus.keys.task_index(task), 0, -1)]
    events = {event.log_id: event for event in archived(bus, [task])[task]}
    there = entries_at(bus.client, bus.keys, places)
    events |= {event.log_id: event for event in bus.shown(rebuild.decoded(list(there.values())))}
    return sorted(events.values(), key=lambda event: parse_id(event.log_id))


def ends(bus: Bus, tasks: Iterable[str]) -> dict[str, Event]:
    """What ended each of these tasks that is over. Their indexes are read from behind, a page at a
    time: any number of events may stand behind an end. What left Redis stands in the archive."""
    ended: dict[str, Event] = {}
    wanted = open_tasks = list(tasks)
    last = -1
    while open_tasks:
        first = last - INDEX_PAGE + 1
        replies: list[Any] = bus.client.pipeline(
            ("LRANGE", bus.keys.task_index(task), first, last) for task in open_tasks
        )
        pages = {
            task: [place.decode() for place in cast("list[bytes]", reply)]
            for task, reply in zip(open_tasks, replies, strict=True)
            if isinstance(reply, list)  # else an index of another type
        }
        events = bus.events_at([place for page in pages.values() for place in page])
        for task, page in pages.items():
            end = end_of([events[place] for place in page if place in events])
            if end is not None:
                ended[task] = end
        open_tasks = [t for t, page in pages.items() if page and t not in ended]
        last = first - 1
    said = archived(bus, (task for task in wanted if task not in ended))
    return ended | {task: end for task in said if (end := end_of(said[task])) is not None}


class Follower:
    """Follows tasks from before they were submitted until each has ended or was refused.

    Create it first, then submit, then tell it what was submitted. ``quiet`` is called, with the
    tasks that are open, whenever nothing has been heard of any of them for a while.
    """

    def __init__(
        self,
        bus: Bus,
        quiet: Callable[[Collection[str]], object] | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._bus, self._quiet, self._quiet_s = bus, quiet, quiet_s
        self._cursor = bus.last_id()
        self._letters = last_dead_letter(bus)
        self._entries: dict[str, str] = {}  # intake entry id → task
        self._open: dict[str, None] = {}
        self._given: dict[str, tuple[str, bytes]] = {}  # task → idempotency key, data

    def expect(self, entry: str, task: str, key: str = "", data: bytes = b"") -> None:
        """``task`` stands at the shared intake as ``entry``, with this idempotency key and data."""
        self._entries[entry] = task
        self._open[task] = None
        if key:
            self._given[task] = (key, data)

    @property
    def open(self) -> list[str]:
        """The tasks that have not ended yet."""
        return list(self._open)

    def ends(self, within_s: float | None = None) -> Iterator[Ended]:
        """One by one, as they end; until all have, or the time is over."""
        yield from self._ended_before()
        began = heard = time.monotonic()
        while self._open and (within_s is None or time.monotonic() - began < within_s):
            if self._quiet is not None and time.monotonic() - heard >= self._quiet_s:
                self._quiet(self._open)
                heard = time.monotonic()
            reply: Any = self._bus.client.call(
                "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS,
                "STREAMS", self._bus.keys.log, self._cursor,
            )  # fmt: skip
            for event in self._arrived(reply):
                if getattr(event.data, "task", "") not in self._open:
                    continue
                heard = time.monotonic()
                if is_end(event):
                    yield self._take(event.data.task)
            yield from self._refused()

    def _arrived(self, reply: Any) -> list[Event]:
        if not reply:
            return []
        entries: list[Any] = reply[0][1]
        self._cursor = entries[-1][0].decode()
        return rebuild.decoded(entries)

    def _ended_before(self) -> Iterator[Ended]:
        """A repeat of what was submitted and has ended before says nothing on the log."""
        ended = ends(self._bus, [task for task in self._given if task in self._open])
        secret = self._bus.secret
        same = repeats(self._bus, [taken_as(*self._given[t], secret) for t in ended])
        for task in ended:
            if taken_as(*self._given[task], secret) in same:  # the engine refuses other content
                yield self._take(task)

    def _take(self, task: str) -> Ended:
        self._open.pop(task, None)
        events = story(self._bus, task)
        status = status_of(events)
        end = end_of(events)
        error = (text_of(end, "error") or text_of(end, "reason")) if end else ""
        return Ended(task, status, error[:ERROR_MAX], Story(task, events, status))

    def _refused(self) -> Iterator[Ended]:
        for letter in dead_letters(self._bus, self._letters):
            self._letters = letter.id
            task = self._entries.get(letter.entry)
            if letter.intake == self._bus.keys.main_intake and task in self._open:
                self._open.pop(task)
                yield Ended(task, "refused", letter.error)


def repeats(bus: Bus, given: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these idempotency keys of the shared intake were taken before, with this digest."""
    if not given:
        return set()
    today = bus.now() // DAY_US
    fields = [f"{bus.keys.main_intake}|{key}" for key, _ in given]
    replies: list[Any] = bus.client.pipeline(
        ("HMGET", bus.keys.duplicates(today - back), *fields) for back in range(DUPLICATE_DAYS + 1)
    )
    hashes: list[list[bytes | None]] = [r for r in replies if isinstance(r, list)]
    return {
        (key, digest)
        for reply in hashes
        for (key, digest), taken in zip(given, reply, strict=True)
        if taken is not None and split_taken(taken)[0] == digest
    }


def taken_as(key: str, data: bytes, secret: bytes) -> tuple[str, str]:
    """A submission under an idempotency key, as `repeats` knows it."""
    return key, digest_of("task.submitted", data, secret)


class Answers:
    """What the engine says to entries of an intake. Create it before sending them.

    To what changes nothing (the same limit, a worker that is paused already) it says nothing: that
    it was taken in stands in its heartbeat.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._cursor = bus.last_id()
        self._letters = last_dead_letter(bus)
        self._open: dict[tuple[str, str], str] = {}  # intake, entry id → what it is about
        self.events: dict[str, Event] = {}  # what it is about → the event it became
        self.unchanged: list[str] = []  # what was taken in and found to be so already

    def expect(self, entry: str, about: str, intake: str = "") -> None:
        """``entry`` stands at ``intake``, the shared one unless it is named."""
        self._open[intake or self._bus.keys.main_intake, entry] = about

    def refused(self, say: Callable[[str], object], within_s: float = 5.0) -> int:
        """Wait until the engine has spoken; ``say`` what it refused, and return how much that was.

        An engine that does not run takes the entries in once it does: that is said, and no error.
        """
        bad = 0
        for about, error in self.refusals(within_s):
            say(f"error: {about}: {error}")
            bad += 1
        for about in self.unchanged:
            say(f"{about}: so it was before; nothing changed")
        if self._open:
            say(
                "no engine has taken this in yet; it is kept and will be\n"
                "hint: `asb up` or `asb service engine` runs one; `asb doctor` says how things are"
            )
        return bad

    def refusals(self, within_s: float) -> Iterator[tuple[str, str]]:
        """What the engine refuses within this time, and why; it ends once all are answered."""
        until = time.monotonic() + within_s
        silent: list[tuple[str, str]] = []  # most are answered at the first look
        while self._open and time.monotonic() < until:
            for letter in dead_letters(self._bus, self._letters):
                self._letters = letter.id
                about = self._open.pop((letter.intake, letter.entry), None)
                if about is not None:
                    yield about, letter.error
            if self._read():
                self.unchanged += [self._open.pop(place) for place in silent if place in self._open]
            silent = self._silent() if self._open else []

    def _silent(self) -> list[tuple[str, str]]:
        """What was taken in by now: whatever is said of it can be read."""
        main = self._bus.keys.main_intake
        beating = beats(self._bus.client, self._bus.keys)
        said = [beat.figures.get("taken", "") for beat in beating if beat.service == "intake"]
        taken = [place for place in said if is_id(place)]
        return [
            (intake, entry)
            for intake, entry in self._open
            if intake == main and any(not after(entry, place) for place in taken)
        ]

    def _read(self) -> bool:
        """Take in what came to the log; whether its end was reached."""
        reply: Any = self._bus.client.call(
            "XREAD", "COUNT", READ_COUNT, "BLOCK", 100,
            "STREAMS", self._bus.keys.log, self._cursor,
        )  # fmt: skip
        entries: list[Any] = reply[0][1] if reply else []
        if entries:
            self._cursor = entries[-1][0].decode()
        for event in rebuild.decoded(entries):
            intake, _, entry = event.origin.rpartition(" ")
            if (intake, entry) in self._open:
                self.events[self._open.pop((intake, entry))] = event
        return len(entries) < READ_COUNT
