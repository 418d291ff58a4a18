"""Burn rate, when limits are reached, and the seed's own tables as a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from events.policy import PolicyChanged
from projections import forecast, windows
from services.queries.forecast import forecast_view
from services.runtime import initial_policy
from services.runtime.settings import load
from services.screens.forecast import forecast_text
from tests.examples import HOUR, MINUTE, NOON, limit, policy
from tests.given import Bus

HERE = Path(__file__).parent


def _seed() -> PolicyChanged:
    return initial_policy.policy(load(environ={"HOME": "/nowhere"}, cwd=HERE))


def _burn(bus: Bus, minutes: int, tokens: int, model: str = "sonnet") -> None:
    """``tokens`` in each of so many minutes, the last of them now."""
    for n in range(minutes):
        if n:
            bus.now += MINUTE
        bus.send("usage.recorded", agent="codex", input_tokens=tokens, model=model)
        bus.run()


def _reach(bus: Bus, window: str) -> forecast.Reach:
    return next(r for r in forecast.reaches(bus.state, bus.now) if r.window == window)


def test_the_rate_is_what_the_last_sixty_minutes_used() -> None:
    bus = Bus(policy())
    _burn(bus, 120, 50)
    found = forecast.rate(bus.state, "global", bus.now)
    assert (found.tokens, found.nanos, found.minutes) == (3_000, 60 * 450_000, 60)
    assert forecast.rate(bus.state, "global", bus.now + 30 * MINUTE).tokens == 1_500
    assert forecast.rate(bus.state, "global", bus.now + 2 * HOUR).tokens == 0


def test_a_young_bus_is_measured_over_its_own_minutes_but_not_over_one() -> None:
    bus = Bus(policy())
    _burn(bus, 1, 100)
    assert forecast.rate(bus.state, "global", bus.now).tokens == 600  # ten minutes at least
    _burn(bus, 30, 100)
    assert forecast.rate(bus.state, "global", bus.now).tokens == pytest.approx(6_000, rel=0.05)


def test_a_limit_is_reached_when_the_rest_is_used_up_before_its_reset_or_not() -> None:
    limits = (limit("global", "tokens", "hour", 10_000), limit("global", "tokens", "day", 50_000))
    bus = Bus(policy(*limits), at=NOON)
    _burn(bus, 31, 100)  # 3,100 used, 29.5 minutes left of this hour
    hour, day = _reach(bus, "hour"), _reach(bus, "day")
    assert hour.at == bus.now + (10_000 - 3_100) * HOUR // hour.per_hour
    assert hour.at >= hour.resets_at
    assert not hour.before_reset
    assert hour.why == "it resets before"
    assert day.at == bus.now + (50_000 - 3_100) * HOUR // day.per_hour
    assert day.before_reset


def test_a_rolling_limit_that_the_rate_stays_below_is_never_reached() -> None:
    bus = Bus(policy(limit("global", "tokens", "2h", 20_000)))
    _burn(bus, 90, 100)  # 6,000 an hour, 12,000 in two
    assert (_reach(bus, "2h").at, _reach(bus, "2h").why) == (0, "this rate stays below it")
    _burn(bus, 60, 1_000)
    assert _reach(bus, "2h").at == bus.now  # it is full


def test_without_use_nothing_is_reached() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 100)))
    bus.run()
    assert _reach(bus, "day").why == "nothing is used now"


def test_day_and_month_are_what_is_used_and_the_rate_for_the_rest() -> None:
    bus = Bus(policy(), at=NOON)
    _burn(bus, 60, 100)
    day = forecast.projection(bus.state, "day", bus.now)
    assert day.tokens == 6_000 + 6_000 * (NOON + 12 * HOUR - bus.now) // HOUR
    month = forecast.projection(bus.state, "month", bus.now)
    assert month.ends_at == windows.interval("month", NOON)[1]
    assert month.tokens > day.tokens


def test_the_seeds_capacity_table_comes_out() -> None:
    bus = Bus(_seed())
    bus.run()
    found = [(w.tokens, w.model, w.hourly, w.nanos) for w in forecast.capacity(bus.state)]
    assert found == [
        (2_000, "haiku", 250, 500_000),
        (4_000, "sonnet", 125, 12_000_000),
        (8_000, "sonnet", 62, 24_000_000),
    ]


def test_the_seeds_day_costs_98_cents_and_prices_win_over_its_sentence() -> None:
    bus = Bus(_seed())
    bus.run()
    found = forecast.scenario(bus.state)
    assert found is not None
    assert found.nanos == 980_000_000
    assert 30 * found.nanos == 29_400_000_000
    assert found.cheaper_percent == 91  # its table says 80 % and its prices say this
    text = forecast_text(bus.state, bus.now)
    for words in ("~250 tasks/hour", "~125 tasks/hour", "~62 tasks/hour", "$0.98/day", "$29.40"):
        assert words in text


def test_savings_are_measured_against_everything_on_the_dear_model() -> None:
    bus = Bus(_seed())
    bus.join("w1", capacity=9)
    for model in ("haiku", "sonnet"):
        task = bus.submit(model=model)
        bus.run()
        bus.report("task.completed", task, usage={"input_tokens": 1_000})
        bus.run()
    found = forecast_view(bus.state, bus.now)["savings"]
    assert (found["cost_nanos"], found["uniform_nanos"]) == (3_250_000, 6_000_000)


def test_the_error_of_estimates_is_published() -> None:
    bus = Bus(_seed())
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_000)
    bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 800})
    bus.run()
    found = forecast_view(bus.state, bus.now)["estimates"]
    assert [(e["samples"], e["error_tokens"], e["percent"]) for e in found] == [(1, 200, 25)]
    assert "off by 25 %" in forecast_text(bus.state, bus.now)
