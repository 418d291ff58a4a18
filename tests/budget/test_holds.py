"""T11 to T14: a hold ends exactly once, whatever happens to what it was made for.

T10, the kill matrix, needs processes: ``tests/crash/test_bus_storm.py`` kills every service at
named points and at random; ``tests/budget/test_kills.py`` audits holds after kills of the engine.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from events.policy import Guard, Learning
from projections import budgets
from tests.budget.ground import Rivals, audit_of, often, say
from tests.examples import HOUR, NOON, SECOND, limit, policy
from tests.given import Bus

STEADY = Learning(min_samples=10_000)


def _held(bus: Bus) -> tuple[int, int, int]:
    found = bus.state.scopes["global"]
    return found.held_tokens, found.held_nanos, found.held_tasks


def _used(bus: Bus, window: str = "month") -> int:
    return budgets.used(bus.state, "global", window, bus.now).tokens


def _running(started: bool = True, **more: Any) -> tuple[Bus, str]:
    """A bus with one task that runs."""
    bus = Bus(policy(limit("global", "tokens", "day", 100_000), learning=STEADY))
    bus.join("w1")
    task = bus.submit(max_attempts=1, timeout_s=600, **more)
    bus.run()
    if started:
        bus.report("task.started", task)
        bus.run()
    return bus, task


# -- T11: every way an attempt can end ---------------------------------------------------------


def _confirmed(bus: Bus, task: str) -> None:
    bus.send("task.cancel_requested", task=task)
    bus.run()
    assert _held(bus)[2] == 1  # a request gives nothing back: the worker may still be at it
    bus.report("task.cancelled", task, usage={"input_tokens": 10})
    bus.run()


def _lost(bus: Bus, _task: str) -> None:
    bus.silent.add("w1")
    bus.wait(120)


ENDS: dict[str, Callable[[Bus, str], object]] = {
    "it completes": lambda bus, t: bus.report("task.completed", t, usage={"input_tokens": 700}),
    "it fails": lambda bus, t: bus.report("task.failed", t, error="no", retryable=False),
    "it is cancelled and its worker confirms": _confirmed,
    "its worker is lost": _lost,
    "its worker leaves": lambda bus, _: bus.send("worker.left", worker="w1"),
    "another session takes its worker's name": lambda bus, _: bus.join("w1", take_over=True),
    "its time is over": lambda bus, _: bus.wait(700),
}


@pytest.mark.parametrize("how", sorted(ENDS))
@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
def test_every_end_of_an_attempt_ends_its_hold_once(how: str, started: bool) -> None:
    bus, task = _running(started)
    hold = _held(bus)
    assert hold[0] > 0
    ENDS[how](bus, task)
    bus.run()
    assert _held(bus) == (0, 0, 0)
    audit = audit_of(bus.log)
    assert audit.findings == []
    assert audit.checked["holds settled"] + audit.checked["holds released"] == 1
    if how == "it completes":
        assert _used(bus) == 700
    elif how.startswith("it is cancelled"):
        assert _used(bus) == 10
    elif started or how == "it fails":
        assert _used(bus) == hold[0]  # nobody knows: the rest of the hold
    else:
        assert _used(bus) == 0  # never begun: nothing


# -- T12: settled once -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(often(5, 200)))
def test_of_a_hundred_ends_at_once_one_settles(seed: int) -> None:
    """Ends of all kinds, each with another usage, for two engines at once. One wins; the totals are
    the winner's; the others change nothing."""
    bus = Rivals(policy(limit("global", "tokens", "day", 100_000), learning=STEADY), seed=seed)
    bus.join("w1")
    task = bus.submit(max_attempts=1)
    bus.run()
    kinds = ["task.completed", "task.failed", "task.cancelled"] * 34
    random.Random(seed).shuffle(kinds)
    for n, kind in enumerate(kinds[:100]):
        bus.report(kind, task, usage={"input_tokens": 100 + n}, retryable=False)
    bus.run()
    assert len({state.digest() for state in bus.states}) == 1
    ended = [e for e in bus.events if e.data.type in ENDED and not e.data.stale]
    assert len(ended) == 1
    assert _used(bus) == ended[0].data.charged.tokens == 100
    assert _held(bus) == (0, 0, 0)
    assert audit_of(bus.log).findings == []


ENDED = ("task.completed", "task.failed", "task.cancelled")


def test_a_late_actual_takes_the_place_of_the_estimate_and_the_hold_does_not_come_back() -> None:
    bus, task = _running()
    bus.wait(700)  # over its time: the rest of the hold was charged as estimated
    estimated = _used(bus)
    record = bus.state.outcomes[task]
    for _ in range(3):
        bus.send(
            "task.completed",
            task=task,
            attempt=record.attempt,
            session=record.session,
            usage={"input_tokens": 333},
        )
        bus.run()
    assert estimated > 333
    assert _used(bus) == 333
    assert _held(bus) == (0, 0, 0)
    late = [d for d in bus.of("task.completed") if d.stale]
    assert [d.charged.tokens for d in late] == [333 - estimated]
    assert bus.state.outcomes[task].status == "failed"
    assert audit_of(bus.log).findings == []


# -- T13: overrun ------------------------------------------------------------------------------


def test_three_times_the_hold_is_booked_in_full_and_stops_what_comes_next() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 3_100), learning=STEADY))
    bus.join("w1", capacity=2)
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 3_000})
    bus.run()
    assert _used(bus) == 3_000
    assert _held(bus) == (0, 0, 0)
    learnt = bus.state.learnt["debugging|sonnet"]
    assert (learnt.overruns, learnt.error_tokens) == (1, 2_000)  # published: forecast, `asb task`
    following = bus.submit(estimate_tokens=100)
    bus.run()
    assert bus.state.tasks[following].status == "queued"
    assert audit_of(bus.log).findings == []


@pytest.mark.parametrize("action", ["warn", "pause", "cancel"])
def test_the_guard_extends_step_by_step_and_then_stops_the_runaway(action: str) -> None:
    """The bound: an attempt goes beyond its budget by what it uses between two reports, and until
    it obeys. Here it tells every 200 tokens and obeys at once."""
    bus = Bus(
        policy(limit("global", "tokens", "day", 3_000), learning=STEADY, guard=Guard(50, action))
    )
    bus.join("w1", capacity=2)
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    bus.report("task.started", task)
    reported = 0
    for reported in itertools.count(200, 200):
        bus.report("usage.recorded", task, agent="codex", input_tokens=reported)
        bus.run()
        if bus.of("hold.refused"):
            break
    refused = bus.of("hold.refused")
    assert [(d.task, d.worker, d.action) for d in refused] == [(task, "w1", action)]
    assert bool(bus.of("task.cancel_requested")) == (action == "cancel")
    gate = budgets.gate(1, 3_000)
    assert _used(bus) == reported
    assert reported <= gate + 200
    extended = bus.of("hold.extended")
    assert len(extended) >= 2
    audit = audit_of(bus.log)
    assert audit.findings == []
    assert audit.checked["extensions"] == len(extended)
    bus.report("usage.recorded", task, agent="codex", input_tokens=reported + 200)
    bus.run()
    assert len(bus.of("hold.refused")) == 1  # said once


def _refused(window: str = "hour", action: str = "pause") -> tuple[Bus, str]:
    """A bus on which one task used more than it holds and is refused more."""
    bus = Bus(
        policy(limit("global", "tokens", window, 3_000), learning=STEADY, guard=Guard(50, action))
    )
    bus.join("w1", capacity=2)
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    bus.report("task.started", task)
    bus.report("usage.recorded", task, agent="codex", input_tokens=2_900)
    bus.run()
    assert len(bus.of("hold.refused")) == 1
    return bus, task


def test_a_refused_attempt_gets_more_when_its_window_is_over_and_may_be_refused_again() -> None:
    """A refusal is not for ever, and is said once until something changes."""
    bus, task = _refused()
    record = bus.state.tasks[task]
    assert (record.hold_refused, record.hold_word) == ("pause", _places(bus, "hold.refused")[0])
    bus.wait(10)
    assert len(bus.of("hold.refused")) == 1
    assert bus.of("hold.extended") == []
    bus.wait(3_600)  # nothing but time has passed: the engine looks by itself
    assert len(bus.of("hold.extended")) == 1
    record = bus.state.tasks[task]
    assert (record.hold_refused, record.hold_word) == ("", _places(bus, "hold.extended")[0])
    bus.report("usage.recorded", task, agent="codex", input_tokens=2_900 + 2_900)
    bus.run()
    assert len(bus.of("hold.refused")) == 2
    assert audit_of(bus.log).findings == []


def test_a_raised_limit_lets_a_refused_attempt_go_on() -> None:
    bus, _ = _refused("day")
    raised = {"scope": "global", "unit": "tokens", "window": "day", "amount": 9_000}
    bus.send("policy.changed", set_limits=[raised])
    bus.run()
    assert len(bus.of("hold.extended")) == 1


def test_a_refused_attempt_that_is_being_cancelled_gets_no_more() -> None:
    bus, _ = _refused(action="cancel")
    bus.wait(3_600)
    assert bus.of("hold.extended") == []


def test_refused_attempts_beyond_what_a_turn_tries_all_get_their_turn() -> None:
    bus = Bus(policy(limit("project:p", "tokens", "hour", 1_000), learning=STEADY))
    bus.join("w1", capacity=250)
    tasks = [bus.submit(project="p", estimate_tokens=1) for _ in range(250)]
    bus.run()
    for task in tasks:
        bus.report("usage.recorded", task, agent="codex", input_tokens=5)
    bus.run()
    assert len(bus.of("hold.refused")) == len(bus.state.indexes.wanting_more()) > 100
    bus.wait(3_600)
    bus.wait(3)
    assert bus.state.indexes.wanting_more() == []
    assert audit_of(bus.log).findings == []


def _places(bus: Bus, kind: str) -> list[str]:
    return [event.log_id for event in bus.events if event.data.type == kind]


# -- T14: a hold across a boundary -------------------------------------------------------------


def test_usage_counts_in_the_hour_it_is_told_in_and_the_hold_in_the_present_one() -> None:
    bus = Bus(
        policy(limit("global", "tokens", "hour", 100_000), learning=STEADY), at=NOON - 10 * SECOND
    )
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_000)
    bus.run()

    def standing() -> tuple[int, int]:
        row = budgets.window_rows(bus.state, bus.now)[0]
        return row["used"], row["held"]

    assert standing() == (0, 1_000)
    bus.now = NOON - 1_000  # 11:59:59.999
    bus.report("usage.recorded", task, agent="codex", input_tokens=300)
    bus.run()
    assert standing() == (300, 700)
    bus.now = NOON  # a boundary belongs to the later hour
    assert standing() == (0, 700)
    bus.report("usage.recorded", task, agent="codex", input_tokens=500)
    bus.run()
    assert standing() == (200, 500)
    bus.now = NOON + 20 * 60 * SECOND
    bus.report("task.completed", task, usage={"input_tokens": 600})
    bus.run()
    assert standing() == (300, 0)
    hours = bus.state.scopes["global"].hours
    assert {h: b.tokens for h, b in hours.items()} == {NOON // HOUR - 1: 300, NOON // HOUR: 300}
    assert audit_of(bus.log).findings == []


def test_many_engines_and_many_days_keep_every_hold_in_order() -> None:
    """T4 and T12 with rivals: random work, three engines, one log; the audit finds nothing."""
    conflicts = 0
    for seed in range(often(3, 300)):
        bus = Rivals(policy(limit("global", "tokens", "hour", 6_000)), engines=3, seed=seed)
        chance = random.Random(seed)
        for worker in ("w1", "w2"):
            bus.join(worker, capacity=3)
        for _ in range(30):
            for _ in range(chance.randrange(4)):
                bus.submit(priority=chance.choice(["low", "normal", "high", "critical"]))
            running = [t for t in bus.state.tasks.values() if t.session]
            if running:
                one = chance.choice(running)
                kind = chance.choice(["task.started", "task.completed", "task.failed"])
                bus.report(kind, one.id, usage={"input_tokens": chance.randrange(3_000)})
            bus.wait(chance.choice([0, 1, 60, 1_800]))
        conflicts += bus.conflicts
        assert len({state.digest() for state in bus.states}) == 1, f"seed {seed}"
        assert audit_of(bus.log).findings == [], f"seed {seed}"
    say(f"rivals: {conflicts:,} conflicts")
    assert conflicts > 0
