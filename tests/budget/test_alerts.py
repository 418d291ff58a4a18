"""T37: one alert per scope, window instance and level, whoever decides and whenever it dies."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from events.policy import AlertBudget, AlertRaised, PolicyChanged
from services.runtime import initial_policy
from services.runtime.settings import load
from services.throttle.projector import message
from tests.budget.ground import Rivals, audit_of, often
from tests.examples import DAY, HOUR, NOON, limit, policy
from tests.given import Bus, replayed


def _use(bus: Bus, tokens: int, agent: str = "codex") -> None:
    bus.send("usage.recorded", agent=agent, input_tokens=tokens, model="sonnet")


def _said(bus: Bus) -> list[AlertRaised]:
    return bus.of("alert.raised")


def test_a_ramp_in_steps_of_one_token_says_each_level_once() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 200)))
    for _ in range(205):
        _use(bus, 1)
        bus.run()
    assert [(a.level, a.usage) for a in _said(bus)] == [
        ("WARNING", 160),
        ("SOFT", 180),
        ("HARD", 190),
        ("CRITICAL", 199),
    ]


def test_a_jump_says_the_highest_level_only() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 200)))
    _use(bus, 200)
    bus.run()
    assert [a.level for a in _said(bus)] == ["CRITICAL"]


@pytest.mark.parametrize("seed", range(often(3, 100)))
def test_two_hundred_crossings_at_once_by_rival_engines_say_it_once(seed: int) -> None:
    bus = Rivals(policy(limit("global", "tokens", "day", 1_000)), engines=3, seed=seed)
    for _ in range(200):
        _use(bus, 4)
    bus.run()
    assert bus.conflicts > 0
    said = Counter((a.scope, a.unit, a.window, a.instance, a.level) for a in _said(bus))
    assert said == {("global", "tokens", "day", NOON - 12 * HOUR, "WARNING"): 1}
    assert audit_of(bus.log).findings == []


@pytest.mark.parametrize("seed", range(often(5, 200)))
def test_an_engine_that_starts_anew_at_any_moment_repeats_nothing_and_misses_nothing(
    seed: int,
) -> None:
    chance = random.Random(seed)
    bus = Bus(policy(limit("global", "tokens", "day", 1_000), limit("agent", "tokens", "5h", 500)))
    for _ in range(60):
        _use(bus, chance.randrange(40), chance.choice(["codex", "claude"]))
        if chance.random() < 0.3:  # it dies here, before or after its turn; the next one folds
            turn = bus.decide()
            if chance.random() < 0.5:
                bus.keep(turn)
            bus.state = replayed(bus.log)
        bus.run()
        bus.now += chance.randrange(HOUR // 4)
    audit = audit_of(bus.log)
    assert audit.findings == []
    day = [a for a in _said(bus) if a.window == "day"]
    ranks = [a.usage for a in day]
    assert ranks == sorted(ranks)
    row = bus.state.scopes["global"]
    assert bool(day) == (sum(b.tokens for b in row.hours.values()) >= 800)


def test_a_dip_and_a_return_within_the_window_say_nothing_again() -> None:
    """T20: corrected down below the level and up again."""
    bus = Bus(policy(limit("global", "tokens", "day", 1_300)))
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_100, max_attempts=1)
    bus.run()
    bus.report("task.started", task)
    bus.run()
    bus.report("task.failed", task, error="no", retryable=False)
    bus.run()
    assert [a.level for a in _said(bus)] == ["WARNING"]
    past_used = bus.state.scopes["global"]
    assert sum(b.tokens for b in past_used.hours.values()) == 1_100
    _use(bus, 20)
    bus.run()
    assert [a.level for a in _said(bus)] == ["WARNING"]
    bus.now += DAY
    _use(bus, 1_100)
    bus.run()
    assert [a.level for a in _said(bus)] == ["WARNING", "WARNING"]  # another day


def test_the_seeds_alert_budgets_warn_and_never_gate() -> None:
    """150K a day and 1M a week at 80 %, $10 a day; in the seed's shape."""
    first = initial_policy.policy(load(environ={"HOME": "/nowhere"}))
    assert set(first.alert_budgets) == {
        AlertBudget("tokens", "day", 150_000, 80),
        AlertBudget("tokens", "week", 1_000_000, 80),
        AlertBudget("money", "day", 10_000_000_000, 100),
    }
    bus = Bus(PolicyChanged(alert_budgets=first.alert_budgets, prices=first.prices))
    bus.join("w1")
    _use(bus, 119_999)
    bus.run()
    assert _said(bus) == []
    _use(bus, 1)
    bus.run()
    event = next(e for e in bus.events if e.data.type == "alert.raised")
    reported = message(event)
    assert list(reported)[:4] == ["type", "usage", "budget", "percentage"]
    assert (reported["type"], reported["usage"], reported["budget"], reported["percentage"]) == (
        *("TOKEN_BUDGET_WARNING", 120_000, 150_000, 80.0),
    )
    _use(bus, 680_000)  # NOON is a Sunday: the week has what the day has
    bus.run()
    _use(bus, 2_600_000)  # at 0.003 dollars a thousand: ten dollars are passed
    bus.run()
    kinds = [(a.unit, a.window) for a in _said(bus)]
    assert kinds == [("tokens", "day"), ("tokens", "week"), ("money", "day")]
    money = [message(e) for e in bus.events if e.data.type == "alert.raised"][-1]
    assert money["type"] == "COST_BUDGET_WARNING"
    assert money["budget"] == 10
    task = bus.submit()
    bus.run()
    assert bus.state.tasks[task].status == "dispatched"


def test_an_alert_budget_looks_at_what_is_used_and_a_level_at_what_is_held_too() -> None:
    bus = Bus(
        policy(
            limit("global", "tokens", "day", 2_200),
            alert_budgets=(AlertBudget("tokens", "day", 1_000, 80),),
        )
    )
    bus.join("w1")
    bus.submit(estimate_tokens=1_800)
    bus.run()
    assert [(a.kind, a.level) for a in _said(bus)] == [("level", "WARNING")]
