"""The life of a task: what each fact makes of it, and what stale facts must not make of it."""

from __future__ import annotations

from copy import copy
from typing import Any

import pytest

from projections.records import COMPLETED, Outcome, TaskRecord
from projections.tasks import close
from tests import examples
from tests.examples import HOUR, NOON, SECOND
from tests.given import Bus, Given, given


def started_task() -> Given:
    return given(
        examples.joined(),
        examples.submitted(),
        examples.delegated(),
        examples.dispatched(),
        examples.started(),
    )


def task_of(case: Given) -> TaskRecord:
    return case.state.tasks["t1"]


def test_each_fact_moves_the_task_on() -> None:
    case = given(examples.joined())
    path: list[str] = []
    for fact in (
        examples.submitted(project="shop", priority="high", estimate_tokens=77),
        examples.delegated(),
        examples.dispatched(),
        examples.started(),
    ):
        case.given(fact)
        path.append(task_of(case).status)
    assert path == ["submitted", "queued", "dispatched", "started"]
    task = task_of(case)
    assert (task.project, task.priority, task.given_estimate) == ("shop", 2, 77)
    assert (task.worker, task.session, task.attempt) == ("w1", "5-0", 1)
    assert case.state.workers["w1"].running == {"t1": 1}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (examples.completed(), "completed"),
        (examples.failed(), "failed"),
        (examples.cancelled(), "cancelled"),
    ],
    ids=lambda x: str(getattr(x, "type", x)),
)
def test_an_end_leaves_an_outcome_and_a_free_worker(end: examples.Payload, status: str) -> None:
    case = started_task().given(end)
    outcome = case.state.outcomes["t1"]
    assert case.state.tasks == {}
    assert (outcome.status, outcome.tokens, outcome.nanos) == (status, 600, 5_400_000)
    assert case.state.workers["w1"].running == {}
    assert case.state.workers["w1"].free == 1
    assert case.state.meta.ended == 1


def test_a_failure_with_a_retry_waits_for_its_time() -> None:
    case = started_task().given(examples.failed(retry_at=NOON + 9 * SECOND))
    task = task_of(case)
    assert (task.status, task.due, task.attempt, task.worker) == (
        "backoff",
        NOON + 9 * SECOND,
        1,
        "",
    )
    assert task.failed_id == case.state.meta.log_id
    case.given(examples.requeued(session="", charged=None))
    assert task_of(case).status == "queued"


@pytest.mark.parametrize(
    "fact",
    [
        examples.completed(attempt=2, charged=None),
        examples.completed(session="9-9", charged=None),
        examples.completed(stale=True, charged=None),
        examples.failed(attempt=7, charged=None),
        examples.started(attempt=2),
        examples.completed("t2", charged=None),
        examples.dispatched("t2"),
        examples.dispatched(worker="nobody"),
        examples.delegated(model="opus"),
        examples.usage_recorded("", charged=examples.charge(0, 0, tasks=0)),
    ],
    ids=lambda x: x.type,
)
def test_a_fact_about_another_attempt_changes_nothing(fact: examples.Payload) -> None:
    case = started_task()
    before = copy(task_of(case))
    case.given(fact)
    assert task_of(case) == before
    assert case.state.workers["w1"].running == {"t1": 1}


def test_a_stale_completion_books_its_use_and_changes_nothing_else() -> None:
    case = started_task()
    case.given(examples.requeued(), examples.dispatched(attempt=2), examples.started(attempt=2))
    held = case.state.scopes["global"].held_tokens
    case.given(examples.completed(stale=True, charged=examples.charge(50, 50, tasks=0)))
    assert (task_of(case).status, task_of(case).attempt) == ("started", 2)
    assert case.state.scopes["global"].held_tokens == held == 1_000
    assert sum(c.tokens for c in case.state.lifetime.values()) == 650


def test_what_a_task_spent_is_the_sum_of_its_attempts() -> None:
    case = started_task()
    case.given(examples.requeued(), examples.dispatched(attempt=2))
    case.given(examples.completed(attempt=2, charged=examples.charge(10, 10)))
    assert case.state.outcomes["t1"].tokens == 610


def test_a_task_waits_for_all_it_named() -> None:
    case = given(examples.submitted("a"), examples.submitted("b"))
    case.given(examples.submitted(after=("a", "b", "a")), examples.delegated())
    assert task_of(case).status == "blocked"
    case.given(examples.completed("a", attempt=0, session="", charged=None))
    assert task_of(case).after == ("b",)
    case.given(examples.completed("b", attempt=0, session="", charged=None))
    assert (task_of(case).status, task_of(case).after) == ("queued", ())


def test_what_ended_well_before_is_not_waited_for() -> None:
    case = given(examples.submitted("a"))
    case.given(examples.completed("a", attempt=0, session="", charged=None))
    case.given(examples.submitted(after=("a",)), examples.delegated())
    assert task_of(case).status == "queued"


@pytest.mark.parametrize("already", [True, False])
def test_what_waits_for_a_failure_is_doomed(already: bool) -> None:
    case = given(examples.submitted("a"))
    facts = (examples.submitted(after=("a",)), examples.delegated())
    end = examples.failed("a", attempt=0, session="", charged=None)
    case.given(*((end, *facts) if already else (*facts, end)))
    assert task_of(case).never_fits == "it waits for a, which failed"
    assert case.state.indexes.next_orphan() is task_of(case)


def test_only_so_many_outcomes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.outcomes.OUTCOMES_BLOCK", 1)
    monkeypatch.setattr("projections.outcomes.BLOCKS_KEPT", 2)
    case = given()
    for n in range(6):
        case.given(
            examples.submitted(f"t{n}"),
            examples.cancelled(f"t{n}", attempt=0, session="", charged=None),
        )
    assert sorted(case.state.outcomes) == ["t3", "t4", "t5"]
    assert [task for task, _ in case.state.outcomes.newest()] == ["t5", "t4", "t3"]


# -- the same through the whole engine ---------------------------------------------------------


def bus_with_task(**data: Any) -> tuple[Bus, str]:
    bus = Bus()
    bus.join(capacity=2)
    task = bus.submit(**data)
    bus.run()
    return bus, task


def test_retries_wait_longer_each_time_and_end_at_the_last_attempt() -> None:
    bus, task = bus_with_task(max_attempts=4)
    waits: list[int] = []
    for attempt in range(1, 5):
        assert bus.state.tasks[task].attempt == attempt
        bus.report("task.failed", task, error="no luck", usage={"total_tokens": 10})
        bus.run()
        if attempt < 4:
            waits.append((bus.state.tasks[task].due - bus.now) // SECOND)
            bus.wait(waits[-1] - 0.001)
            assert bus.state.tasks[task].status == "backoff"
            bus.wait(0.001)
    assert waits == [5, 10, 20]
    assert bus.state.outcomes[task].status == "failed"
    assert bus.state.outcomes[task].tokens == 40


def test_a_backoff_is_bounded() -> None:
    bus, task = bus_with_task(max_attempts=20)
    last = 0
    for _ in range(12):
        bus.report("task.failed", task, error="no luck")
        bus.run()
        last = (bus.state.tasks[task].due - bus.now) // SECOND
        bus.wait(last)
    assert last == 300


def test_what_cannot_be_retried_is_not() -> None:
    bus, task = bus_with_task()
    bus.report("task.failed", task, error="bad prompt", retryable=False)
    bus.run()
    assert bus.state.outcomes[task].status == "failed"


def test_a_task_cancelled_before_it_runs_is_over_at_once() -> None:
    bus = Bus()
    task = bus.submit()
    bus.run()
    bus.send("task.cancel_requested", task=task)
    bus.run()
    assert bus.state.outcomes[task].status == "cancelled"
    bus.join()
    bus.run()
    assert bus.of("task.dispatched") == []


def test_cancelling_a_running_task_is_a_request_and_keeps_its_hold() -> None:
    bus, task = bus_with_task()
    bus.report("task.started", task)
    bus.send("task.cancel_requested", task=task)
    bus.send("task.cancel_requested", task=task)
    bus.run()
    assert len(bus.of("task.cancel_requested")) == 1
    assert bus.state.scopes["global"].held_tasks == 1
    bus.report("task.cancelled", task, usage={"total_tokens": 30})
    bus.run()
    assert bus.state.outcomes[task].status == "cancelled"
    assert bus.state.scopes["global"].held_tasks == 0
    assert bus.state.outcomes[task].tokens == 30


def test_a_cancelled_task_that_completes_first_is_completed() -> None:
    bus, task = bus_with_task()
    bus.send("task.cancel_requested", task=task)
    bus.run()
    bus.report("task.completed", task)
    bus.run()
    assert bus.state.outcomes[task].status == "completed"


def test_a_cancelled_task_that_fails_is_not_tried_again() -> None:
    bus, task = bus_with_task()
    bus.send("task.cancel_requested", task=task)
    bus.run()
    bus.report("task.failed", task, error="killed")
    bus.run()
    assert bus.state.outcomes[task].status == "cancelled"


def test_a_task_without_a_word_is_over_a_minute_after_its_time() -> None:
    bus, task = bus_with_task(timeout_s=100, max_attempts=1)
    bus.report("task.started", task)
    bus.run()
    bus.wait(159)
    assert task in bus.state.tasks
    bus.wait(1)
    assert bus.state.outcomes[task].status == "failed"
    end = bus.of("task.failed")[0]
    assert end.charged.estimated
    assert bus.texts("task.failed", "error") == ["no result within 100 s"]


def test_a_word_of_another_session_about_this_attempt_is_not_heard() -> None:
    bus, task = bus_with_task()
    bus.report("task.completed", task, session="1-1", usage={"total_tokens": 5})
    bus.run()
    assert bus.of("task.completed") == []
    assert bus.state.tasks[task].status == "dispatched"


def test_what_waits_for_a_task_that_timed_out_fails_with_it() -> None:
    bus, task = bus_with_task(timeout_s=100, max_attempts=1)
    waiting = bus.submit(after=[task])
    bus.wait(160)
    assert bus.state.outcomes[waiting].status == "failed"
    assert [d.task for d in bus.of("task.dispatched")] == [task]


def test_what_never_started_costs_nothing() -> None:
    bus, task = bus_with_task(timeout_s=100, max_attempts=1)
    bus.wait(160)
    assert bus.of("task.failed")[0].charged.tokens == 0
    assert bus.state.outcomes[task].tokens == 0


def test_a_late_result_takes_the_place_of_the_estimate() -> None:
    """In the window and on the day of the estimate, in all its scopes."""
    bus, task = bus_with_task(timeout_s=100, max_attempts=1, project="shop", estimate_tokens=1_000)
    run = bus.state.tasks[task]
    reported: dict[str, Any] = {"task": task, "attempt": 1, "session": run.session}
    bus.send("task.started", **reported)
    bus.run()
    bus.wait(160)
    hour = bus.now // HOUR
    scopes = ("global", "worker:w1", "project:shop")
    assert [bus.state.scopes[s].hours[hour].tokens for s in scopes] == [1_000] * 3
    bus.now += 30 * HOUR
    bus.send("task.completed", **reported, usage={"total_tokens": 250})
    bus.send("task.completed", **reported, usage={"total_tokens": 250})
    bus.run()
    assert [bus.state.scopes[s].hours[hour].tokens for s in scopes] == [250] * 3
    assert {
        day: sum(c.tokens for c in cells.values()) for day, cells in bus.state.days.items()
    } == {"2026-11-22": 250}
    assert bus.state.outcomes[task].status == "failed"
    assert len(bus.of("task.completed")) == 1


def test_a_late_result_takes_nothing_back_that_was_measured() -> None:
    bus, task = bus_with_task(timeout_s=7_200, max_attempts=1, estimate_tokens=1_000)
    reported: dict[str, Any] = {
        "task": task,
        "attempt": 1,
        "session": bus.state.tasks[task].session,
    }
    bus.send("usage.recorded", agent="codex", task=task, attempt=1, total_tokens=800)
    bus.run()
    bus.wait(7_260)
    bus.send("task.completed", **reported, usage={"total_tokens": 300})
    bus.run()
    hours = bus.state.scopes["global"].hours
    assert sorted((h - NOON // HOUR, b.tokens) for h, b in hours.items()) == [(0, 800), (2, 0)]


def test_usage_told_as_running_totals_counts_once() -> None:
    """T31: cumulative counters; one that falls back takes nothing away."""
    bus, task = bus_with_task()
    for total in (100, 250, 250, 90, 400):
        bus.send("usage.recorded", agent="codex", task=task, attempt=1, total_tokens=total)
    bus.run()
    bus.report("task.completed", task, usage={"total_tokens": 450})
    bus.run()
    assert bus.state.outcomes[task].tokens == 450
    assert sum(b.tokens for b in bus.state.scopes["global"].hours.values()) == 450


def test_what_an_outcome_shares_with_the_open_task_is_carried_over() -> None:
    """By name; what the outcome says of the end, or of who ran it, is another thing."""
    case = started_task()
    task = task_of(case)
    of_the_end = {"n", "status", "session", "worker", "agent", "model", "past"}
    shared = {*Outcome.__struct_fields__} & {*TaskRecord.__struct_fields__} - of_the_end
    changed = {name: _another(getattr(task, name)) for name in shared}
    for name, value in changed.items():
        setattr(task, name, value)
    close(case.state, task, COMPLETED, case.now)
    ended = case.state.outcomes["t1"]
    assert {name: getattr(ended, name) for name in shared} == changed


def _another(value: Any) -> Any:
    """A value of the same type that is not its default."""
    return value + {int: 7, str: "x", bytes: b"x"}[type(value)]
