"""The inbox projector: what a worker is asked to do, written to ``asb:inbox:<worker>``.

An inbox entry carries the log's id, so writing it twice changes nothing; after a restart all open
dispatches are simply offered again. Where the host decides, too, the script that appends a turn
writes its notes; this projector writes those of others, and what that script could not.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TypeGuard

import anyio

from events.envelope import Event, text_of
from events.keys import Keys
from events.task import PRIORITIES
from projections.records import RUNNING, TaskRecord
from projections.state import State
from services.projector import Projector, Setup
from services.runtime.failpoints import point
from services.store.client import Client
from services.store.log import Log, Note, parse_id
from services.store.prompts import Texts
from services.store.scripts import Argument, script

BATCH = 100
KEPT_US = 3_600_000_000  # an inbox keeps an hour of what is over


class TaskNote(Note, gc=False):
    """A note about ``task``. ``text_at``: its prompt still has to be fetched there."""

    task: str = ""
    text_at: str = ""


class Inboxes(Projector):
    """Writes the inboxes of all workers."""

    look_s = 1.0
    takes_notes = True

    def __init__(self, client: Client, keys: Keys, texts: Texts) -> None:
        super().__init__()
        self._client, self._keys, self._texts = client, keys, texts
        self._log = Log(client, keys)
        self._pending: list[TaskNote] = []
        self._forgotten: Container[str] = ()  # tasks of which nothing is written

    # -- what to write -------------------------------------------------------------------------

    def feed(self, events: Sequence[Event], state: State) -> None:
        """Notes for what these events mean to a worker."""
        self._forgotten = state.forgotten
        self.noted(self._notes(events, state), written=False)

    def notes(self, events: Sequence[Event], state: State) -> list[TaskNote] | None:
        """As ``feed``; none behind what is still pending, and none without its prompt."""
        self._forgotten = state.forgotten
        if self._pending:
            return None
        notes = self._notes(events, state)
        whole = not any(note.text_at or note.task in state.forgotten for note in notes)
        return notes if whole else None

    def noted(self, notes: Sequence[Note], written: bool) -> None:
        """What the append did not write is pending."""
        for note in notes:
            assert isinstance(note, TaskNote)
            self._texts.forget(note.task)
            if not written:
                self._pending.append(note)
        if self._pending:
            self.wake()

    def _notes(self, events: Sequence[Event], state: State) -> list[TaskNote]:
        notes: list[TaskNote] = []
        for event in events:
            kind = event.data.type
            if kind == "task.dispatched":
                task = state.tasks.get(event.data.task)
                # The batch may hold the attempt's end, too: then nobody is to begin it.
                if _is_running(task) and task.dispatch_id == event.log_id:
                    notes.append(self._dispatched(task))
            elif kind in _OTHERS:
                notes += self._other(kind, event, state)
        return notes

    def restored(self, state: State) -> None:
        """Offer every open dispatch again; what stands there already is left alone."""
        self._forgotten = state.forgotten
        running = [t for t in state.tasks.values() if t.status in RUNNING]
        running.sort(key=lambda t: parse_id(t.dispatch_id))
        notes = [self._dispatched(t) for t in running]
        notes += [self._hold(t) for t in running if t.hold_word]
        notes += [self._cancel(t) for t in running if t.cancelling]
        self._pending = []
        self.noted(sorted(notes, key=lambda note: parse_id(note.log_id)), written=False)
        self.wake()

    def _dispatched(self, task: TaskRecord) -> TaskNote:
        text = self._texts.get(task.id)
        fields = [
            "type",
            "task.dispatched",
            "task",
            task.id,
            "attempt",
            str(task.attempt),
            "session",
            task.session,
            "text",
            text or "",
            "kind",
            task.kind,
            "agent",
            task.run_agent,
            "model",
            task.run_model,
            "deadline",
            str(task.due),
            "priority",
            PRIORITIES[task.priority],
            "timeout_s",
            str(task.timeout_s),
        ]
        at = "" if text is not None else task.log_id
        return TaskNote(self._keys.inbox(task.worker), task.dispatch_id, fields, task.id, at)

    def _other(self, kind: str, event: Event, state: State) -> Iterator[TaskNote]:
        payload = event.data
        if kind == "task.cancel_requested":
            task = state.tasks.get(payload.task)
            if _is_running(task):
                yield self._cancel(task, text_of(event, "reason"))
        elif kind == "hold.refused":
            fields = ["type", kind, "task", payload.task, "attempt", str(payload.attempt)]
            fields += [
                "session",
                payload.session,
                "action",
                payload.action,
                "reason",
                payload.reason,
            ]
            yield TaskNote(self._keys.inbox(payload.worker), event.log_id, fields)
        elif kind == "hold.extended":
            task = state.tasks.get(payload.task)
            if _is_running(task) and task.hold_word == event.log_id:
                yield self._hold(task)
        elif kind == "worker.lost":
            fields = [
                "type",
                kind,
                "session",
                payload.session,
                "reason",
                text_of(event, "evidence"),
            ]
            if payload.taken_by:
                fields += ["taken_by", payload.taken_by]
            yield TaskNote(self._keys.inbox(payload.worker), event.log_id, fields)
        elif kind == "worker.refused":
            fields = ["type", kind, "session", payload.session, "holder", payload.holder]
            fields += ["since", str(payload.since), "reason", "the holder of this name is alive"]
            yield TaskNote(self._keys.inbox(payload.worker), event.log_id, fields)
        elif (
            payload.charged is not None
            and payload.charged.worker
            and payload.session
            and not event.origin
        ):
            fields = [
                "type",
                "task.requeued",
                "task",
                payload.task,
                "attempt",
                str(payload.attempt),
            ]
            fields += ["session", payload.session, "reason", _reason(event)]
            yield TaskNote(self._keys.inbox(payload.charged.worker), event.log_id, fields)

    def _cancel(self, task: TaskRecord, reason: str = "cancelled by request") -> TaskNote:
        fields = ["type", "task.cancel_requested", "task", task.id, "attempt", str(task.attempt)]
        fields += ["session", task.session, "reason", reason]
        return TaskNote(self._keys.inbox(task.worker), task.cancel_id, fields, task.id)

    def _hold(self, task: TaskRecord) -> TaskNote:
        """What its worker is to know of its hold: more was refused, or allowed after a refusal."""
        refused = task.hold_refused
        fields = ["type", "hold.refused" if refused else "hold.extended", "task", task.id]
        fields += ["attempt", str(task.attempt), "session", task.session]
        if refused:
            fields += ["action", refused, "reason", "it used what was held, and more was refused"]
        return TaskNote(self._keys.inbox(task.worker), task.hold_word, fields, task.id)

    # -- writing -------------------------------------------------------------------------------

    async def flush(self, woken: bool) -> None:
        """Write what is pending, a few batches at a time."""
        batch = self._pending[: 5 * BATCH]
        await self._fetch_texts(batch)
        by_inbox: dict[str, list[TaskNote]] = {}
        for note in batch:
            by_inbox.setdefault(note.inbox, []).append(note)
        for inbox, notes in by_inbox.items():
            for start in range(0, len(notes), BATCH):
                await self._write(inbox, notes[start : start + BATCH])
        written = {id(note) for note in batch}
        self._pending = [note for note in self._pending if id(note) not in written]
        if self._pending:
            self.wake()

    async def _fetch_texts(self, batch: list[TaskNote]) -> None:
        missing = {note.task: note.text_at for note in batch if note.text_at}
        texts = await self._log.texts(missing)
        for note in batch:
            if note.text_at:
                note.fields[9] = texts.get(note.task, "")
                note.text_at = ""
            if note.task in self._forgotten and note.fields[1] == "task.dispatched":
                note.fields[1] = "task.forgotten"
                del note.fields[8:10]

    async def _write(self, inbox: str, notes: list[TaskNote]) -> None:
        args: list[Argument] = [len(notes)]
        for note in notes:
            args.append(note.log_id)
            args.append(len(note.fields) // 2)
            args += note.fields
        point("inbox.before")
        await script("inbox")(self._client, [inbox], args)
        point("inbox.after")


_OTHERS = frozenset(
    (
        "task.cancel_requested",
        "worker.lost",
        "worker.refused",
        "hold.refused",
        "hold.extended",
        "task.requeued",
        "task.failed",
        "task.cancelled",
    )
)


def _reason(event: Event) -> str:
    """Why an attempt ended: asb's own phrase, else a private text."""
    return getattr(event.data, "reason", "") or text_of(event, "reason")


def _is_running(task: TaskRecord | None) -> TypeGuard[TaskRecord]:
    """Whether a worker has it: else there is no inbox to write to."""
    return task is not None and task.status in RUNNING


class InboxTrimmer(Projector):
    """Forgets what is over: entries older than an hour that no open dispatch needs."""

    def __init__(self, client: Client, keys: Keys) -> None:
        super().__init__()
        self._client, self._keys = client, keys
        self._before: dict[str, str] = {}
        self._minute = 0

    def feed(self, events: Sequence[Event], state: State) -> None:
        if events[-1].at // 60_000_000 != self._minute:
            self.restored(state)

    def restored(self, state: State) -> None:
        self._minute = state.meta.clock // 60_000_000
        hour_ago = (max(0, state.meta.clock - KEPT_US) // 1000, 0)
        for worker in state.workers.values():
            open_ids = [
                parse_id(state.tasks[t].dispatch_id) for t in worker.running if t in state.tasks
            ]
            ms, seq = min([hour_ago, *open_ids])
            self._before[worker.name] = f"{ms}-{seq}"

    async def run(self) -> None:
        """Trim once a minute. Raises RedisUnavailable."""
        await anyio.sleep(60)
        for worker, before in list(self._before.items()):
            await self._client.call("XTRIM", self._keys.inbox(worker), "MINID", "~", before)


def projectors(setup: Setup) -> list[Projector]:
    """What the inbox service projects."""
    client, keys = setup.client, setup.keys
    return [Inboxes(client, keys, setup.texts), InboxTrimmer(client, keys)]
