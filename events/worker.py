"""Workers: a name, and the session it runs in."""

from __future__ import annotations

import msgspec

from events.envelope import Payload, wire


class HeldAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt a rejoining worker still runs, with the evidence for it."""

    task: str
    attempt: int
    evidence: str = ""


@wire("worker.joined")
class WorkerJoined(Payload):
    """A session opens. Its id is the door entry id of this event. No agent: it serves all."""

    worker: str
    session: str = ""
    agent: str | None = None
    models: tuple[str, ...] = ()
    capacity: int = 1
    account: str | None = None
    lease_s: int = 60
    heartbeat: bool = True
    holds: tuple[HeldAttempt, ...] = ()


@wire("worker.left")
class WorkerLeft(Payload):
    """The worker says goodbye."""

    worker: str
    session: str = ""


@wire("worker.lost")
class WorkerLost(Payload):
    """No sign of life for a full lease; ``evidence`` says what was seen."""

    worker: str
    session: str
    evidence: str = ""


@wire("worker.paused")
class WorkerPaused(Payload):
    """No new work for this worker."""

    worker: str
    reason: str = ""


@wire("worker.resumed")
class WorkerResumed(Payload):
    """New work again."""

    worker: str


@wire("door.opened")
class DoorOpened(Payload):
    """``name`` has a front door of its own from here on; ``door`` is its key."""

    door: str
    name: str
