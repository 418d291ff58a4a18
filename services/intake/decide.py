"""Intake: what stands at the intakes becomes events, or dead letters with a clear error. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from events.account import AccountLimited
from events.envelope import Event, payload_class
from events.task import TaskRequeued
from events.usage import UsageCompared
from events.worker import WorkerLost, WorkerRefused
from projections.records import ALIVE
from projections.state import State
from services.decider import (
    Asked,
    Decider,
    Decisions,
    Inputs,
    IntakeEntry,
    Rejection,
    Taken,
    Unclean,
)
from services.intake import (
    accounts,
    clock,
    corrections,
    forgetting,
    intakes,
    messages,
    policies,
    progress,
    routing,
    schema,
    sessions,
    submissions,
)
from services.intake.case import HANDLERS, Case, Handler
from services.intake.schema import Rejected
from services.mentions import is_about

FILES = (
    *(accounts, clock, corrections, forgetting, intakes, messages, policies, progress, routing),
    *(sessions, submissions),
)  # each registers what it takes


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """Take the intake entries in, in order: events, or a Rejection for what cannot be accepted.

    A repeat (same intake and ``id``, same content) yields nothing; the same id with other
    content is refused.
    """
    taken: dict[str, str] = {}
    beyond: set[str] = set()
    for entry in inputs.entries:
        if intakes.is_ahead(state, entry, now, inputs.latest):
            if entry.intake not in beyond:
                newest = intakes.newest_ms(state, entry.intake, now, inputs.latest)
                yield Rejection(entry, intakes.AHEAD_ERROR, back_to=f"{newest + 1}-0")
            beyond.add(entry.intake)
            continue
        case = Case(
            state,
            now,
            entry,
            inputs.defaults,
            inputs.known,
            inputs.main_intake,
            inputs.secret,
        )
        if state.forgotten and is_about(entry, case.main_intake, state.forgotten):
            yield Unclean(entry.intake, entry.id)
        try:
            yield from _judge(case, taken)
        except Rejected as error:
            yield _kept(case, Rejection(entry, str(error)))
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
            # A fault of ours must not stop the engine at this entry for ever: it is kept and shown.
            yield _kept(case, Rejection(entry, f"asb could not handle this entry: {error!r}"))


def _kept(case: Case, letter: Rejection) -> Rejection:
    """A rejection as it may stand among the dead letters."""
    forgotten = case.state.forgotten
    return forgetting.without_words(letter, case.main_intake, forgotten) if forgotten else letter


def _judge(case: Case, taken: dict[str, str]) -> Iterator[Event | Taken | Rejection]:
    kind, given_id, case.raw = schema.read(case.entry.fields)
    handler = HANDLERS.get(kind)
    if handler is None:
        raise Rejected(_unknown_type(kind))
    if given_id:
        key = f"{case.entry.intake}|{given_id}"
        digest = schema.digest_of(kind, case.raw, case.secret)
        before = taken.get(key) or case.known.ids.get(key)
        if before == digest:
            return
        if before is not None:
            raise Rejected(f"id {given_id!r} was used before, with other content")
        events = list(_handled(case, handler))
        taken[key] = digest
        yield Taken(key, digest)
    else:
        given_id = case.entry.id
        events = _handled(case, handler)
    for said in events:
        if isinstance(said, Event):
            said.id = said.id or given_id
            yield said
        else:
            yield _kept(case, said)


def _handled(case: Case, handler: Handler) -> Iterable[Event | Rejection]:
    return handler.handle(case, schema.decode(case.raw, handler.decoder))


def _unknown_type(kind: str) -> str:
    if payload_class(kind) is not None:
        return f"{kind} is decided by asb and cannot be sent through an intake"
    return f"unknown type {kind[:60]!r}; one of {', '.join(sorted(HANDLERS))}"


def asks(state: State, entries: Iterable[IntakeEntry]) -> Asked:
    """What ``decide`` needs to know of these entries from beside the log. Of living workers whose
    names somebody wants it needs a fresh look at their heartbeats."""
    ids: set[str] = set()
    wanted: set[str] = set()
    named: set[str] = set()
    for entry in entries:
        fields = entry.fields
        if b"worker.joined" in fields:
            wanted.add(sessions.joining(fields))
        if len(fields) > 4 or b"id" in fields[0::2]:
            names = dict(zip(fields[0::2], fields[1::2], strict=False))
            if b"id" in names:
                ids.add(f"{entry.intake}|{names[b'id'].decode(errors='replace')}")
        if references := schema.task_references(fields):
            named.update(references)
    if not (ids or wanted or named):
        return Asked()
    workers = state.workers
    return Asked(
        ids,
        {task for task in named if task not in state.tasks and task not in state.outcomes},
        {name for name in wanted if name in workers and workers[name].status == ALIVE},
    )


# A command becomes an event of the same name; a join may be refused, or end another session.
EMITS = frozenset(
    {cls for name in HANDLERS if (cls := payload_class(name)) is not None}
    | {WorkerLost, WorkerRefused, AccountLimited, TaskRequeued, UsageCompared}
)
DECIDER = Decider("intake", decide, EMITS, asks=asks, entire=True)
