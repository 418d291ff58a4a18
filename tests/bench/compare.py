"""Another checkout beside this one: short waves in turn on two buses of one server, paired.

On a shared machine a median of three moves by a fifth; the ratio within a pair does not.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.ground import ROOT, Bus, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread, cpu_text, wave

PAIRS = 8
A_WAVE = 2_000


def compare(ground: Ground, plan: Plan, base: Path) -> list[Figure]:
    """End to end, and the engine's CPU a task, against the checkout at ``base``."""
    count, ground_keys = plan.tasks or A_WAVE, ground.keys()
    buses = [
        Bus(ground, keys=ground_keys, root=base),
        Bus(ground, keys=ground.more_keys(), root=ROOT),
    ]
    for bus in buses:
        wave(bus, count // 2)
    rates, costs = list[float](), list[float]()
    mine, told = list[float](), list[dict[str, float]]()
    for pair in range(PAIRS):
        order = buses if pair % 2 else buses[::-1]
        taken = {bus: wave(bus, count) for bus in order}
        (before, cost_before), (after, cost_after) = taken[buses[0]], taken[buses[1]]
        rates.append(after / before)
        costs.append(cost_after["engine"] / cost_before["engine"])
        mine.append(after)
        told.append(cost_after)
    for bus in buses:
        bus.stop()
    notes = f"{PAIRS} pairs of {count:,}; {Spread.of(mine).median:,.0f} tasks/s; {cpu_text(told)}"
    return [
        Figure("e2e, against base", "×", Spread.of(rates), 1, "≥ 1", True, notes=notes,
               load=load_now()),
        Figure("engine CPU a task, against base", "×", Spread.of(costs), 1, "≤ 1", False,
               load=load_now()),
    ]  # fmt: skip
