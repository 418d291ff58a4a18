"""What workers say of themselves: they join, pause, go on and leave. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from events.envelope import Event
from events.worker import (
    HeldAttempt,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
)
from projections.records import ALIVE, Worker
from services.intake import schema
from services.intake.case import Case
from services.intake.schema import Rejected

EVIDENCE_CHARACTERS = 300
_SESSION = re.compile(r"\d+-\d+\Z")


class JoinWorker(msgspec.Struct, gc=False):
    """``worker.joined`` as workers write it."""

    worker: str
    agent: str | None = None
    models: tuple[str, ...] | str = ()
    capacity: int = 1
    account: str | None = None
    lease_s: int | None = None
    heartbeat: bool | str = True
    holds: tuple[HeldAttempt, ...] = ()
    instance: str | None = None
    evidence: str = ""
    take_over: bool = False
    cheap: str | None = None
    capable: str | None = None


_join = msgspec.json.Decoder(JoinWorker)


def joined(case: Case) -> Iterable[Event]:
    """A session opens, named by the intake entry, unless the name belongs to a living worker."""
    join: JoinWorker = schema.decode(case.raw, _join)
    opened = _checked(case, join)
    holder = case.state.workers.get(join.worker)
    if holder is None or holder.status != ALIVE:
        yield case.reported(opened)
    elif holder.session == opened.session:
        return
    elif join.instance and join.instance == holder.instance:
        yield case.reported(opened)  # sent twice, or anew by the same process: nobody is lost
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
        events = (lost, case.reported(opened)) if not join.holds else (case.reported(opened), lost)
        yield from events
    else:
        yield case.reported(
            WorkerRefused(holder.name, opened.session, holder.session, holder.joined_at)
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
        join.holds,
        join.instance or "",
        join.cheap or "",
        join.capable or "",
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


class TellOfWorker(msgspec.Struct, gc=False):
    """``worker.left|paused|resumed`` as they are written."""

    worker: str
    session: str = ""
    reason: str = ""


_worker = msgspec.json.Decoder(TellOfWorker)


def left(case: Case) -> Iterable[Event]:
    said = _known_worker(case)
    worker = case.state.workers[said.worker]
    if worker.status == ALIVE and said.session in ("", worker.session):
        yield case.reported(WorkerLeft(said.worker, worker.session))


def paused(case: Case) -> Iterable[Event]:
    said = _known_worker(case)
    if not case.state.workers[said.worker].paused:
        yield case.reported(WorkerPaused(said.worker, said.reason[:500]))


def resumed(case: Case) -> Iterable[Event]:
    said = _known_worker(case)
    if case.state.workers[said.worker].paused:
        yield case.reported(WorkerResumed(said.worker))


def _known_worker(case: Case) -> TellOfWorker:
    said: TellOfWorker = schema.decode(case.raw, _worker)
    case.check_speaks_for(said.worker)
    if said.worker not in case.state.workers:
        raise Rejected(f"worker {said.worker[:80]!r} is unknown")
    return said


class _WorkerName(msgspec.Struct):
    worker: str = ""


_named = msgspec.json.Decoder(_WorkerName)


def joining(fields: list[bytes]) -> str:
    """The name that a ``worker.joined`` asks for; "" for any other entry, and where it has none."""
    if b"worker.joined" not in fields:
        return ""
    try:
        kind, _, raw = schema.read(fields)
        return _named.decode(raw).worker if kind == "worker.joined" else ""
    except (Rejected, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
