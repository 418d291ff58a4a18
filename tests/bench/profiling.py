"""Where an engine's time goes: one end-to-end run with the engine under cProfile.

The profiler slows the engine down by about half; shares are right, rates are not.
"""

from __future__ import annotations

import pstats
import tempfile
from pathlib import Path

from tests.bench.ground import Bus, Ground
from tests.bench.measures import Plan, cpu_text, wave

TOP = 40


def profile(ground: Ground, plan: Plan) -> None:
    """Print the CPU each process takes per task, then the engine's functions by their own time."""
    count = plan.tasks or 10_000
    bus = Bus(ground)
    rate, cost = wave(bus, count)
    bus.stop()
    print(f"{count:,} tasks, not profiled: {rate:,.0f} tasks/s; CPU µs a task: {cpu_text([cost])}")
    with tempfile.TemporaryDirectory(prefix="asb-bench-") as folder:
        file = Path(folder) / "engine.pstats"
        bus = Bus(ground, str(file))
        rate, cost = wave(bus, count)
        bus.stop()
        print(f"under the profiler: {rate:,.0f} tasks/s; CPU µs a task: {cpu_text([cost])}")
        stats = pstats.Stats(str(file))
    stats.strip_dirs().sort_stats("tottime").print_stats(TOP)
