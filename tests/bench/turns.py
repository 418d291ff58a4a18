"""The engine in memory: what a task costs it, hot, without Redis and without a loop.

All deciders and all folds; distinct titles, the default kinds of limits on and not binding. CPU
time, so that a machine at work disturbs it little.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque

import msgspec

from events.keys import Keys
from projections.state import State
from services import assembly
from services.decider import Inputs, IntakeEntry, Known
from services.engine.turn import run_turn
from services.runtime import initial_policy
from services.store.prompts import Texts
from tests.bench.children import settings
from tests.bench.ground import Ground, load_now
from tests.bench.measures import Figure, Plan, Spread, quiet_gc
from tests.bench.titles import titles

A_TURN = 128
AIM_US = 300.0
PAUSES_S, LONE_TURNS = (0.0, 0.002, 0.02), 100
_encode = msgspec.json.Encoder().encode


class Engine:
    """An engine and its worker of endless capacity, whose log is nowhere."""

    def __init__(self, capacity: int = 500) -> None:
        found = settings("bench")
        self.keys = Keys("bench")
        self.state, self.now, self._n = State(), time.time_ns() // 1000, 0
        self._deciders = assembly.deciders(assembly.DECIDERS, found)
        self.inputs = Inputs(
            defaults=initial_policy.defaults(found),
            main_intake=self.keys.main_intake,
            initial_policy=initial_policy.policy(found),
            log_name="bench",
            secret=b"5" * 64,
            found_us=1,
        )
        self.texts = Texts()
        self.inputs.texts = self.texts
        self.waiting: deque[IntakeEntry] = deque()
        self.done = 0
        self.entry("worker.joined", {"worker": "w1", "agent": "claude", "capacity": capacity})

    def entry(self, kind: str, data: dict[str, object]) -> None:
        self._n += 1
        fields = [b"type", kind.encode(), b"data", _encode(data)]
        place = f"{self.now // 1000}-{self._n}"
        self.waiting.append(IntakeEntry(self.keys.main_intake, place, fields))

    def turn(self) -> None:
        """One turn; what it dispatched is completed at once."""
        self.now += 1000
        self.inputs.latest = self.now
        entries = [self.waiting[i] for i in range(min(A_TURN, len(self.waiting)))]
        self.inputs.entries, self.inputs.known = entries, Known()
        self.state.begin()
        turn = run_turn(self.state, self.now, self._deciders, self.inputs)
        self.state.commit()
        self.state.dirty_scopes.clear()
        for _ in range(turn.consumed):
            self.waiting.popleft()
        assert not turn.refused, turn.refused
        for event in turn.events:
            if event.data.type == "task.dispatched":
                p = event.data
                told = {"v": 1, "task": p.task, "attempt": p.attempt, "session": p.session}
                self.entry("task.completed", {**told, "worker": p.worker, "duration_ms": 0})
                self.texts.forget(p.task)
            elif event.data.type == "task.completed":
                self.done += 1

    def lone(self, text: str, pause: float) -> float:
        """Seconds of the turn that takes in one task, ``pause`` after the last one."""
        self.entry("task.submitted", {"text": text})
        if pause:
            time.sleep(pause)
        began = time.perf_counter()
        self.turn()
        took = time.perf_counter() - began
        while self.waiting:
            self.turn()
        return took


def cost(count: int) -> float:
    """CPU µs a task."""
    engine = Engine()
    for text in titles(count):
        engine.entry("task.submitted", {"text": text})
    with quiet_gc():
        began = time.process_time()
        while engine.done < count:
            engine.turn()
        return (time.process_time() - began) / count * 1e6


def turns(_ground: Ground, plan: Plan) -> list[Figure]:
    """What ``cost`` says, again and again; and what one task's turn takes, alone."""
    count = plan.tasks or 2_500
    cost(count // 5)  # words are looked up once
    taken = [cost(count) for _ in range(plan.repeats)]
    aim = f"≤ {AIM_US:g} µs"
    figure = Figure("turns", "µs a task", Spread.of(taken), AIM_US, aim, False, load=load_now())
    return [figure, *(_lone(plan.repeats, pause) for pause in PAUSES_S)]


def _lone(repeats: int, pause: float) -> Figure:
    """Nothing else runs: what the pause costs are the caches, and the time to wake up."""
    engine, texts = Engine(), iter(titles((repeats + 1) * LONE_TURNS))
    engine.turn()

    def typical(pause: float) -> float:
        turns = [engine.lone(next(texts), pause) for _ in range(LONE_TURNS)]
        return statistics.median(turns) * 1e6

    with quiet_gc():
        typical(0.0)  # words are looked up once
        taken = Spread.of([typical(pause) for _ in range(repeats)])
    name = f"a lone turn, {pause * 1000:g} ms after the last"
    return Figure(name, "µs", taken, math.inf, "printed", False, load=load_now())
