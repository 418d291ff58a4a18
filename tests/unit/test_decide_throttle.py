"""Alerts (T37): one per limit or budget, window instance and level, in the turn that crossed it."""

from __future__ import annotations

import pytest

from events.policy import AlertBudget
from tests.examples import HOUR, limit, policy
from tests.given import Bus

BUDGET = AlertBudget("tokens", "day", 150_000)


def alerts(bus: Bus) -> list[tuple[str, str, str]]:
    return [(a.scope, a.window, a.level) for a in bus.of("alert.raised")]


def spend(bus: Bus, tokens: int) -> None:
    bus.send("usage.recorded", agent="codex", total_tokens=tokens)
    bus.run()


def test_a_ramp_says_each_level_once() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 200)))
    for _ in range(220):
        spend(bus, 1)
    assert [level for _, _, level in alerts(bus)] == ["WARNING", "SOFT", "HARD", "CRITICAL"]
    assert [a.usage for a in bus.of("alert.raised")] == [160, 180, 190, 199]


def test_a_jump_says_the_highest_only() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    spend(bus, 5_000)
    assert alerts(bus) == [("global", "hour", "CRITICAL")]


def test_an_alert_stands_in_the_turn_that_crossed_its_level() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    bus.send("usage.recorded", agent="codex", total_tokens=850)
    turn = bus.decide()
    bus.keep(turn)
    assert [e.data.type for e in turn.events][-2:] == ["usage.recorded", "alert.raised"]


def test_levels_count_what_is_held() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    bus.join("w1")
    bus.submit(estimate_tokens=850)
    bus.run()
    assert alerts(bus) == [("global", "hour", "WARNING")]


def test_a_dip_and_a_return_say_nothing_again() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    bus.join("w1")
    for _ in range(3):
        task = bus.submit(estimate_tokens=850)
        bus.run()
        bus.report("task.completed", task, usage={"total_tokens": 1})
        bus.run()
    assert len(alerts(bus)) == 1


def test_the_next_hour_speaks_for_itself() -> None:
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    spend(bus, 850)
    bus.now += HOUR
    spend(bus, 10)
    assert len(alerts(bus)) == 1
    spend(bus, 850)
    assert len(alerts(bus)) == 2
    first, second = (a.instance for a in bus.of("alert.raised"))
    assert second - first == HOUR


def test_a_rolling_window_speaks_again_after_one_full_length() -> None:
    bus = Bus(policy(limit("global", "tokens", "90m", 1_000)))
    spend(bus, 850)
    bus.wait(60)
    spend(bus, 10)
    assert len(alerts(bus)) == 1
    bus.wait(90 * 60)
    spend(bus, 850)
    assert len(alerts(bus)) == 2


def test_every_scope_speaks_for_itself() -> None:
    bus = Bus(
        policy(limit("global", "tokens", "hour", 10_000), limit("project", "tokens", "hour", 1_000))
    )
    for name in ("shop", "lab"):
        bus.send("usage.recorded", agent="codex", project=name, total_tokens=900)
    bus.run()
    assert alerts(bus) == [("project:lab", "hour", "SOFT"), ("project:shop", "hour", "SOFT")]


def test_an_alert_budget_looks_at_what_is_used_and_gates_nothing() -> None:
    bus = Bus(policy(alert_budgets=(BUDGET,)))
    bus.join("w1", capacity=3)
    task = bus.submit(estimate_tokens=200_000)
    bus.run()
    assert alerts(bus) == []
    spend(bus, 119_999)
    assert alerts(bus) == []
    spend(bus, 1)
    spend(bus, 500_000)
    assert [(a.kind, a.window, a.usage, a.budget) for a in bus.of("alert.raised")] == [
        ("budget", "day", 120_000, 150_000)
    ]
    bus.submit(estimate_tokens=200_000)
    bus.run()
    assert len(bus.of("task.dispatched")) == 2
    assert task in bus.state.tasks


@pytest.mark.parametrize("restart", [True, False])
def test_an_alert_survives_a_turn_that_did_not_reach_the_log(restart: bool) -> None:
    """Decided, lost, decided again: it is said once, and not before the log has it."""
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    bus.run()
    bus.send("usage.recorded", agent="codex", total_tokens=850)
    for _ in range(3):
        turn = bus.decide()
        assert turn.events[-1].data.type == "alert.raised"
        bus.undo()
    if restart:
        bus.inputs.texts.clear()
    bus.run()
    assert alerts(bus) == [("global", "hour", "WARNING")]
