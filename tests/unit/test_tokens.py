"""The one reader of usage: what programs tell of tokens, and what that comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import readings
from events.figures import TOKENS_MAX, count
from events.tokens import Reading, TokenParts, read

# -- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wording", "number"),
    [
        (1500, 1500),
        (1000.0, 1000),
        ("1500", 1500),
        ("               1500000", 1_500_000),  # printf %22s
        ("1,500", 1500),
        ("12,345,678", 12_345_678),
        ("1 500", 1500),
        ("1\u202f500", 1500),
        ("1_500_000", 1_500_000),
        ("1000.0", 1000),
        ("1,500.00", 1500),
        ("0", 0),
        (TOKENS_MAX, TOKENS_MAX),
    ],
)
def test_a_figure_that_reads_one_way_is_read(wording: Any, number: int) -> None:
    assert count(wording) == number


@pytest.mark.parametrize(
    "wording",
    [
        *("1.500", "1.500.000", "1,50", "1500,000", "1,500_000", "12.5K", "1e3", "many", "", "-5"),
        *("１５００", "1,500.5", "1.5", "0x10", "1\n500", "9" * 30),
        *(1.5, -5, -1.0, True, None, [1], float("nan"), float("inf"), TOKENS_MAX + 1, 10**24),
    ],
)
def test_a_figure_that_reads_two_ways_or_none_is_not(wording: Any) -> None:
    assert count(wording) is None


# -- the vendors' names ------------------------------------------------------------------------

VENDORS: dict[str, tuple[dict[str, Any], TokenParts]] = {
    "Claude Code": (
        {
            "input_tokens": 31,
            "cache_creation_input_tokens": 1_700,
            "cache_read_input_tokens": 21_000,
            "output_tokens": 64,
            "output_tokens_details": {"thinking_tokens": 11},
            "server_tool_use": {"web_search_requests": 2},
            "service_tier": "standard",
            "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 1_700},
            "iterations": [],
        },
        TokenParts(31, 64, 21_000, 1_700),
    ),
    "a written cache wording by its lifetimes only": (
        {
            "input_tokens": 31,
            "output_tokens": 64,
            "cache_creation": {"ephemeral_1h_input_tokens": 9, "ephemeral_5m_input_tokens": 700},
        },
        TokenParts(31, 64, 0, 709),
    ),
    "Codex": (
        {
            "input_tokens": 3_000,
            "cached_input_tokens": 1_100,
            "cache_write_input_tokens": 0,
            "output_tokens": 80,
            "reasoning_output_tokens": 30,
            "total_tokens": 3_080,
        },
        TokenParts(1_900, 80, 1_100),
    ),
    "Gemini's API": (
        {
            "promptTokenCount": 6_100,
            "candidatesTokenCount": 410,
            "cachedContentTokenCount": 5_000,
            "thoughtsTokenCount": 23,
            "totalTokenCount": 6_533,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 6_100}],
        },
        TokenParts(1_100, 433, 5_000),
    ),
    "Gemini CLI, one model": (
        {
            "input": 500,
            "prompt": 900,
            "candidates": 30,
            "total": 940,
            "cached": 400,
            "thoughts": 10,
            "tool": 0,
        },
        TokenParts(500, 40, 400),
    ),
    "Gemini CLI, the summary that leaves thoughts unnamed": (
        {
            "total_tokens": 940,
            "input_tokens": 900,
            "output_tokens": 30,
            "cached": 400,
            "input": 500,
            "duration_ms": 122,
            "tool_calls": 1,
        },
        TokenParts(500, 40, 400),
    ),
    "OpenAI, chat": (
        {
            "prompt_tokens": 2_006,
            "completion_tokens": 300,
            "total_tokens": 2_306,
            "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
        },
        TokenParts(86, 300, 1_920),
    ),
    "Vercel's AI SDK": (
        {
            "inputTokens": 100,
            "outputTokens": 50,
            "totalTokens": 150,
            "reasoningTokens": 20,
            "cachedInputTokens": 60,
        },
        TokenParts(40, 50, 60),
    ),
    "Bedrock": (
        {
            "inputTokens": 100,
            "outputTokens": 50,
            "totalTokens": 1_150,
            "cacheReadInputTokens": 1_000,
            "cacheWriteInputTokens": 0,
        },
        TokenParts(100, 50, 1_000),
    ),
    "LangChain": (
        {
            "input_tokens": 350,
            "output_tokens": 240,
            "total_tokens": 590,
            "input_token_details": {"cache_read": 100, "cache_creation": 50},
            "output_token_details": {"reasoning": 200},
        },
        TokenParts(200, 240, 100, 50),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 9,
            "prompt_cache_hit_tokens": 60,
            "prompt_cache_miss_tokens": 40,
        },
        TokenParts(40, 9, 60),
    ),
    "Grok, where reasoning lies beside the completion": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        TokenParts(32, 103),
    ),
    "opencode": (
        {"input": 11, "output": 7, "reasoning": 3, "cache": {"read": 500, "write": 20}},
        TokenParts(11, 7, 500, 20),
    ),
    "OpenTelemetry": (
        {
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 80,
        },
        TokenParts(20, 50, 80),
    ),
    "Ollama": (
        {"prompt_eval_count": 26, "eval_count": 298, "total_duration": 5_043},
        TokenParts(26, 298),
    ),
    "a bare total": ({"total_tokens": 12}, TokenParts(12)),
    "the words of the seed": (
        {"prompt": 1500, "completion": 2500, "total": 4000},
        TokenParts(1500, 2500),
    ),
}


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_a_vendors_names_come_to_disjoint_parts(vendor: str) -> None:
    wording, usage = VENDORS[vendor]
    assert read(wording).usage == usage
    assert read(wording).flag == ""


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_the_same_object_gives_the_same_tokens_wherever_it_is_told(vendor: str) -> None:
    wording, usage = VENDORS[vendor]
    for holder in ("usage", "usageMetadata", "tokens_used", "token_usage", "tokens"):
        found = readings.find({"status": "working", holder: wording, "model": "m"})
        assert (found.reading.usage, found.model) == (usage, "m")
        assert read(found.raw) == found.reading


# -- a total and its parts ---------------------------------------------------------------------


def test_input_that_includes_cached_tokens_is_found_out_by_the_total() -> None:
    wording = {
        "input_tokens": 9_013,
        "cache_read_input_tokens": 8_000,
        "cache_creation_input_tokens": 1_000,
        "output_tokens": 20,
        "total_tokens": 9_033,
    }
    found = read(wording)
    assert found.usage == TokenParts(13, 20, 8_000, 1_000)
    assert "the input holds the cached ones" in found.flag


@pytest.mark.parametrize(
    ("wording", "usage"),
    [
        ({"input_tokens": 5, "output_tokens": 7, "total_tokens": 20}, TokenParts(13, 7)),
        ({"input_tokens": 5, "output_tokens": 7, "total_tokens": 10}, TokenParts(3, 7)),
        ({"input_tokens": 5, "output_tokens": 7, "total_tokens": 3}, TokenParts(0, 3)),
        ({"input_tokens": 5, "output_tokens": 7, "total_tokens": 0}, TokenParts(5, 7)),  # never set
        (
            {"input_tokens": 5, "output_tokens": 7, "cache_read_tokens": 900, "total_tokens": 12},
            TokenParts(5, 7, 900),  # a total of what is not cached
        ),
        ({"input_tokens": 5, "cached_tokens": 9, "output_tokens": 7}, TokenParts(5, 7, 9)),
    ],
)
def test_a_contradiction_is_flagged_and_the_total_wins(
    wording: dict[str, Any], usage: TokenParts
) -> None:
    found = read(wording)
    assert found.usage == usage
    assert found.flag


def test_parts_of_unknown_names_explain_a_total_and_are_nothing_without_one() -> None:
    wording: dict[str, Any] = {"embedding_generation": 15_000, "code_completion": 3_000}
    assert read(wording) == Reading()
    assert read({**wording, "total": 18_000}) == Reading(TokenParts(), 18_000, 18_000)
    found = read({**wording, "output_tokens": 500, "total": 18_500})
    assert (found.usage, found.flag) == (TokenParts(18_000, 500), "")


def test_without_a_total_only_names_that_hold_token_count() -> None:
    wording = {"embedding_tokens": 300, "output_tokens": 5, "turns": 12, "max_tokens": 4_096}
    assert read(wording).usage == TokenParts(300, 5)


def test_limits_prices_and_speeds_are_no_tokens() -> None:
    wording = {
        "token_limit": 9,
        "tokens_per_second": 40.5,
        "max_output_tokens": 7,
        "token_price": 2,
    }
    assert read(wording) == Reading()


# -- what cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize("value", ["12.5K", "1.500", -5, 1.5, 10**24, True, "many"])
def test_an_unreadable_figure_makes_usage_unknown_and_is_flagged(value: Any) -> None:
    for name in ("input_tokens", "total_tokens"):
        found = read({name: value})
        assert found.usage is None
        assert name in found.flag
    both = read({"input_tokens": value, "output_tokens": 5})
    assert (both.usage, bool(both.flag)) == (None, True)


def test_an_unreadable_figure_counts_for_nothing_where_the_others_say_all() -> None:
    part = read({"input_tokens": "12.5K", "output_tokens": 5, "total_tokens": 12_505})
    assert (part.usage, part.flag) == (
        TokenParts(12_500, 5),
        "input_tokens: not a whole number of tokens",
    )
    total = read({"input_tokens": 1_500, "output_tokens": 5, "total": "1.5K"})
    assert (total.usage, total.flag) == (
        TokenParts(1_500, 5),
        "total: not a whole number of tokens",
    )


def test_unknown_is_not_zero() -> None:
    for wording in (None, {}, {"model": "gpt-4"}, {"input_tokens": None}, {"prompt": "Fix it"}):
        assert read(wording) == Reading()
    assert read({"input_tokens": 0}).usage == TokenParts()
    assert read({"reasoning_tokens": 50}).usage == TokenParts(0, 50)


def test_a_flag_holds_no_text_of_the_writer() -> None:
    for wording in (
        {"secret_tokens": "-1 Hunter2"},
        {"total": "12 Hunter2"},
        {"input_tokens": "no"},
    ):
        flag = read(wording).flag
        assert flag
        assert "unter2" not in flag
        assert "secret" not in flag


# -- by model ----------------------------------------------------------------------------------

RESULT: dict[str, Any] = {
    "usage": {"input_tokens": 700, "output_tokens": 300},
    "modelUsage": {
        "claude-sonnet-4-5": {"inputTokens": 700, "outputTokens": 300, "costUSD": 0.02},
        "claude-haiku-4-5": {
            "inputTokens": 41_000,
            "outputTokens": 900,
            "cacheReadInputTokens": 5,
            "costUSD": 0.04,
            "contextWindow": 200_000,
            "maxOutputTokens": 64_000,
        },
    },
    "total_cost_usd": 0.06,
}


def test_figures_by_model_are_summed_and_hold_what_usage_leaves_out() -> None:
    found = readings.find(RESULT)
    assert found.reading.usage == TokenParts(41_700, 1_200, 5)
    assert found.reading.models == (
        ("claude-sonnet-4-5", TokenParts(700, 300)),
        ("claude-haiku-4-5", TokenParts(41_000, 900, 5)),
    )
    assert (found.reading.flag, found.model, found.cost_usd) == ("", "", 0.06)
    assert read(found.raw) == found.reading


def test_one_model_in_the_map_is_the_model() -> None:
    stats = {
        "models": {
            "gemini-2.5-flash": {
                "api": {"totalRequests": 1},
                "tokens": VENDORS["Gemini CLI, one model"][0],
            }
        },
        "tools": {"totalCalls": 3},
    }
    found = readings.find({"response": "4", "stats": stats})
    assert (found.model, found.reading.usage) == ("gemini-2.5-flash", TokenParts(500, 40, 400))


def test_a_map_that_says_less_than_the_usage_beside_it_is_flagged() -> None:
    wording = {"usage": {"total_tokens": 100}, "modelUsage": {"m": {"inputTokens": 0}}}
    found = readings.find(wording).reading
    assert found.usage == TokenParts(100)
    assert "less than the usage" in found.flag


# -- where it stands ---------------------------------------------------------------------------


def test_a_whole_object_put_where_its_usage_belongs_is_understood() -> None:
    wording = {"usage": {"usage": {"input_tokens": 5}, "model": "m"}}
    assert readings.find(wording).reading.usage == TokenParts(5)


def test_an_object_that_holds_no_usage_tells_none() -> None:
    for wording in (
        {"answer": 42, "prompt": 7, "total": 3},
        {"stats": {"total": 5, "input": 3}},
        {"message": {"usage": {"input_tokens": 5}}},
        {"result": {"input_tokens": 5}},
    ):
        assert readings.find(wording) == readings.Report()


def test_flat_fields_that_say_they_are_tokens_are_usage() -> None:
    wording = {"agent": "x", "cache_read_input_tokens": 5, "promptTokenCount": 9, "attempt": 1}
    assert readings.find(wording).reading.usage == TokenParts(9, 0, 5)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.dictionaries(st.text(max_size=8), inner, max_size=4) | st.lists(inner, max_size=3)
    ),
    max_leaves=10,
)
_NAMES = st.sampled_from(
    sorted(
        {name for wording, _ in VENDORS.values() for name in wording} | {"modelUsage", "x_tokens"}
    )
)


@given(st.dictionaries(_NAMES | st.text(max_size=8), _VALUES, max_size=8))
def test_anything_can_be_read_and_no_part_is_negative(wording: dict[str, Any]) -> None:
    for found in (read(wording), readings.find(wording).reading):
        if found.usage is not None:
            assert min(found.usage.input_tokens, found.usage.output_tokens) >= 0
            assert min(found.usage.cache_read_tokens, found.usage.cache_write_tokens) >= 0


_FIGURES = st.integers(-1, 10**9) | st.just(TOKENS_MAX + 1) | st.floats() | st.booleans()


@given(st.dictionaries(st.sampled_from(TokenParts.__struct_fields__), _FIGURES, min_size=1))
def test_the_short_way_for_our_own_names_comes_to_the_same_verdict(wording: dict[str, Any]) -> None:
    assert read(wording) == read({**wording, "note": None})


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_total_is_what_counts_whatever_the_parts(a: int, b: int, c: int, total: int) -> None:
    found = read({"input_tokens": a, "output_tokens": b, "cache_read_tokens": c, "total": total})
    assert found.usage is not None
    if found.usage.whole != total:
        assert found.flag
        assert not total or "leaves the cached ones out" in found.flag
    assert bool(found.flag) == (total != a + b + c)


def test_a_document_goes_through_json_unharmed() -> None:
    assert read(json.loads('{"total": 1e3}')).usage == TokenParts(1000)
