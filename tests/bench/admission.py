"""Admission in memory: 7 limits, 100 workers, half of what is asked for admitted and released."""

from __future__ import annotations

import time

from events.policy import Limit, PolicyChanged
from projections import buckets, budgets, scopes
from projections.state import State
from tests.bench.ground import Ground, load_now
from tests.bench.measures import Figure, Plan, Spread

DECISIONS = 50_000
WORKERS = 100
ASK = (1_500, 3_000_000, 1)  # tokens, nanos, a task
AMPLE = 10**15
KINDS = ("global", "worker", "agent", "model")
LIMITS = (
    *(Limit(scope, "tokens", "day", AMPLE) for scope in KINDS),
    Limit("global", "money", "month", AMPLE),
    Limit("worker", "tasks", "hour", AMPLE),
    Limit("worker", "tokens", "hour", 2_000),  # one at a time: every second is refused
)


def admission(_ground: Ground, plan: Plan) -> list[Figure]:
    """Decisions a second; each looks at every limit it touches, none is remembered."""
    taken = [_rate() for _ in range(plan.repeats)]
    notes = f"{WORKERS} workers, {len(LIMITS)} limits, half admitted, held and released"
    return [
        Figure("admission in memory", "decisions/s", Spread.of(taken), 100_000, "≥ 100,000", True,
               notes=notes, load=load_now())
    ]  # fmt: skip


def _rate() -> float:
    state, now = State(), time.time_ns() // 1000
    state.set_policy(PolicyChanged(limits=LIMITS))
    keys = [scopes.scope_keys(f"w{n}", "codex", "sonnet", "") for n in range(WORKERS)]
    admitted, began = 0, time.process_time()
    for n in range(DECISIONS // 2):
        key = keys[n % WORKERS]
        for _ in range(2):  # the second while the first is held
            if budgets.refusal(state, key, 1, ASK, now) is None:
                admitted += 1
                buckets.hold(state, key, *ASK)
        buckets.hold(state, key, -ASK[0], -ASK[1], -ASK[2])
    elapsed = time.process_time() - began
    assert admitted == DECISIONS // 2, admitted
    return DECISIONS / elapsed
