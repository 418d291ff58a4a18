"""Workers: a name, and the session it runs in."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from events.envelope import Payload, wire
from events.words import Label, Text

PERMISSION = "permission"  # of the states of an agent the one that needs a person


class WorkerHeartbeat(msgspec.Struct, frozen=True, gc=False):
    """The value of ``asb:worker:<name>``: words with a blank between, the session first.

    A worker may write nothing but its session. The rest says which process it is, so that whoever
    wants the name after a crash can look whether that one still runs: ``instance`` is random and
    made when the process starts; ``place`` names host, boot and PID namespace; ``pid`` and
    ``started`` (clock ticks since the boot) name the process there; ``keeper`` is the `asb up` that
    keeps it: the lock it holds and a nonce, with a dot between.
    """

    session: str = ""
    instance: str = ""
    place: str = ""
    pid: str = ""
    started: str = ""
    keeper: str = ""

    @property
    def value(self) -> str:
        """As it stands under the key."""
        return " ".join(getattr(self, f) or "-" for f in self.__struct_fields__)

    @classmethod
    def read(cls, value: object) -> WorkerHeartbeat:
        """From the raw value; without a session where there is none."""
        if not isinstance(value, bytes):
            return cls()
        words = value.decode("utf-8", "replace").split(" ")[: len(cls.__struct_fields__)]
        return cls(*("" if word == "-" else word for word in words))


def serves_model(models: Sequence[str], model: str) -> bool:
    """Whether ``model`` is one of ``models``, where ``*`` stands for anything; none serve all."""
    return not models or any(
        name == model or ("*" in name and fnmatchcase(model, name)) for name in models
    )


class HeldAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt that a rejoining worker still runs, as it showed by evidence."""

    task: Label
    attempt: int


@wire("worker.joined")
class WorkerJoined(Payload):
    """A session opens. Its id is the intake entry id of this event. No agent: it serves all.
    ``instance``: random, made when the worker's process started; the same one may join again.
    ``models`` may hold ``*``. ``cheap`` and ``capable`` are the models of its agent that stand for
    the two tiers of the routes; a worker that names them takes no other model than its own.
    """

    worker: Label
    session: Label = ""
    agent: Label | None = None
    models: tuple[Label, ...] = ()
    capacity: int = 1
    account: Label | None = None
    lease_s: int = 60
    heartbeat: bool = True
    holds: tuple[HeldAttempt, ...] = ()
    instance: Label = ""
    cheap: Label = ""
    capable: Label = ""


@wire("worker.refused")
class WorkerRefused(Payload):
    """The name of a join belongs to a living ``holder``, a session ``since`` then (µs): ``session``
    was never opened."""

    worker: Label
    session: Label
    holder: Label
    since: int = 0


@wire("worker.left")
class WorkerLeft(Payload):
    """The worker says goodbye."""

    worker: Label
    session: Label = ""


@wire("worker.lost")
class WorkerLost(Payload):
    """A session is over without a goodbye; ``evidence`` (private: it may quote the joiner) says
    what was seen. ``taken_by``: the session that has the name now."""

    worker: Label
    session: Label
    evidence: Text = ""
    taken_by: Label = ""


@wire("worker.paused")
class WorkerPaused(Payload):
    """No new work for this worker."""

    worker: Label
    reason: Text = ""


@wire("worker.resumed")
class WorkerResumed(Payload):
    """New work again."""

    worker: Label


@wire("worker.state")
class WorkerState(Payload):
    """What the agent of a worker does, where that tells: ``state`` is idle, busy, permission (it
    waits for a person to allow the tool ``about``), limited (its provider refuses it), dead or
    unknown; ``since`` is µs by the worker's clock; ``by`` whose word: hook, state file, transcript,
    process."""

    worker: Label
    state: Label
    since: int = 0
    by: Label = ""
    about: Label = ""

    @property
    def asks(self) -> bool:
        """Whether nothing goes on before a person answers."""
        return self.state == PERMISSION


@wire("worker.twin")
class WorkerTwin(Payload):
    """The agent of a worker still runs an attempt that was given out again meanwhile: the same work
    is done twice. Its worker ends it; ``evidence`` is what that saw."""

    worker: Label
    task: Label
    attempt: int
    evidence: Text = ""


@wire("intake.opened")
class IntakeOpened(Payload):
    """``name`` has an intake stream of its own from here on; ``intake`` is its key."""

    intake: Label
    name: Label
