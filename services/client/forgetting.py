"""Which tasks are meant to be forgotten, the request, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from events.envelope import Event
from events.log import START, WordsRemoved, after
from events.task import TaskDispatched, TaskForgotten, TaskSubmitted
from events.usage import ProgressUpdated, UsageRecorded
from services.client.bus import Bus
from services.client.story import is_end

BATCH = 500
POLL_S = 0.1


class TasksToForget(msgspec.Struct):
    """Ids to forget. ``retries`` of them are among these: they carry the same text. ``unknown``
    were named and stand nowhere on the log."""

    tasks: list[str]
    retries: int = 0
    unknown: list[str] = []


class _Seen(msgspec.Struct):
    """What the log says of one task."""

    project: str = ""
    agents: set[str] = msgspec.field(default_factory=set[str])
    retry_of: str = ""
    ended_at: int = 0


def choose(
    bus: Bus, ids: Collection[str], *, agent: str = "", project: str = "", before: int = 0
) -> TasksToForget:
    """The tasks that are meant: those of ``ids``, or all that ran on an agent, belong to a project
    and ended before a moment (µs), as far as each is given; with the retries of each."""
    seen: dict[str, _Seen] = {}
    done: set[str] = set()
    for events in bus.read():
        for event in events:
            _look(seen, done, event)
    if ids:
        wanted = set(ids)
    else:
        wanted = {t for t, s in seen.items() if _matches(s, agent, project, before)}
    retries: set[str] = set()
    for task, known in seen.items():  # in the order of the log: a retry of a retry comes later
        if known.retry_of and (known.retry_of in wanted or known.retry_of in retries):
            retries.add(task)
    retries -= wanted
    unknown = [task for task in ids if task not in seen and task not in done]
    return TasksToForget(sorted((wanted | retries) - done), len(retries - done), unknown)


def _look(seen: dict[str, _Seen], done: set[str], event: Event) -> None:
    payload = event.data
    task = getattr(payload, "task", "")
    if not task:
        return
    if isinstance(payload, TaskForgotten):
        done.add(task)
        return
    known = seen.setdefault(task, _Seen())
    if isinstance(payload, TaskSubmitted):
        known.project, known.retry_of = payload.project or "", payload.retry_of or ""
        known.ended_at = 0
    elif isinstance(payload, TaskDispatched):
        known.agents.update((payload.agent, payload.worker))
    elif isinstance(payload, ProgressUpdated | UsageRecorded):
        known.agents.add(payload.agent)
        known.ended_at = known.ended_at if payload.attempt else event.at
    elif is_end(event):
        known.ended_at = event.at


def _matches(known: _Seen, agent: str, project: str, before: int) -> bool:
    return (
        (not agent or agent in known.agents)
        and (not project or known.project == project)
        and (not before or 0 < known.ended_at < before)
    )


def request(bus: Bus, tasks: Iterable[str]) -> list[str]:
    """Ask for it; the entry ids, once each request is acknowledged."""
    entries: list[str] = []
    waiting = list(tasks)
    for start in range(0, len(waiting), BATCH):
        replies = bus.client.pipeline(
            ("XADD", bus.keys.main_intake, "*", "type", "task.forgotten", "data",
             msgspec.json.encode({"task": task}))
            for task in waiting[start : start + BATCH]
        )  # fmt: skip
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
            entries.append(reply.decode())
    return entries


class ForgetProgress(msgspec.Struct):
    """How far a request has come. ``taken``: every request stands on the log; ``removed``: the
    event that says the words are gone; ``problem``: why they are not."""

    taken: bool = False
    removed: WordsRemoved | None = None
    problem: str = ""


def follow(bus: Bus, tasks: Collection[str], since: str, within_s: float) -> ForgetProgress:
    """Wait until the words of ``tasks`` are gone, for so long at most; ``since``: the last log id
    before they were asked for."""
    open_, last, cursor, progress = set(tasks), START, since, ForgetProgress()
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        for events in bus.read(cursor):
            for event in events:
                cursor = event.log_id
                if isinstance(event.data, TaskForgotten) and event.data.task in open_:
                    open_.discard(event.data.task)
                    last = event.log_id
                elif isinstance(event.data, WordsRemoved):
                    progress.removed = event.data
        progress.taken = not open_
        done = progress.removed
        if progress.taken and done and done.until and not after(last, done.until):
            return progress
        problem: Any = bus.client.call("GET", bus.keys.rewrite_problem)
        if progress.taken and problem:
            return ForgetProgress(taken=True, problem=problem.decode())
        time.sleep(POLL_S)
    return ForgetProgress(progress.taken)
