"""Waiting for the ends of tasks: the log and the dead letters from a moment on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from events.envelope import Event
from events.money import dollars
from projections.throttle import DAY as DAY_US
from projections.views import iso
from services.cli import history
from services.cli.bus import Bus
from services.cli.history import Story
from services.cli.out import note
from services.intake.shapes import digest_of
from services.runtime import replay
from services.runtime.client import CommandRefused
from services.runtime.host import DUPLICATE_DAYS
from services.runtime.log import split_taken

BLOCK_MS = 500
READ_COUNT = 1000
QUIET_S = 5.0  # after that long without a word somebody wonders
ENDS = ("task.completed", "task.failed", "task.cancelled")


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused door entry."""

    id: str  # its place among the dead letters
    door: str
    entry: str
    error: str


class Ended(msgspec.Struct):
    """How a task ended; ``refused`` where it never became one."""

    task: str
    status: str
    error: str = ""
    story: Story | None = None

    @property
    def good(self) -> bool:
        return self.status == "completed"


def is_end(event: Event) -> bool:
    """Whether its task is over with ``event``."""
    if event.type not in ENDS or event.data.stale:
        return False
    return event.type != "task.failed" or not event.data.retry_at


def dead_letters(b: Bus, after: str = "-") -> Iterator[DeadLetter]:
    """The dead letters after the place ``after``, oldest first."""
    start = after if after == "-" else f"({after}"
    while True:
        entries = b.client.call("XRANGE", b.keys.deadletter, start, "+", "COUNT", READ_COUNT)
        for entry_id, fields in entries:
            names = dict(zip(fields[0:6:2], fields[1:6:2], strict=True))
            yield DeadLetter(
                entry_id.decode(),
                *(
                    names.get(n, b"").decode("utf-8", "replace")
                    for n in (b"door", b"entry", b"error")
                ),
            )
        if len(entries) < READ_COUNT:
            return
        start = f"({entries[-1][0].decode()}"


def last_dead_letter(b: Bus) -> str:
    found = b.client.call("XREVRANGE", b.keys.deadletter, "+", "-", "COUNT", 1)
    return found[0][0].decode() if found else "0-0"


def story(b: Bus, task: str) -> list[Event]:
    """All events of a task, in order, by its index."""
    places = [p.decode() for p in b.client.call("LRANGE", b.keys.task_index(task), 0, -1)]
    return list(b.events_at(places).values())


class Follower:
    """Follows tasks from before they were submitted until each has ended or was refused.

    Create it first, then submit, then tell it what was submitted. ``quiet`` is called, with the
    tasks that are open, whenever nothing has been heard of any of them for a while.
    """

    def __init__(self, b: Bus, quiet: Callable[[Collection[str]], object] | None = None) -> None:
        self._bus, self._quiet = b, quiet
        self._cursor = b.last_id()
        self._letters = last_dead_letter(b)
        self._entries: dict[str, str] = {}  # door entry id → task
        self._open: dict[str, None] = {}
        self._given: dict[str, tuple[str, bytes]] = {}  # task → idempotency key, data

    def expect(self, entry: str, task: str, key: str = "", data: bytes = b"") -> None:
        """``task`` stands at the shared door as ``entry``, with this idempotency key and data."""
        self._entries[entry] = task
        self._open[task] = None
        if key:
            self._given[task] = (key, data)

    def ends(self) -> Iterator[Ended]:
        """One by one, as they end."""
        yield from self._ended_before()
        heard = time.monotonic()
        while self._open:
            if self._quiet is not None and time.monotonic() - heard >= QUIET_S:
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
        return replay.decoded(entries)

    def _ended_before(self) -> Iterator[Ended]:
        """A repeat of what was submitted and has ended before says nothing on the log."""
        given = [task for task in self._given if task in self._open]
        replies = self._bus.client.pipeline(
            ("LRANGE", self._bus.keys.task_index(task), -1, -1) for task in given
        )
        last: dict[str, str] = {}
        for task, reply in zip(given, replies, strict=True):
            if reply and not isinstance(reply, CommandRefused):  # an index of another type
                last[task] = reply[0].decode()
        found = self._bus.events_at(list(last.values()))
        ended = [t for t, place in last.items() if place in found and is_end(found[place])]
        same = repeats(self._bus, [taken_as(*self._given[t]) for t in ended])
        for task in ended:
            if taken_as(*self._given[task]) in same:  # with other content the desk refuses it
                yield self._take(task)

    def _take(self, task: str) -> Ended:
        self._open.pop(task, None)
        events = story(self._bus, task)
        status = history.status_of(events)
        last = next((e for e in reversed(events) if is_end(e)), None)
        error = (
            str(getattr(last.data, "error", "") or getattr(last.data, "reason", "")) if last else ""
        )
        return Ended(task, status, error, Story(task, events, status))

    def _refused(self) -> Iterator[Ended]:
        for letter in dead_letters(self._bus, self._letters):
            self._letters = letter.id
            task = self._entries.get(letter.entry)
            if letter.door == self._bus.keys.main_door and task in self._open:
                self._open.pop(task)
                yield Ended(task, "refused", letter.error)


def repeats(b: Bus, given: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these idempotency keys of the shared door were taken before, with this digest."""
    if not given:
        return set()
    today = b.now() // DAY_US
    fields = [f"{b.keys.main_door}|{key}" for key, _ in given]
    replies: list[Any] = b.client.pipeline(
        ("HMGET", b.keys.duplicates(today - back), *fields) for back in range(DUPLICATE_DAYS + 1)
    )
    hashes: list[list[bytes | None]] = [r for r in replies if isinstance(r, list)]
    return {
        (key, digest)
        for reply in hashes
        for (key, digest), found in zip(given, reply, strict=True)
        if found is not None and split_taken(found)[0] == digest
    }


def taken_as(key: str, data: bytes) -> tuple[str, str]:
    """A submission under an idempotency key, as `repeats` knows it."""
    return key, digest_of("task.submitted", data)


class Answers:
    """What the desk says to entries of a door. Create it before sending them."""

    def __init__(self, b: Bus) -> None:
        self._bus = b
        self._cursor = b.last_id()
        self._letters = last_dead_letter(b)
        self._open: dict[tuple[str, str], str] = {}  # door, entry id → what it is about
        self.events: dict[str, Event] = {}  # what it is about → the event it became

    def expect(self, entry: str, about: str, door: str = "") -> None:
        """``entry`` stands at ``door``, the shared one unless it is named."""
        self._open[door or self._bus.keys.main_door, entry] = about

    def refused(self, patience_s: float = 5.0) -> int:
        """Wait until the desk has spoken; say what it refused, and how much that was.

        A desk that does not run takes the entries in once it does: that is said, and no error.
        """
        bad = 0
        for about, error in self.refusals(patience_s):
            note(f"error: {about}: {error}")
            bad += 1
        if self._open:
            note(
                "no desk has taken this in yet; it is kept and will be\n"
                "hint: `asb up` or `asb service engine` runs one; `asb doctor` says how things are"
            )
        return bad

    def refusals(self, patience_s: float) -> Iterator[tuple[str, str]]:
        """What the desk refuses within this time, and why; it ends once all are answered."""
        until = time.monotonic() + patience_s
        while self._open and time.monotonic() < until:
            for letter in dead_letters(self._bus, self._letters):
                self._letters = letter.id
                about = self._open.pop((letter.door, letter.entry), None)
                if about is not None:
                    yield about, letter.error
            self._read()

    def _read(self) -> None:
        reply: Any = self._bus.client.call(
            "XREAD", "COUNT", READ_COUNT, "BLOCK", 100,
            "STREAMS", self._bus.keys.log, self._cursor,
        )  # fmt: skip
        entries: list[Any] = reply[0][1] if reply else []
        if entries:
            self._cursor = entries[-1][0].decode()
        for event in replay.decoded(entries):
            door, _, entry = event.origin.rpartition(" ")
            if (door, entry) in self._open:
                self.events[self._open.pop((door, entry))] = event


def ended_view(ended: Ended) -> dict[str, Any]:
    """An outcome for programs."""
    found: dict[str, Any] = {"task": ended.task, "status": ended.status}
    if ended.error:
        found["error"] = ended.error
    if ended.story is not None:
        b, events = ended.story.booked, ended.story.events
        last, worker = events[-1], ended.story.last("task.dispatched")
        found |= {
            "worker": worker.data.worker if worker is not None else None,
            "attempt": last.data.attempt,
            "tokens": b.tokens,
            "cost": dollars(b.nanos),
            "cost_nanos": b.nanos,
            "result": history.told(last).get("result"),
            "ended_at": iso(last.at),
            "took_us": last.at - events[0].at,
        }
    return found
