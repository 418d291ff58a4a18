"""Admission through a bus: what waits is refused again in every turn, what may run is dispatched.

The engine's process is ``python -m tests.bench.bus_admission engine URL NAMESPACE``: that of
``children``, which counts what it decides.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from projections import budgets
from services.runtime import loop
from services.runtime.settings import Settings
from services.runtime.settings_types import LimitSetting
from tests.bench import children, reference
from tests.bench.ground import Bus, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread
from tests.bench.titles import titles

PROJECTS, WAITING = 100, 2  # so many have used up their budget, and so many tasks of each wait
BUDGET, LEFT = 100_000, 10  # tokens a project has this month, and what is left of them
TASKS, SPACING_S = 500, 0.006  # one at a time, while all of these wait
SLOT_S = 0.05
RATE, DECISION_US = 20_000, 5_000
_encode = msgspec.json.Encoder().encode


def bus_admission(ground: Ground, plan: Plan) -> list[Figure]:
    """Decisions a second of an engine that is not full, and how long a submission waits for its
    own: until its task begins in the worker, which is later still."""
    takes = [_take(ground) for _ in range(plan.repeats)]
    rate, p50, p99, share = (Spread.of(values) for values in zip(*takes, strict=True))
    notes = (
        f"{PROJECTS} projects without budget in which tasks wait, "
        f"{1 / SPACING_S:,.0f} submissions a second beside them; p50 {p50.median:,.0f} µs; "
        f"the engine takes {share.median:.0f} % of a core"
    )
    return [
        Figure("admission in a bus", "decisions/s", rate, RATE, "≥ 20,000", True, notes=notes,
               load=load_now()),
        Figure("admission in a bus, p99", "µs", p99, DECISION_US, "≤ 5,000 µs", False,
               load=load_now()),
    ]  # fmt: skip


def _take(ground: Ground) -> tuple[float, float, float, float]:
    """Decisions a second; p50 and p99 of what is dispatched, µs; percent of a core."""
    bus = Bus(ground, engine="tests.bench.bus_admission")
    before = bus.length
    texts = titles(PROJECTS * WAITING + TASKS)
    for number in range(PROJECTS):
        project = f"p{number}"
        used = {"agent": "codex", "input_tokens": BUDGET - LEFT, "project": project}
        _send(bus, "usage.recorded", used)
        for _ in range(WAITING):
            _send(bus, "task.submitted", {"text": texts.pop(), "project": project})
    reported, routed = PROJECTS, 2 * PROJECTS * WAITING
    while bus.length < before + reported + routed:
        time.sleep(0.01)
    time.sleep(1.0)
    waiting, sent, cpu = bus.added, dict[str, int](), bus.engine.cpu
    began = time.monotonic()
    for text in texts:
        now = time.monotonic_ns()
        sent[_send(bus, "task.submitted", {"text": text})] = now
        time.sleep(SPACING_S)
    ended, cpu = time.monotonic(), bus.engine.cpu - cpu
    bus.done(waiting, len(sent))
    begun: dict[str, int] = dict(msgspec.json.decode(bus.worker.stop().splitlines()[-1]))
    counts: dict[int, int] = msgspec.json.decode(bus.engine.stop(), type=dict[int, int])
    inside = range(int(began / SLOT_S) + 1, int(ended / SLOT_S))
    decisions = sum(counts.get(slot, 0) for slot in inside)
    assert begun.keys() == sent.keys(), "nothing else may run"
    taken = [(begun[task] - at) / 1000 for task, at in sent.items()]
    rate = decisions / (len(inside) * SLOT_S)
    p50, p99 = (reference.percentile(taken, percent) for percent in (50, 99))
    return rate, p50, p99, 100 * cpu / (ended - began)


def _send(bus: Bus, kind: str, data: dict[str, Any]) -> str:
    entry = ("XADD", bus.keys.main_intake, "*", "type", kind, "data", _encode(data))
    return bus.client.call(*entry).decode()


# -- the engine --------------------------------------------------------------------------------


def _with_budgets(namespace: str, usual: Callable[[str], Settings]) -> Settings:
    """What is usual, and a budget for every project."""
    settings = usual(namespace)
    budget = LimitSetting(scope="project", unit="tokens", window="month", amount=Decimal(BUDGET))
    limits = (*settings.policy.limits, budget)
    policy = msgspec.structs.replace(settings.policy, limits=limits)
    return msgspec.structs.replace(settings, policy=policy)


def main(url: str, namespace: str) -> None:
    """Run the engine; at its end say how much it decided in which slot of the monotonic clock."""
    decided: Counter[int] = Counter()
    real, usual = budgets.refusal, children.settings

    def refusal(*args: Any, **kwargs: Any) -> budgets.Refusal | None:
        decided[int(time.monotonic() / SLOT_S)] += 1
        return real(*args, **kwargs)

    budgets.refusal = refusal
    children.settings = lambda namespace: _with_budgets(namespace, usual)
    loop.run(children.run_engine, url, namespace)
    sys.stdout.buffer.write(_encode(dict(decided)) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[2:4])
