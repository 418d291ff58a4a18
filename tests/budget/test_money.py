"""T29, T31, T32, T34: parts, prices and what happens where somebody does not know them."""

from __future__ import annotations

from typing import Any

import pytest

from events.money import Price, Quote, cost_nanos
from events.tokens import TokenParts, read
from projections import budgets, usage
from services.runtime import prices
from tests.budget.ground import audit_of
from tests.examples import NOON, SECOND, limit, policy
from tests.given import Bus

# -- T29: what the vendors publish as examples of their own replies ----------------------------

VENDORS: dict[str, tuple[dict[str, Any], TokenParts]] = {
    "Anthropic, a cache is written": (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 188_086,
            "cache_read_input_tokens": 0,
            "output_tokens": 393,
        },
        TokenParts(21, 393, 0, 188_086),
    ),
    "Anthropic, the cache is read": (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 188_086,
            "output_tokens": 393,
        },
        TokenParts(21, 393, 188_086, 0),
    ),
    "Anthropic, caches of five minutes and an hour": (
        {
            "input_tokens": 2_048,
            "cache_read_input_tokens": 1_800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        },
        TokenParts(2_048, 503, 1_800, 248),
    ),
    "OpenAI, chat: cached tokens lie within the prompt": (
        {
            "prompt_tokens": 2_006,
            "completion_tokens": 300,
            "total_tokens": 2_306,
            "prompt_tokens_details": {"cached_tokens": 1_920},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        TokenParts(86, 300, 1_920, 0),
    ),
    "OpenAI, responses: reasoning lies within the output": (
        {
            "input_tokens": 75,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1_186,
            "output_tokens_details": {"reasoning_tokens": 1_024},
            "total_tokens": 1_261,
        },
        TokenParts(75, 1_186, 0, 0),
    ),
    "Codex, the end of a turn": (
        {"input_tokens": 24_763, "cached_input_tokens": 24_448, "output_tokens": 122},
        TokenParts(315, 122, 24_448, 0),
    ),
    "Gemini: thoughts are output, tools are input": (
        {
            "promptTokenCount": 1_000,
            "cachedContentTokenCount": 600,
            "toolUsePromptTokenCount": 50,
            "candidatesTokenCount": 200,
            "thoughtsTokenCount": 300,
            "totalTokenCount": 1_550,
        },
        TokenParts(450, 500, 600, 0),
    ),
}
# Dollars per million: fresh, output, read, written.
MODEL = Price(3_000_000_000, 15_000_000_000, 300_000_000, 3_750_000_000)


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_a_vendors_own_example_comes_to_disjoint_parts_and_an_exact_price(vendor: str) -> None:
    reported, want = VENDORS[vendor]
    found = read(reported)
    parts = found.usage
    assert parts is not None
    assert (parts, found.flag) == (want, "")
    whole = parts.whole
    if total := reported.get("total_tokens") or reported.get("totalTokenCount"):
        assert whole == total  # the parts sum to what the vendor says, none is counted twice
    by_hand = (
        3_000 * parts.input_tokens
        + 15_000 * parts.output_tokens
        + 300 * parts.cache_read_tokens
        + 3_750 * parts.cache_write_tokens
    )
    assert cost_nanos(parts, MODEL) == by_hand


def test_the_seeds_prices_are_for_the_bare_names_only() -> None:
    bus = Bus(policy())
    bus.inputs.price_lookup = prices.lookup
    for model in ("sonnet", "claude-sonnet-4-5"):
        bus.send(
            "usage.recorded", agent="claude", model=model, input_tokens=1_000, output_tokens=1_000
        )
    bus.run()
    flat, listed = (d.charged for d in bus.of("usage.recorded"))
    assert (flat.nanos, flat.price) == (2 * 9_000_000, "")
    assert (listed.nanos, listed.price) == (3_000_000 + 15_000_000, prices.source())


# -- T31: counters that only rise --------------------------------------------------------------


def test_a_counter_that_restarts_or_is_told_twice_never_counts_above_the_truth() -> None:
    """Running totals of an attempt are a maximum: a meter that falls back takes nothing away, and
    a second process with the same session adds nothing. A delta told as a total undercounts; it
    never overcounts, which is why the intake takes totals only."""
    bus = Bus(policy(limit("global", "tokens", "day", 10**9)))
    bus.join("w1")
    task = bus.submit()
    bus.run()
    bus.report("task.started", task)
    for reported in (100, 250, 250, 40, 90, 300, 300, 120):
        bus.report("usage.recorded", task, agent="codex", input_tokens=reported)
        bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 310})
    bus.run()
    assert usage.total(bus.state.lifetime.values()).tokens == 310
    assert all(d.charged.tokens >= 0 for d in bus.of("usage.recorded"))
    assert audit_of(bus.log).findings == []


# -- T32: unknown is not zero ------------------------------------------------------------------


def _one(model: str, **reported: Any) -> tuple[Bus, Any, Any]:
    bus = Bus(policy(limit("global", "money", "day", 10**12)))
    bus.join("w1")
    task = bus.submit(model=model, estimate_tokens=1_000)
    bus.run()
    bus.report("task.started", task)
    bus.report("task.completed", task, **reported)
    bus.run()
    assert audit_of(bus.log).findings == []
    return bus, bus.of("task.dispatched")[0], bus.of("task.completed")[0].charged


def test_usage_nobody_knows_is_booked_at_the_hold_as_an_estimate() -> None:
    _, hold, charged = _one("sonnet")
    assert (charged.tokens, charged.nanos) == (hold.hold_tokens, hold.hold_nanos)
    assert charged.estimated
    assert not charged.unpriced


def test_a_model_nobody_knows_is_held_at_the_dearest_price_and_settles_there_flagged() -> None:
    _, hold, charged = _one("nobody-knows", usage={"input_tokens": 10})
    assert hold.hold_nanos == 25_000_000  # a thousand at the dearest part of the dearest model
    assert (charged.tokens, charged.nanos) == (10, hold.hold_nanos)
    assert (charged.unpriced, charged.price) == (True, "unknown")


def test_without_a_price_the_agents_own_figure_counts() -> None:
    _, _, charged = _one("nobody-knows", usage={"input_tokens": 10}, cost_usd="0.0123")
    assert (charged.nanos, charged.price, charged.unpriced) == (12_300_000, "agent", False)


def test_a_zero_that_was_told_stays_zero() -> None:
    _, _, charged = _one("sonnet", usage={"input_tokens": 0, "output_tokens": 0})
    assert (charged.tokens, charged.nanos, charged.estimated) == (0, 0, False)


@pytest.mark.parametrize("model", ["local/llama", "ollama/qwen3"])
def test_local_models_cost_nothing_and_count_their_tokens(model: str) -> None:
    _, hold, charged = _one(model, usage={"input_tokens": 500})
    assert (hold.hold_nanos, charged.nanos, charged.tokens) == (0, 0, 500)
    assert (charged.price, charged.unpriced) == ("local", False)


# -- T34: a price that changes -----------------------------------------------------------------


def test_what_was_booked_keeps_its_price_and_names_its_book() -> None:
    """No book is named by a hash: the whole book stands on the log, so none can be missing."""
    bus = Bus(policy())
    bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=1_000)
    bus.run()
    dearer = {"sonnet": {"input": 90 * 10**9, "output": 90 * 10**9}}
    bus.send("policy.changed", set_prices=dearer)
    bus.now = NOON + SECOND
    bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=1_000)
    bus.run()
    charged = [d.charged for d in bus.of("usage.recorded")]
    assert [(b.nanos, b.book) for b in charged] == [(9_000_000, 1), (90_000_000, 2)]
    assert budgets.used(bus.state, "global", "day", bus.now).nanos == 99_000_000


def test_the_price_list_decides_once_and_replay_never_asks_it() -> None:
    asked: list[str] = []

    def lookup(model: str) -> Quote | None:
        asked.append(model)
        return Quote(MODEL, "a list")

    bus = Bus(policy())
    bus.inputs.price_lookup = lookup
    bus.send("usage.recorded", agent="codex", model="some-model", input_tokens=1_000_000)
    bus.run()
    assert asked == ["some-model"]
    assert bus.of("usage.recorded")[0].charged.nanos == 3_000_000_000
    audit_of(bus.log)
    assert asked == ["some-model"]
    assert usage.total(bus.state.lifetime.values()).nanos == 3_000_000_000


def test_the_list_names_makers_and_versions_and_admits_what_it_does_not_know() -> None:
    found = prices.lookup("claude-sonnet-4-5")
    assert found == Quote(MODEL, prices.source())
    assert prices.lookup("openai/gpt-4o") == prices.lookup("gpt-4o")
    assert prices.lookup("text-embedding-ada-002") is not None
    assert prices.lookup("no-such-model") is None
    assert prices.lookup("nobody/no-such-model") is None
