"""Another checkout beside this one: short waves in turn on two buses of one server, paired."""

from __future__ import annotations

from pathlib import Path

from tests.bench.ground import ROOT, Bus, Ground, load_now
from tests.bench.measures import A_WAVE, PAIRS, Figure, Plan, Spread, cpu_text, paired, wave


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
    for (before, cost_before), (after, cost_after) in paired(buses, count):
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
