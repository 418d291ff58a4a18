"""What workers say of themselves: they join, pause, go on and leave. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from events.commands.workers import (
    JoinWorker,
    LeaveWorker,
    PauseWorker,
    ResumeWorker,
    TellOfWorker,
    TellState,
)
from events.envelope import Event
from events.worker import (
    PERMISSION,
    HeldAttempt,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
    WorkerState,
    WorkerTwin,
)
from projections.records import ALIVE, Worker
from services.intake import schema
from services.intake.case import Case, takes
from services.intake.schema import Rejected

EVIDENCE_CHARACTERS = 300
HOLDS_MAX = 100
AGENT_STATES = ("idle", "busy", PERMISSION, "limited", "dead", "unknown")
_SESSION = re.compile(r"\d+-\d+\Z")


@takes(JoinWorker)
def joined(case: Case, join: JoinWorker) -> Iterable[Event]:
    """A session opens, named by the intake entry, unless the name belongs to a living worker."""
    opened = _checked(case, join)
    yield from _opened(case, join, opened)
    yield from _twins(case, join)


def _opened(case: Case, join: JoinWorker, opened: WorkerJoined) -> Iterable[Event]:
    holder = case.state.workers.get(join.worker)
    if holder is None or holder.status != ALIVE:
        yield case.reported(opened, join)
    elif holder.session == opened.session:
        return
    elif join.instance and join.instance == holder.instance:
        yield case.reported(opened, join)  # sent twice, or anew by the same process: nobody is lost
    elif reason := _may_take_over(case, join, holder):
        lost = case.event(
            WorkerLost(
                holder.name,
                holder.session,
                f"session {opened.session} took its name: {reason}",
                opened.session,
            )
        )
        lost.id = f"{opened.session}.lost"
        # What ends the older session would also end the attempts that go on in the newer one.
        events = (
            (lost, case.reported(opened, join))
            if not join.holds
            else (case.reported(opened, join), lost)
        )
        yield from events
    else:
        yield case.reported(
            WorkerRefused(holder.name, opened.session, holder.session, holder.joined_at), join
        )


def _checked(case: Case, join: JoinWorker) -> WorkerJoined:
    schema.check_name(join.worker, "worker")
    case.check_speaks_for(join.worker)
    schema.check_name(join.agent, "agent")
    schema.check_name(join.account, "account", schema.LABEL)
    schema.check_name(join.instance, "instance")
    models = join.models
    if isinstance(models, str):
        models = tuple(models.replace(",", " ").split())
    for model in (*models, join.cheap, join.capable):
        schema.check_name(model, "model", schema.LABEL)
    schema.check_range(join.capacity, "capacity", 1, 100_000)
    schema.check_range(join.lease_s, "lease_s", 1, 24 * 3600)
    return WorkerJoined(
        join.worker,
        case.entry.id,
        join.agent,
        models,
        join.capacity,
        join.account,
        join.lease_s or case.defaults.lease_s,
        join.heartbeat not in (False, "no", "false", "0"),
        _shown(case, join),
        join.instance or "",
        join.cheap or "",
        join.capable or "",
    )


def _shown(case: Case, join: JoinWorker) -> tuple[HeldAttempt, ...]:
    """The attempts that it shows by evidence to run still; what nobody runs is nobody's."""
    holder = case.state.workers.get(join.worker)
    running = holder.running if holder is not None else {}
    return tuple(
        HeldAttempt(held.task, held.attempt)
        for held in join.holds
        if held.evidence and running.get(held.task) == held.attempt
    )


def _may_take_over(case: Case, join: JoinWorker, holder: Worker) -> str:
    """Why the name goes from its living ``holder`` to who joins now; "" where it does not."""
    if join.take_over:
        return "it was told to"
    if not holder.heartbeat:
        return "the holder gives no heartbeat, and a name is not kept by idling"
    if evidence := _evidence(join, holder):
        return evidence
    if any(h.evidence and holder.running.get(h.task) == h.attempt for h in join.holds):
        return "it holds what the holder ran"
    return "the holder's heartbeat is gone" if _heartbeat_gone(case, holder) else ""


def _evidence(join: JoinWorker, holder: Worker) -> str:
    """What the joiner saw of the holder's death. Where it says of which session, the first word,
    that has to be the holder's: another may have been faster to take the name."""
    evidence = join.evidence.strip()
    session, _, seen = evidence.partition(" ")
    if _SESSION.match(session):
        evidence = seen.strip() if session == holder.session else ""
    return evidence[:EVIDENCE_CHARACTERS]


def _heartbeat_gone(case: Case, holder: Worker) -> bool:
    """Looked for just now and not found. Who has joined a moment ago may be about to show it: it
    would stay for half a lease."""
    if case.known.heartbeats.get(holder.name, holder.session) != "":
        return False
    return not 0 <= case.now - holder.joined_at < holder.lease_s * 500_000


def _twins(case: Case, join: JoinWorker) -> Iterable[Event]:
    """Attempts that it shows to run still, though they were given out again meanwhile."""
    for held in join.holds[:HOLDS_MAX]:
        task = case.state.tasks.get(held.task)
        if held.evidence and task is not None and task.attempt > held.attempt:
            evidence = held.evidence[:EVIDENCE_CHARACTERS]
            yield case.event(WorkerTwin(join.worker, task.id, held.attempt, evidence))


@takes(TellState)
def agent_state(case: Case, command: TellState) -> Iterable[Event]:
    """What its agent does; said again changes nothing."""
    worker = _known_worker(case, command)
    for name in ("state", "by", "about"):
        schema.check_name(getattr(command, name) or None, name, schema.LABEL)
    if command.state not in AGENT_STATES:
        raise Rejected(f"state {command.state[:40]!r} is none of {', '.join(AGENT_STATES)}")
    if worker.agent_state != command.state or worker.agent_about != command.about:
        said = (command.state, command.since, command.by, command.about)
        yield case.reported(WorkerState(command.worker, *said), command)


@takes(LeaveWorker)
def left(case: Case, command: LeaveWorker) -> Iterable[Event]:
    worker = _known_worker(case, command)
    if worker.status == ALIVE and command.session in ("", worker.session):
        yield case.reported(WorkerLeft(command.worker, worker.session), command)


@takes(PauseWorker)
def paused(case: Case, command: PauseWorker) -> Iterable[Event]:
    if not _known_worker(case, command).paused:
        yield case.reported(WorkerPaused(command.worker, command.reason[:500]), command)


@takes(ResumeWorker)
def resumed(case: Case, command: ResumeWorker) -> Iterable[Event]:
    if _known_worker(case, command).paused:
        yield case.reported(WorkerResumed(command.worker), command)


def _known_worker(case: Case, command: TellOfWorker) -> Worker:
    case.check_speaks_for(command.worker)
    worker = case.state.workers.get(command.worker)
    if worker is None:
        raise Rejected(f"worker {command.worker[:80]!r} is unknown")
    return worker


class _WorkerName(msgspec.Struct):
    worker: str = ""


_named = msgspec.json.Decoder(_WorkerName)


def joining(fields: list[bytes]) -> str:
    """The name that a ``worker.joined`` asks for; "" for any other entry, and where it has none."""
    try:
        kind, _, raw = schema.read(fields)
        return _named.decode(raw).worker if kind == "worker.joined" else ""
    except (Rejected, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
