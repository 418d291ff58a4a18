"""Why a task waits, in words: the nearest way out, and what stands before it."""

from __future__ import annotations

from events.policy import Limit, PolicyChanged
from projections import budgets
from projections.format import refusal_text
from projections.queues import queue_key
from services.queries.waiting import Waiting
from tests.examples import NOON
from tests.unit.test_screens import Bench


def reason(bench: Bench, task: str) -> str:
    return Waiting(bench.state, bench.now).reason(bench.state.tasks[task])


def test_nobody_is_there_or_nobody_is_free() -> None:
    bench = Bench()
    bench.queue("t1")
    assert reason(bench, "t1") == "no live worker; number 1 in the queue"
    bench.join("w1")
    bench.join("w2")
    assert reason(bench, "t1") == "number 1 in the queue"
    bench.state.workers["w1"].running["x"] = 1
    bench.state.workers["w2"].running["y"] = 1
    assert reason(bench, "t1") == "w1, w2 are busy; number 1 in the queue"
    for name in ("w1", "w2"):
        bench.state.workers[name].paused = True
    assert reason(bench, "t1").startswith("no live worker (w1, w2 are paused)")


def test_who_is_not_first_names_who_is_and_what_that_waits_for() -> None:
    bench = Bench()
    bench.join("w1")
    bench.queue("big5", estimate=1000)
    bench.queue("t2", estimate=1000)
    assert queue_key(bench.state.tasks["big5"]) == queue_key(bench.state.tasks["t2"])
    assert reason(bench, "t2") == "number 2 in the queue, behind big5"
    bench.state.workers["w1"].running["x"] = 1
    assert reason(bench, "t2") == (
        "number 2 in the queue, behind big5, which waits for: w1 is busy"
    )


def test_one_limit_says_what_is_needed_what_is_left_and_when_it_resets() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 94_500)
    bench.queue("t1", estimate=1000)
    assert reason(bench, "t1").startswith(
        "needs 1,000, 499 left below the normal gate (95 % of 100K) of tokens/hour for worker w1; "
        "resets in 59 min"
    )


def test_what_never_fits_says_so_before_any_worker_is_there() -> None:
    bench = Bench()
    bench.queue("big", estimate=600_000)
    bench.state.tasks["big"].given_estimate = 600_000  # a guess is bounded, and would fit
    assert reason(bench, "big") == (
        "never fits: needs 600,000, more than the normal gate (95 % of 500K) of tokens/hour "
        "overall ever admits"
    )


def test_every_worker_that_serves_it_is_told_alike_ones_together() -> None:
    bench = Bench()
    for name in ("py", "py2", "w1", "w2", "w3"):
        bench.join(name)
    for name in ("py", "py2"):
        bench.state.workers[name].running["x"] = 1
    for name in ("w1", "w2", "w3"):
        bench.spend(name, 95_000)
    bench.queue("t1", estimate=1000)
    assert reason(bench, "t1") == (
        "py, py2 are busy; w1, w2, w3 have no tokens left until 13:00 UTC (tokens/hour); "
        "number 1 in the queue"
    )


def test_the_limit_that_resets_first_stands_in_front() -> None:
    bench = Bench()
    limits = (
        Limit("worker:w1", "tokens", "day", 10_000),
        Limit("worker:w2", "tokens", "hour", 10_000),
    )
    bench.fold(PolicyChanged(limits=limits))
    for name in ("w1", "w2"):
        bench.join(name)
        bench.spend(name, 9_000)
    bench.queue("t1", estimate=1000)
    assert reason(bench, "t1") == (
        "w2 has too few tokens left until 13:00 UTC (tokens/hour); "
        "w1 has too few tokens left until 00:00 UTC (tokens/day)"
    )


def test_a_limit_of_nothing_is_called_so() -> None:
    refusal = budgets.Refusal("project:web", "tokens", "hour", 0, 0, 0)
    assert refusal_text(refusal, 1, 0, NOON) == (
        "never fits: tokens/hour of project web admits nothing, its limit is 0"
    )


def test_a_refusal_of_money_is_in_dollars() -> None:
    refusal = budgets.Refusal("global", "money", "day", 50_000_000_000, 1_230_000_000, NOON + 1)
    assert refusal_text(refusal, 1, 2_000_000_000, NOON) == (
        "needs $2.0000, $0.7700 left below the normal gate (95 % of $50.00) of money/day overall; "
        "resets in 0 ms"
    )
