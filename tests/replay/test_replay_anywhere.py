"""The same log gives the same bytes under any hash seed, time zone and locale (T16, T26)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import DAY, limit, policy
from tests.given import Bus, replayed

ROOT = Path(__file__).resolve().parents[2]
FOLD = """
import base64, json, sys
from tests.given import replayed
log = [
    [place.encode(), [base64.b64decode(part) for part in fields]]
    for place, fields in json.load(sys.stdin)
]
print(replayed(log).digest())
"""


def eventful_bus() -> Bus:
    """Some days of everything: several workers, failures, losses, limits, a policy change."""
    bus = Bus(policy(limit("global", "tokens", "5h", 12_000), timezone="Europe/Berlin"))
    for number in range(120):
        worker = f"w{number % 3}"
        if number % 30 == 0:
            bus.join(worker, capacity=3, take_over=True)
        task = bus.submit(f"Fix bug {number} in the parser", project=f"p{number % 4}")
        bus.run()
        for running in [t for t in bus.state.tasks.values() if t.worker][:2]:
            bus.report("task.started", running.id)
            kind = "task.failed" if number % 5 == 0 else "task.completed"
            bus.report(kind, running.id, usage={"input_tokens": 700 + number})
        if number % 7 == 0:
            bus.send("task.cancel_requested", task=task)
        if number == 60:
            bus.send("policy.changed", cache_read_weight_percent=10, timezone="Asia/Kathmandu")
            bus.silent.add("w1")
        bus.wait(1_800)
    assert bus.now - bus.events[0].at > 2 * DAY
    return bus


@pytest.fixture(scope="module")
def bus() -> Bus:
    return eventful_bus()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati"},
        {"PYTHONHASHSEED": "4711", "TZ": "America/New_York", "LC_ALL": "C"},
    ],
    ids=lambda e: e["TZ"],
)
def test_another_machine_folds_the_same_bytes(bus: Bus, environment: dict[str, str]) -> None:
    log = [
        (place.decode(), [base64.b64encode(part).decode() for part in fields])
        for place, fields in bus.log
    ]
    found = subprocess.run(
        [sys.executable, "-c", FOLD],
        input=json.dumps(log),
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == bus.state.digest()


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_batches_of_any_size_give_the_same_bytes(bus: Bus, size: int) -> None:
    state = None
    for start in range(0, len(bus.log), size):
        state = replayed(bus.log[start : start + size], state)
    assert state is not None
    assert state.encode() == bus.state.encode()


def test_the_day_of_the_engine_was_not_empty(bus: Bus) -> None:
    types = set(bus.types())
    assert types >= {
        *("task.dispatched", "task.completed", "task.failed", "task.requeued", "task.cancelled"),
        *("worker.lost", "alert.raised", "policy.changed"),
    }
