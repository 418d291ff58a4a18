"""Who runs what, when (T1, T2, T3, T7 in memory): spread, order, routes, gates, room."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from events.policy import Learning
from services.dispatcher import decide as dispatcher
from tests import examples
from tests.examples import HOUR, limit, policy
from tests.given import Bus, given, replayed


def workers_of(bus: Bus) -> list[str]:
    return [d.worker for d in bus.of("task.dispatched")]


def dispatched_tasks(bus: Bus) -> list[str]:
    return [d.task for d in bus.of("task.dispatched")]


def finish(bus: Bus, task: str, tokens: int = 1) -> None:
    bus.report("task.completed", task, usage={"total_tokens": tokens})
    bus.run()


# -- the decider on its own ------------------------------------------------------------------------


def test_a_waiting_task_meets_a_free_worker() -> None:
    case = given(examples.policy(), examples.joined(), examples.submitted(), examples.delegated())
    case.when(dispatcher.decide).then(
        examples.dispatched(hold_nanos=9_000_000, deadline=case.now + 7_200_000_000)
    )
    case.when(dispatcher.decide).then()


def test_nobody_free_is_no_decision() -> None:
    given(examples.submitted(), examples.delegated()).when(dispatcher.decide).then()


# -- spread and order ------------------------------------------------------------------------------


def test_work_is_spread_fairly() -> None:
    bus = Bus()
    for worker in ("w1", "w2", "w3"):
        bus.join(worker, capacity=4)
    for _ in range(12):
        bus.submit()
    bus.run()
    assert Counter(workers_of(bus)) == {"w1": 4, "w2": 4, "w3": 4}
    assert sorted(workers_of(bus)[:3]) == ["w1", "w2", "w3"]


def test_the_worker_with_most_budget_left_comes_first() -> None:
    bus = Bus(policy(limit("worker", "tokens", "hour", 100_000)))
    bus.join("w1", capacity=2)
    bus.join("w2", capacity=2)
    bus.send("usage.recorded", agent="codex", worker="w1", total_tokens=70_000)
    bus.submit()
    bus.run()
    assert workers_of(bus) == ["w2"]


def test_similar_work_goes_to_the_same_worker_where_all_else_is_equal() -> None:
    bus = Bus()
    bus.join("w1")
    bus.join("w2")
    first, second = bus.submit(kind="coding"), bus.submit(kind="documentation")
    bus.run()
    where = dict(zip(dispatched_tasks(bus), workers_of(bus), strict=True))
    finish(bus, first)
    finish(bus, second)
    again = bus.submit(kind="documentation")
    bus.run()
    assert bus.state.tasks[again].worker == where[second]


def test_the_dearer_priority_is_tried_first() -> None:
    bus = Bus()
    tasks = {p: bus.submit(priority=p) for p in ("low", "normal", "high", "critical")}
    bus.run()
    bus.join("w1")
    bus.run()
    for _ in range(3):
        finish(bus, dispatched_tasks(bus)[-1])
    assert dispatched_tasks(bus) == [tasks[p] for p in ("critical", "high", "normal", "low")]


def test_age_overtakes_priority_so_that_nobody_starves() -> None:
    """A stream of critical work passes a low task for fifteen minutes and not longer."""
    bus = Bus()
    bus.join("w1")
    low = bus.submit(priority="low")
    bus.submit(priority="critical")
    bus.run()
    minutes = 0
    while low not in dispatched_tasks(bus) or dispatched_tasks(bus)[0] == low:
        assert minutes < 17, "it starves"
        running = [t for t in bus.state.tasks.values() if t.worker]
        bus.submit(priority="critical")
        for task in running:
            bus.report("task.completed", task.id)
        bus.wait(60)
        minutes += 1
    assert minutes >= 14


def test_those_of_one_rank_keep_their_order() -> None:
    bus = Bus()
    tasks = [bus.submit() for _ in range(20)]
    bus.run()
    bus.join("w1", capacity=20)
    bus.run()
    assert dispatched_tasks(bus) == tasks


# -- routes ------------------------------------------------------------------------------------


def test_what_the_user_gave_is_a_requirement() -> None:
    bus = Bus()
    bus.join("w1", agent="claude", capacity=9)
    bus.join("w2", agent="codex", models=["sonnet"], capacity=9)
    bus.run()
    agent, model, worker = (
        bus.submit(agent="gemini"),
        bus.submit(model="opus"),
        bus.submit(worker="w9"),
    )
    bus.run()
    assert dispatched_tasks(bus) == [model]  # w1 serves every model
    bus.join("w3", agent="gemini")
    bus.join("w9")
    bus.run()
    where = dict(zip(dispatched_tasks(bus), workers_of(bus), strict=True))
    assert where == {model: "w1", agent: "w3", worker: "w9"}


def test_where_no_live_worker_serves_the_route_the_next_best_does_and_says_why() -> None:
    bus = Bus()
    bus.join("w1", agent="claude", capacity=3)
    bus.submit(kind="coding")
    bus.run()
    found = bus.of("task.dispatched")[0]
    assert (found.agent, found.model) == ("claude", "sonnet")
    assert found.why == "no live worker serves codex with sonnet"


def test_another_model_is_taken_only_where_none_was_asked_for() -> None:
    bus = Bus()
    bus.join("w1", models=["opus-full"], capacity=3)
    free, bound = bus.submit(kind="coding"), bus.submit(kind="coding", model="sonnet")
    bus.run()
    assert dispatched_tasks(bus) == [free]
    assert bus.of("task.dispatched")[0].model == "opus-full"
    assert bus.state.tasks[bound].status == "queued"


def test_the_route_itself_is_preferred_while_its_workers_live() -> None:
    bus = Bus()
    bus.join("w1", agent="codex")
    bus.join("w2", agent="claude", capacity=5)
    first, second = bus.submit(kind="coding"), bus.submit(kind="coding")
    bus.run()
    assert dispatched_tasks(bus) == [first]  # the second waits for w1, which is alive and busy
    bus.silent.add("w1")
    bus.wait(61)
    assert set(dispatched_tasks(bus)) == {first, second}
    assert set(workers_of(bus)[1:]) == {"w2"}


# -- budgets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "most"),
    [("low", 89_999), ("normal", 94_999), ("high", 99_000), ("critical", 100_000)],
)
def test_at_the_edge_exactly_so_many_are_admitted(priority: str, most: int) -> None:
    """T1 in memory: 200 ask for 100 each where there is room for ten below their own gate."""
    bus = Bus(policy(limit("global", "tokens", "hour", 100_000)))
    bus.join("w1", capacity=500)
    bus.send("usage.recorded", agent="codex", total_tokens=most - 1_000)
    for _ in range(200):
        bus.submit(priority=priority, estimate_tokens=100)
    bus.run()
    assert len(bus.of("task.dispatched")) == 10
    assert bus.state.scopes["global"].held_tokens == 1_000


def test_a_refusal_leaves_the_state_byte_for_byte() -> None:
    """T2: the engine looks again and again, and nothing changes."""
    bus = Bus(policy(limit("global", "tokens", "hour", 1_500)))
    bus.join("w1", capacity=5)
    bus.submit(estimate_tokens=1_000)
    bus.submit(estimate_tokens=1_000)
    bus.run()
    before = bus.state.digest()
    for _ in range(10):
        assert bus.run() == []
    assert bus.state.digest() == before


def test_waiting_work_goes_on_when_the_window_ends() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_500)))
    bus.join("w1", capacity=5)
    first, second = bus.submit(estimate_tokens=1_000), bus.submit(estimate_tokens=1_000)
    bus.run()
    finish(bus, first, 1_000)
    assert dispatched_tasks(bus) == [first]
    bus.now += HOUR - bus.now % HOUR - 1
    assert bus.run() == []
    bus.now += 1
    bus.run()
    assert dispatched_tasks(bus) == [first, second]


def test_at_soft_the_urgent_go_and_the_low_wait_until_the_level_falls() -> None:
    """T7: 1,000 low and 10 critical."""
    bus = Bus(policy(limit("global", "tokens", "hour", 100_000)))
    bus.join("w1", capacity=2_000)
    bus.send("usage.recorded", agent="codex", total_tokens=90_000)
    for _ in range(1_000):
        bus.submit(priority="low", estimate_tokens=10)
    urgent = [bus.submit(priority="critical", estimate_tokens=500) for _ in range(10)]
    bus.run()
    assert sorted(dispatched_tasks(bus)) == sorted(urgent)
    bus.wait(1_200)  # the low ones have waited long: no room is kept where use keeps them out
    late = bus.submit(priority="critical", estimate_tokens=5_000)
    bus.run()
    assert dispatched_tasks(bus)[-1] == late
    bus.now += HOUR - bus.now % HOUR
    bus.run()
    assert len(bus.of("task.dispatched")) == 1_011


def test_what_never_fits_is_said_once_and_does_not_hold_up_the_rest() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 10_000)))
    bus.join("w1", capacity=5)
    giant, small = bus.submit(estimate_tokens=9_500), bus.submit(estimate_tokens=9_499)
    bus.run()
    assert [d.task for d in bus.of("task.deferred")] == [giant]
    assert "ever allows" in bus.of("task.deferred")[0].reason
    assert dispatched_tasks(bus) == [small]
    bus.wait(90_000)
    assert len(bus.of("task.deferred")) == 1


@pytest.mark.parametrize("again", ["undone turn", "restart"])
def test_what_never_fits_is_not_said_again_of_a_worker_that_came_later(again: str) -> None:
    """A turn that is undone, and a restart, leave it set aside as the log says, though the worker
    that would be asked first is another one by then."""
    bus = Bus(policy(limit("worker", "money", "hour", 0)))
    bus.join("w2")
    tasks = [bus.submit(), bus.submit()]
    bus.run()
    bus.join("w1")
    bus.run()
    if again == "restart":
        bus.state = replayed(bus.log)
    else:
        bus.join("w3")
        bus.decide()
        bus.undo()
    bus.run()
    assert [deferred.task for deferred in bus.of("task.deferred")] == tasks


def test_what_never_fitted_is_tried_again_when_the_policy_changes() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 10_000)))
    bus.join("w1")
    giant = bus.submit(estimate_tokens=50_000)
    bus.run()
    raised = {"scope": "global", "unit": "tokens", "window": "day", "amount": 1_000_000}
    bus.send("policy.changed", set_limits=[raised])
    bus.run()
    assert dispatched_tasks(bus) == [giant]


def change_limit(bus: Bus, amount: int) -> None:
    raised = {"scope": "global", "unit": "tokens", "window": "day", "amount": amount}
    bus.send("policy.changed", set_limits=[raised])
    bus.run()


def test_15_changes_of_limits_over_3_000_waiting_tasks_cost_no_event_per_task() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 1_100)))
    bus.join("w1", capacity=2)  # one slot stays free: each of them is looked at
    for number in range(3_000):
        bus.submit(estimate_tokens=1_000 + number % 5)
    bus.run()
    assert len(bus.of("task.dispatched")) == 1
    before = len(bus.events)
    for number in range(15):  # below what each of them asks for, and above
        change_limit(bus, (500, 900, 1_100)[number % 3] + number)
    cost = [event.type for event in bus.events[before:]]
    assert cost.count("policy.changed") == 15
    assert cost.count("task.deferred") == 0
    assert set(cost) <= {"policy.changed", "alert.raised"}


def test_what_could_never_fit_from_the_start_is_said_once_whatever_changes() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 10_000)))
    bus.join("w1")
    giants = [bus.submit(estimate_tokens=50_000) for _ in range(5)]
    bus.run()
    for amount in (9_000, 8_000, 7_000):
        change_limit(bus, amount)
    assert [d.task for d in bus.of("task.deferred")] == giants
    assert {d.limit for d in bus.of("task.deferred")} == {"tokens/day of global"}


def test_a_small_task_behind_one_that_a_change_made_hopeless_goes_on() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 10_000)))
    bus.join("w1")
    first = bus.submit(estimate_tokens=1_000)
    bus.run()
    bus.submit(estimate_tokens=1_020)
    small = bus.submit(estimate_tokens=600)
    change_limit(bus, 1_070)
    finish(bus, first, 0)
    assert dispatched_tasks(bus) == [first, small]
    assert bus.of("task.deferred") == []


@pytest.mark.parametrize("other", [{"w2": 0}, {}])
def test_what_fits_on_another_worker_is_not_given_up(other: dict[str, int]) -> None:
    """Neither while that one is busy nor before it has joined."""
    bus = Bus(policy(limit("worker:w1", "tokens", "hour", 100)))
    bus.join("w1")
    if other:
        bus.join("w2")
    bus.run()
    running = bus.submit(worker="w2", estimate_tokens=10)
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    assert bus.of("task.deferred") == []
    if other:
        finish(bus, running)
    else:
        bus.join("w2", capacity=2)
        bus.run()
    assert dispatched_tasks(bus)[-1] == task or task in dispatched_tasks(bus)
    assert bus.state.tasks[task].worker == "w2"


def test_a_full_agent_does_not_hide_another_that_would_do() -> None:
    bus = Bus(policy(limit("agent:claude", "tokens", "hour", 100)))
    bus.join("w1", agent="claude")
    bus.join("w2", agent="gemini")
    task = bus.submit(kind="coding", estimate_tokens=1_000)
    bus.run()
    assert bus.state.tasks[task].worker == "w2"


def test_room_is_kept_for_a_head_that_waited_ten_minutes_for_running_work() -> None:
    def day(minutes: int) -> list[str]:
        bus = Bus(policy(limit("global", "tokens", "day", 10_000)))
        bus.join("w1", capacity=9)
        first = bus.submit(estimate_tokens=5_000)
        big = bus.submit(estimate_tokens=6_000, project="big")
        bus.run()
        bus.wait(60 * minutes)
        small = bus.submit(estimate_tokens=2_000, project="small")
        bus.run()
        names = {first: "first", big: "big", small: "small"}
        return [names[task] for task in dispatched_tasks(bus)]

    assert day(9) == ["first", "small"]
    assert day(10) == ["first"]


def test_the_tasks_unit_counts_what_runs_and_what_ran() -> None:
    bus = Bus(policy(limit("global", "tasks", "hour", 10)))
    bus.join("w1", capacity=50)
    for _ in range(20):
        bus.submit()
    bus.run()
    assert len(bus.of("task.dispatched")) == 9  # below 95 % of ten
    for task in dispatched_tasks(bus):
        bus.report("task.completed", task, usage={"total_tokens": 1})
    bus.run()
    assert len(bus.of("task.dispatched")) == 9


def test_a_runaway_extends_its_hold_step_by_step_until_it_is_refused() -> None:
    """T13: what it uses is charged in full; each extension stands under the check."""
    bus = Bus(policy(limit("global", "tokens", "hour", 10_000), learning=Learning(10**6)))
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    for total in (900, 1_100, 2_000, 9_000, 9_400):
        bus.send("usage.recorded", agent="codex", task=task, attempt=1, total_tokens=total)
        bus.run()
    assert [e.tokens for e in bus.of("hold.extended")] == [600, 900]
    assert len(bus.of("hold.refused")) == 1
    assert bus.state.scopes["global"].held_tokens == 0
    finish(bus, task, 12_000)
    used: Any = bus.state.scopes["global"].hours
    assert [b.tokens for b in used.values()] == [12_000]


def test_a_small_task_does_not_wait_behind_a_large_one_that_the_budgets_refuse() -> None:
    bus = Bus(policy(limit("worker", "tokens", "hour", 100_000)))
    bus.join("w1", capacity=10)
    for n in range(5):
        bus.submit(task=f"big{n}", estimate_tokens=20_000)
    bus.submit(task="small", estimate_tokens=100)
    bus.run()
    waiting = sorted(t.id for t in bus.state.tasks.values() if t.status == "queued")
    assert waiting == ["big4"]
