"""Money is exact (T29, T32, T35): nano-dollars, each part rounded half up, once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.money import (
    NANOS_PER_DOLLAR,
    Price,
    cost_nanos,
    dollars,
    exact,
    hold_nanos,
    nanos_of,
)
from events.tokens import TokenParts
from tests.examples import OPUS

tokens = st.integers(0, 10**12)
prices = st.integers(0, 10**12)


@given(st.tuples(tokens, tokens, tokens, tokens), st.tuples(prices, prices, prices, prices))
def test_each_part_is_rounded_half_up_once(
    parts: tuple[int, int, int, int], price: tuple[int, int, int, int]
) -> None:
    fractions = [Fraction(n * p, 1_000_000) for n, p in zip(parts, price, strict=True)]
    rounded = sum((2 * x.numerator + x.denominator) // (2 * x.denominator) for x in fractions)
    usage = TokenParts(parts[0], parts[1], parts[2], parts[3])
    assert cost_nanos(usage, Price(price[0], price[1], price[2], price[3])) == rounded


@pytest.mark.parametrize(
    ("amount", "price", "nanos"),
    [(1, 499_999, 0), (1, 500_000, 1), (1, 1_499_999, 1), (3, 500_000, 2), (0, 10**12, 0)],
)
def test_half_a_nano_dollar_is_a_whole_one(amount: int, price: int, nanos: int) -> None:
    assert cost_nanos(TokenParts(input_tokens=amount), Price(input=price)) == nanos


def test_two_halves_are_two_whole_ones() -> None:
    """Rounded per part and not in sum."""
    half = Price(input=500_000, output=500_000)
    assert cost_nanos(TokenParts(1, 1), half) == 2


def test_a_flat_price_is_per_counted_token() -> None:
    flat = Price.flat_per_1k("0.009")
    usage = TokenParts(input_tokens=600, output_tokens=300, cache_read_tokens=10_000)
    assert usage.counted() == 900
    assert cost_nanos(usage, flat) == 8_100_000
    assert cost_nanos(usage, flat, cache_read_weight_percent=10) == 17_100_000


def test_the_seeds_prices_come_out() -> None:
    assert dollars(cost_nanos(TokenParts(100_000), Price.flat_per_1k("0.009"))) == "$0.9000"
    assert (
        dollars(cost_nanos(TokenParts(100_000), Price.flat_per_1k(Decimal("0.001")))) == "$0.1000"
    )


def test_a_full_model_name_is_priced_by_part() -> None:
    usage = TokenParts(1_000, 2_000, 30_000, 400)
    assert cost_nanos(usage, OPUS) == 5_000_000 + 50_000_000 + 15_000_000 + 2_500_000


def test_cache_writes_count_and_cache_reads_by_their_weight() -> None:
    usage = TokenParts(1, 2, 1_000, 4)
    assert usage.counted() == 7
    assert usage.counted(100) == 1_007
    assert usage.counted(1) == 17


def test_a_hold_is_priced_at_the_dearest_part() -> None:
    assert hold_nanos(1_000, OPUS) == 25_000_000
    assert hold_nanos(1_000, Price()) == 0


@pytest.mark.parametrize(
    ("reported", "nanos"),
    [
        ("0.009", 9_000_000),
        (0.1, 100_000_000),
        (0.1 + 0.2, 300_000_000),
        (5, 5_000_000_000),
        (Decimal("1.0000000005"), 1_000_000_001),
        (Decimal("1.00000000049"), 1_000_000_000),
        ("1e3", 1_000_000_000_000),
        ("-2.5", -2_500_000_000),
        (True, 1_000_000_000),
    ],
)
def test_dollars_become_nano_dollars_half_up(reported: Any, nanos: int) -> None:
    if reported is True:
        with pytest.raises(ValueError, match="True"):
            nanos_of(reported)
    else:
        assert nanos_of(reported) == nanos


@pytest.mark.parametrize(
    "reported", ["", "a lot", "nan", "inf", float("nan"), float("-inf"), "1e999999"]
)
def test_what_is_no_amount_is_refused(reported: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        nanos_of(reported)


def test_ten_million_nano_dollars_are_a_cent() -> None:
    """T35: adding is exact."""
    assert dollars(sum(1 for _ in range(10_000_000)), 2) == "$0.01"
    assert sum(nanos_of("0.1") for _ in range(10)) == NANOS_PER_DOLLAR


@pytest.mark.parametrize(
    ("nanos", "places", "text"),
    [
        (0, 4, "$0.0000"),
        (50_000, 4, "$0.0001"),
        (49_999, 4, "$0.0000"),
        (123_456_789, 4, "$0.1235"),
        (5_000_000, 2, "$0.01"),
        (4_999_999, 2, "$0.00"),
        (999_999_999, 2, "$1.00"),
        (1_234_567_890_000_000, 2, "$1,234,567.89"),
        (-1_500_000_000, 2, "-$1.50"),
    ],
)
def test_amounts_read_as_dollars(nanos: int, places: int, text: str) -> None:
    assert dollars(nanos, places) == text


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("100000000.000000001", 100_000_000_000_000_001), ("1E+3", 10**12), ("0E+999", 0)],
)
def test_an_amount_that_was_set_holds_exactly(text: str, nanos: int) -> None:
    assert exact(Decimal(text)) == nanos


@pytest.mark.parametrize("text", ["-1", "NaN", "Infinity", "1e18", "1e-10", "1e-99999999"])
def test_an_amount_that_cannot_hold_exactly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        exact(Decimal(text))


def test_a_cache_part_without_a_price_costs_what_fresh_input_does() -> None:
    price = Price.typed(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"))
    assert price == Price(3 * 10**9, 15 * 10**9, 3 * 10**8, 3 * 10**9)
