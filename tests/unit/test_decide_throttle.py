"""Alerts (T37): one per limit or budget, window instance and level, in the turn that crossed it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.policy import AlertBudget
from projections.budgets import LEVELS, level
from tests.examples import HOUR, MINUTE, NOON, SECOND, limit, policy
from tests.given import DECIDERS, Bus, replayed

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


@pytest.mark.parametrize("quiet", [True, False], ids=["nothing happens", "much happens"])
def test_a_rolling_window_speaks_again_after_one_full_length_below(quiet: bool) -> None:
    """850 of 1,000 are in the window for ninety minutes; ninety more below, and it is said again:
    not one length after it was said."""
    bus = Bus(policy(limit("global", "tokens", "90m", 10_000)))

    def minutes(count: int) -> None:
        for _ in range(1 if quiet else count):
            bus.wait((count if quiet else 1) * 60)
            if not quiet:
                spend(bus, 1)

    spend(bus, 8_500)
    minutes(90 + 89)  # one minute short of a length
    spend(bus, 8_500)
    assert len(alerts(bus)) == 1
    minutes(90 + 90)
    spend(bus, 8_500)
    assert len(alerts(bus)) == 2
    first, second = (a.instance for a in bus.of("alert.raised"))
    assert second - first == (179 + 180) * MINUTE


def test_a_rolling_window_that_stays_above_a_level_is_not_said_again() -> None:
    bus = Bus(policy(limit("global", "tokens", "10m", 1_000)))
    for _ in range(60):
        spend(bus, 85)
        bus.wait(60)
    assert alerts(bus) == [("global", "10m", "WARNING")]


def test_each_level_of_a_rolling_window_is_armed_for_itself() -> None:
    bus = Bus(policy(limit("global", "tokens", "10m", 1_000)))

    def minutes(count: int) -> None:
        for _ in range(count):
            bus.wait(60)
            spend(bus, 85)

    minutes(40)  # at WARNING for good
    spend(bus, 150)
    minutes(10 + 9)  # less than a length after it has left
    spend(bus, 150)
    minutes(10 + 10)
    spend(bus, 150)
    assert [level for _, _, level in alerts(bus)] == ["WARNING", "CRITICAL", "CRITICAL"]


def test_what_is_held_keeps_a_rolling_window_above_its_level() -> None:
    bus = Bus(policy(limit("global", "tokens", "10m", 1_000)))
    bus.join("w1")
    task = bus.submit(estimate_tokens=850)
    bus.run()
    bus.wait(60 * 60)
    bus.report("task.completed", task, usage={"total_tokens": 1})
    bus.run()
    bus.wait(9 * 60)
    spend(bus, 850)
    assert len(alerts(bus)) == 1
    bus.wait((10 + 10) * 60)
    spend(bus, 850)
    assert len(alerts(bus)) == 2


def test_a_lower_limit_speaks_at_once_and_a_removed_one_is_forgotten() -> None:
    bus = Bus(policy(limit("global", "tokens", "10m", 1_000)))
    spend(bus, 500)
    bus.send("policy.changed", set_limits=[_ten(600)])
    bus.run()
    bus.wait(60)
    bus.send("policy.changed", set_limits=[_ten(500)])
    bus.run()
    assert [level for _, _, level in alerts(bus)] == ["WARNING", "CRITICAL"]
    bus.send("policy.changed", remove_limits=[{k: v for k, v in _ten(1).items() if k != "amount"}])
    bus.run()
    assert bus.state.raised == {}


def _ten(amount: int) -> dict[str, object]:
    return {"scope": "global", "unit": "tokens", "window": "10m", "amount": amount}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 700)), min_size=1, max_size=25),
    st.booleans(),
)
def test_a_rolling_window_says_what_a_plain_look_at_every_moment_says(
    spent: list[tuple[int, int]], late: bool
) -> None:
    """The judge keeps a list of charges and looks at each half minute; ``late``: alerts are
    decided in a turn of their own, twenty seconds after (services apart)."""
    bus = Bus(policy(limit("global", "tokens", "5m", 1_000)))
    charges: list[tuple[int, int]] = []
    expected: list[str] = []
    said = [False] * 5
    last = [-100] * 5  # until when each level was last reached
    half = 0

    def standing(half: int) -> int:
        return level(sum(n for when, n in charges if half // 2 - 5 < when // 2), 1_000)

    for pause, tokens in spent:
        for _ in range(pause):
            reached = standing(half)
            half += 1
            last = [half if n <= reached else end for n, end in enumerate(last)]
        charges.append((half, tokens))
        now = standing(half)
        armed = [n for n in range(1, now + 1) if half - last[n] >= 10]
        said = [was and n < min(armed, default=5) for n, was in enumerate(said)]
        if now and not said[now]:
            expected.append(LEVELS[now])
            said = [was or n <= now for n, was in enumerate(said)]
            last = [half if n <= now else end for n, end in enumerate(last)]
        bus.now = NOON + half * 30 * SECOND
        # Where nothing lies between two rounds the second begins before the first's late alerts:
        # the step back by those seconds is none of what is looked at here.
        unheard = ("clock", "throttle") if late else ("clock",)
        bus.deciders = tuple(each for each in DECIDERS if each.name not in unheard)
        spend(bus, tokens)
        if late:
            bus.now += 20 * SECOND
            bus.deciders = tuple(each for each in DECIDERS if each.name == "throttle")
            bus.state.dirty_scopes.add("global")
            bus.run()
    assert [one for _, _, one in alerts(bus)] == expected
    assert replayed(bus.log).digest() == bus.state.digest()


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
