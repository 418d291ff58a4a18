"""Given–when–then for folds and deciders, and the whole engine in memory.

``given(*payloads)`` folds facts; ``.when(decider)`` lets one decide; ``.then(*payloads)`` says what
it must have decided. ``Bus`` is the engine without Redis: entries go in at the intakes, turns are
decided and folded, time passes by hand, and ``log`` holds what would stand on the log, as wire
entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import msgspec
from msgspec.structs import replace

from events.envelope import Event, Payload, as_read, decode, encode, text_of, words_of
from events.policy import PolicyChanged
from events.routing import DelegatorLearnt
from projections import fold
from projections.records import ALIVE
from projections.state import State
from services.decider import Decide, Decider, Decision, Inputs, IntakeEntry, Known, Rejection
from services.delegator.classify import Delegator
from services.delegator.decide import decider
from services.dispatcher import decide as dispatcher
from services.engine import clock_steps, first_policy
from services.engine.turn import Turn, run_turn
from services.intake import decide as intake
from services.throttle import decide as throttle
from tests.examples import NOON, SECOND

SHARED = "asb:intake"
SECRET = b"5" * 64  # of the bus in memory
_delegator = decider(Delegator())
DECIDERS: tuple[Decider, ...] = (
    first_policy.DECIDER,
    clock_steps.DECIDER,
    intake.DECIDER,
    _delegator,
    dispatcher.DECIDER,
    throttle.DECIDER,
)


class Given:
    """A state made of facts, each a millisecond after the one before."""

    def __init__(self, at: int = NOON) -> None:
        self.state = State()
        self.now = at
        self.decisions: list[Decision] = []
        self.overlay: tuple[str, dict[str, str]] = ("", {})  # what the delegator was taught

    def given(self, *payloads: Payload, at: int | None = None, origin: str = "") -> Given:
        """Fold ``payloads``, the first at ``at`` where one is named."""
        if at is not None:
            self.now = at
        for payload in payloads:
            self._fold(Event(payload, origin=origin))
            self.now += 1000
        return self

    def _fold(self, decision: Event) -> None:
        """What is folded is what stands on the log; the decision keeps its words for the test."""
        event = replace(decision, raw=decision.raw or wire(decision.data))
        event.data = copy(decision.data)
        event.at = self.now
        event.log_id = f"{self.now // 1000}-{self.state.meta.events}"
        if isinstance(decision.data, DelegatorLearnt):
            self.overlay = event.log_id, decision.data.overlay
        fold.apply(self.state, as_read(event))

    def when(self, decide: Decide, inputs: Inputs | None = None, at: int | None = None) -> Given:
        """Let a decider speak; what it decides is folded as it speaks."""
        if at is not None:
            self.now = at
        self.decisions = []
        inputs = inputs or Inputs()
        inputs.overlay = self.overlay
        for decision in decide(self.state, self.now, inputs):
            self.decisions.append(decision)
            if isinstance(decision, Event):
                self._fold(decision)
        return self

    @property
    def decided(self) -> list[Any]:
        """The payloads decided last."""
        return [d.data for d in self.decisions if isinstance(d, Event)]

    @property
    def errors(self) -> list[str]:
        return [d.error for d in self.decisions if isinstance(d, Rejection)]

    def then(self, *payloads: Payload) -> Given:
        assert self.decided == list(payloads)
        return self


def given(*payloads: Payload, at: int = NOON) -> Given:
    return Given(at).given(*payloads)


def intake_entry(
    kind: str, entry_id: str, data: dict[str, Any], *, intake: str = SHARED, given_id: str = ""
) -> IntakeEntry:
    fields = [b"type", kind.encode()]
    if given_id:
        fields += [b"id", given_id.encode()]
    return IntakeEntry(intake, entry_id, [*fields, b"data", json.dumps(data).encode()])


def check_emits(turn: Turn, deciders: Iterable[Decider]) -> None:
    """Every decider said only what it declares."""
    emits = {decider.name: decider.emits for decider in deciders}
    for event in turn.events:
        assert type(event.data) in emits["intake" if event.origin else event.source], event


def wire(payload: Payload) -> bytes:
    """``payload`` as the data of an entry of the log."""
    return encode(payload, SECRET)


def wire_entry(event: Event) -> list[Any]:
    """``event`` as redis-py hands an entry of the log over: ``[id, [field, value, …]]``."""
    fields = (
        ("type", event.data.type),
        ("id", event.id),
        ("source", event.source),
        ("from", event.origin),
        ("at", str(event.at)),
    )
    flat = [part.encode() for pair in fields for part in pair]
    return [event.log_id.encode(), [*flat, b"data", event.raw or wire(event.data)]]


def replayed(log: Sequence[list[Any]], state: State | None = None) -> State:
    """A state folded from wire entries, as a reader would."""
    state = state or State()
    for entry in log:
        fold.apply(state, decode(entry))
    return state


class Bus:
    """The engine, its intakes, its clock and its workers' heartbeats, in memory."""

    def __init__(self, policy: PolicyChanged | None = None, at: int = NOON) -> None:
        self.state = State()
        self.deciders = DECIDERS
        self.now = at
        self.log: list[list[Any]] = []
        self.events: list[Event] = []
        self.refused: list[Rejection] = []
        self.unclean: dict[str, str] = {}  # intake -> the newest entry that must not stay
        self.silent: set[str] = set()  # workers that give no heartbeat
        self.ids: dict[str, str] = {}
        self.sent: set[str] = set()  # types of what was put into intakes
        self.ever: set[str] = set()  # tasks that ever stood on the log
        self.inputs = Inputs(
            main_intake=SHARED, initial_policy=policy or PolicyChanged(), secret=SECRET
        )
        self.found_since = at  # since when the server has been answering
        self._stepped = 0  # by how much the server's clock has stepped in all, µs
        self._renewed: dict[str, int] = {}  # by session: when its heartbeat was last renewed
        self._pending: list[IntakeEntry] = []
        self._entry = 0

    # -- the intakes -------------------------------------------------------------------------------

    def send(self, type_: str, /, *, given_id: str = "", intake: str = SHARED, **data: Any) -> str:
        """Put an entry into an intake; its entry id."""
        self.sent.add(type_)
        self._entry += 1
        entry_id = f"{self.now // 1000}-{self._entry}"
        self._pending.append(intake_entry(type_, entry_id, data, intake=intake, given_id=given_id))
        return entry_id

    def put(self, fields: list[bytes], intake: str = SHARED, entry_id: str = "") -> str:
        """Put raw fields into an intake; the entry id."""
        self._entry += 1
        entry_id = entry_id or f"{self.now // 1000}-{self._entry}"
        self._pending.append(IntakeEntry(intake, entry_id, fields))
        return entry_id

    def submit(self, text: str = "Fix the login form", **data: Any) -> str:
        """Submit a task; its id."""
        entry_id = self.send("task.submitted", text=text, **data)
        return str(data.get("task", entry_id))

    def join(self, worker: str = "w1", **data: Any) -> str:
        """A worker asks for a name; its session, if it gets it."""
        return self.send("worker.joined", worker=worker, **data)

    def report(self, type_: str, task: str, /, **data: Any) -> str:
        """The present attempt of ``task`` tells how it goes."""
        record = self.state.tasks[task]
        reported: dict[str, Any] = {"attempt": record.attempt, "session": record.session, **data}
        return self.send(type_, task=task, **reported)

    # -- turns -----------------------------------------------------------------------------------

    def decide(self) -> Turn:
        """One turn, folded but not yet appended: ``keep`` or ``undo`` must follow."""
        self._signs_of_life()
        self.inputs.entries = list(self._pending)
        self.inputs.overlay = self._overlay()
        self.inputs.known = Known(
            dict(self.ids),
            frozenset(self.ever - {*self.state.tasks, *self.state.outcomes}),
            {
                name: "" if name in self.silent else self.state.workers[name].session
                for name in intake.asks(self.state, self._pending).workers
            },
        )
        self.state.begin()
        turn = run_turn(self.state, self.now, self.deciders, self.inputs)
        check_emits(turn, self.deciders)
        return turn

    @property
    def waiting(self) -> list[IntakeEntry]:
        """What stands at the intakes and is not taken in."""
        return self._pending

    def keep(self, turn: Turn) -> None:
        """The turn reached the log."""
        self.state.commit()
        del self._pending[: turn.consumed]
        self.refused += turn.refused
        self.unclean |= turn.unclean
        self.ids.update((mark.key, mark.digest) for mark in turn.taken if turn.events)
        if turn.events:
            self.state.dirty_scopes.clear()
        self.events += turn.events
        self.log += [wire_entry(event) for event in turn.events]
        self.ever.update(e.data.task for e in turn.events if e.data.type == "task.submitted")
        self.silent -= {e.data.worker for e in turn.events if e.data.type == "worker.joined"}

    def undo(self) -> None:
        """The turn did not reach the log."""
        self.state.rollback()

    @property
    def elapsed(self) -> int:
        """The time that really passed, µs: the clock without its steps."""
        return self.now - self._stepped

    def step(self, by: int) -> None:
        """The server's clock steps by ``by`` µs; no time passes."""
        self.now += by
        self._stepped += by
        self.inputs.step = (by, self.now)

    def _signs_of_life(self) -> None:
        """What the host's looks saw: a heartbeat lives for half a lease without being renewed."""
        now = self.elapsed
        absent: dict[str, int] = {}
        for worker in self.state.workers.values():
            if worker.status == ALIVE and worker.name not in self.silent:
                self._renewed[worker.session] = now
            gone = self._renewed.get(worker.session, now) + worker.lease_s * SECOND // 2
            if now > max(gone, self.found_since):
                absent[worker.session] = now - max(gone, self.found_since)
        self.inputs.absent_us, self.inputs.found_us = absent, now - self.found_since

    def run(self) -> list[Event]:
        """Turns until the engine rests; the events appended."""
        before = len(self.events)
        for _ in range(10_000):
            turn = self.decide()
            self.keep(turn)
            if not turn.events and not turn.more:
                return self.events[before:]
        raise AssertionError("the engine does not come to rest")

    def wait(self, seconds: float) -> list[Event]:
        """Let time pass, then run."""
        self.now += int(seconds * SECOND)
        return self.run()

    def _overlay(self) -> tuple[str, dict[str, str]]:
        """What the delegator was taught last, as a host fetches it from the log."""
        place = self.state.meta.overlay.place
        taught = [e for e in self.events if e.log_id == place] if place else []
        return place, words_of(taught[-1]).get("overlay", {}) if taught else {}

    def texts(self, kind: str, name: str) -> list[str]:
        """A private text of each event of one type on the log."""
        return [text_of(e, name) for e in self.events if e.data.type == kind]

    def types(self, *wanted: str) -> list[str]:
        return [e.data.type for e in self.events if not wanted or e.data.type in wanted]

    def of(self, kind: str) -> list[Any]:
        """The payloads of one type on the log."""
        return [e.data for e in self.events if e.data.type == kind]


def as_json(event: Event) -> dict[str, Any]:
    """An event's data as plain JSON values, as it stands on the wire."""
    found: dict[str, Any] = msgspec.json.decode(event.raw or wire(event.data))
    return found
