"""What transcripts of agents say of attempts whose workers were killed, or told it otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from events.tokens import TokenParts, read
from projections import charges
from projections.records import RUNNING, PastAttempt
from projections.state import State
from services.client.bus import Bus
from services.worker.drivers.table import AGENTS, agent
from services.worker.records import AttemptRecord

METER = "transcript"
HEALED, AGREES, DIFFERS = "healed", "agrees", "differs"
RUNS, FORGOTTEN, SILENT = "still runs", "not remembered any more", "no transcript"


class Reconciliation(msgspec.Struct, kw_only=True):
    """An attempt, what its transcript says (counted ``tokens``; None: nothing), and what it is
    charged. ``usage`` is what the transcript says, by model."""

    task: str
    attempt: int
    worker: str
    agent: str
    outcome: str
    tokens: int | None = None
    charged: int = 0
    estimated: int = 0
    usage: dict[str, Any] | None = None


def reconciliations(
    state: State, records: Iterable[AttemptRecord], *, every: bool = False
) -> list[Reconciliation]:
    """What is known of each recorded attempt whose worker has not told it (``every``: of all),
    oldest first. An attempt may have two sessions: one that it was given, and one that it went on
    with."""
    sessions: dict[tuple[str, int], list[AttemptRecord]] = {}
    for record in records:
        if record.agent in AGENTS:
            sessions.setdefault((record.task, record.attempt), []).append(record)
    if not every:
        sessions = {key: of for key, of in sessions.items() if _is_open(state, of[0])}
    return [_reconciled(state, several) for several in sessions.values()]


def _reconciled(state: State, records: list[AttemptRecord]) -> Reconciliation:
    record = records[-1]
    entry = Reconciliation(
        task=record.task,
        attempt=record.attempt,
        worker=record.worker,
        agent=record.agent,
        outcome=FORGOTTEN,
    )
    task = state.tasks.get(record.task)
    if task is not None and task.status in RUNNING and task.attempt == record.attempt:
        entry.outcome = RUNS
        return entry
    charge, past = charges.of_attempt(state, record.task, record.attempt), _past(state, record)
    if charge is None:
        return entry
    entry.charged, entry.estimated = charge.tokens, charge.estimated_tokens
    parts = _read(records, entry)
    if parts is None:
        entry.outcome = SILENT
        return entry
    entry.tokens = parts.counted(state.policy.cache_read_weight_percent)
    missed = entry.estimated > 0 or entry.tokens > entry.charged
    if missed and past is not None and not past.heard:
        entry.outcome = HEALED
    else:
        entry.outcome = AGREES if entry.tokens == entry.charged else DIFFERS
    return entry


def _is_open(state: State, record: AttemptRecord) -> bool:
    past = _past(state, record)
    return past is not None and not past.heard


def _past(state: State, record: AttemptRecord) -> PastAttempt | None:
    known = state.record_of(record.task)
    past = known.past if known is not None else ()
    return next((p for p in past if p.attempt == record.attempt), None)


def _read(records: list[AttemptRecord], entry: Reconciliation) -> TokenParts | None:
    models: dict[str, Any] = {}
    for record in records:
        table = agent(record.agent)
        usage = table.transcript(Path(record.folder), record.session, record.since)
        models |= usage["models"] if usage is not None else {}
    entry.usage = {"models": models} if models else None
    return read(entry.usage).usage if models else None


def heal(bus: Bus, entry: Reconciliation) -> str:
    """Send what the transcript says; the id of that entry. Sent again it changes nothing."""
    report: dict[str, object] = {
        "agent": entry.agent,
        "worker": entry.worker,
        "task": entry.task,
        "attempt": entry.attempt,
        "meter": METER,
        "usage": entry.usage,
    }
    key = f"transcript:{entry.attempt}:{entry.tokens}:{entry.task}"
    return bus.send("usage.recorded", report, key[:200])
