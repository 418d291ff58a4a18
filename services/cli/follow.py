"""Waiting for the ends of tasks: the log and the dead letters from a moment on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import blake2b
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
from services.runtime import replay
from services.runtime.host import DUPLICATE_DAYS

BLOCK_MS = 500
READ_COUNT = 1000
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


def digest_of(kind: str, data: bytes) -> str:
    """The content of a submission as the desk remembers it beside its idempotency key."""
    return blake2b(kind.encode() + b"\0" + data, digest_size=12).hexdigest()


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

    Create it first, then submit, then tell it what was submitted.
    """

    def __init__(self, b: Bus) -> None:
        self._bus = b
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
        while self._open:
            reply: Any = self._bus.client.call(
                "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS,
                "STREAMS", self._bus.keys.log, self._cursor,
            )  # fmt: skip
            for event in replay.decoded(reply[0][1]) if reply else ():
                self._cursor = event.log_id
                if is_end(event) and event.data.task in self._open:
                    yield self._take(event.data.task)
            yield from self._refused()

    def _ended_before(self) -> Iterator[Ended]:
        """A repeat of what was submitted and has ended before says nothing on the log."""
        given = [task for task in self._given if task in self._open]
        replies = self._bus.client.pipeline(
            ("LRANGE", self._bus.keys.task_index(task), -1, -1) for task in given
        )
        last = {t: r[0].decode() for t, r in zip(given, replies, strict=True) if r}
        found = self._bus.events_at(list(last.values()))
        for task, place in last.items():
            if place in found and is_end(found[place]) and self._repeated(task):
                yield self._take(task)

    def _repeated(self, task: str) -> bool:
        """Whether its key was taken with this very content; with another the desk refuses it."""
        key, data = self._given[task]
        digest = digest_of("task.submitted", data).encode()
        b, door = self._bus, self._bus.keys.main_door
        today = b.now() // DAY_US
        replies = b.client.pipeline(
            ("HGET", b.keys.duplicates(today - back), f"{door}|{key}")
            for back in range(DUPLICATE_DAYS + 1)
        )
        return digest in replies

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


class Answers:
    """What the desk says to entries of the shared door. Create it before sending them."""

    def __init__(self, b: Bus) -> None:
        self._bus = b
        self._cursor = b.last_id()
        self._letters = last_dead_letter(b)
        self._open: dict[str, str] = {}  # door entry id → what it is about
        self.events: dict[str, Event] = {}  # what it is about → the event it became

    def expect(self, entry: str, about: str) -> None:
        self._open[entry] = about

    def refused(self, patience_s: float = 5.0) -> int:
        """Wait until the desk has spoken; say what it refused, and how much that was.

        A desk that does not run takes the entries in once it does: that is said, and no error.
        """
        bad = 0
        until = time.monotonic() + patience_s
        while self._open and time.monotonic() < until:
            for letter in dead_letters(self._bus, self._letters):
                self._letters = letter.id
                if letter.door == self._bus.keys.main_door and letter.entry in self._open:
                    note(f"error: {self._open.pop(letter.entry)}: {letter.error}")
                    bad += 1
            self._read()
        if self._open:
            note(
                "no desk has taken this in yet; it is kept and will be\n"
                "hint: `asb up` or `asb service desk` runs one; `asb doctor` says how things stand"
            )
        return bad

    def _read(self) -> None:
        reply: Any = self._bus.client.call(
            "XREAD", "COUNT", READ_COUNT, "BLOCK", 100,
            "STREAMS", self._bus.keys.log, self._cursor,
        )  # fmt: skip
        for event in replay.decoded(reply[0][1]) if reply else ():
            self._cursor = event.log_id
            door, _, entry = event.origin.rpartition(" ")
            if door == self._bus.keys.main_door and entry in self._open:
                self.events[self._open.pop(entry)] = event


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
