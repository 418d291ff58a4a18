"""Numbers from people: what is clear is read, what can be read in two ways is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from events import amounts
from services.runtime import initial_policy
from services.runtime.errors import ConfigError
from services.runtime.settings import load

COUNTS = {
    "0": 0,
    "500": 500,
    "500K": 500_000,
    "500 k": 500_000,
    "5M": 5_000_000,
    "1.5M": 1_500_000,
    "1B": 10**9,
    "1,500": 1_500,
    "12,345,678": 12_345_678,
    "1_000_000": 1_000_000,
}
DOLLARS = {
    "5": "5",
    "$5": "5",
    "$ 4.50": "4.50",
    "0.125": "0.125",
    "0.000250": "0.000250",
    "1,234.50": "1234.50",
    "$1.5K": "1500.0",
    "1234.567": "1234.567",
}
UNCLEAR = (
    "1.000", "$1.500", "1.250K", "1,5", "1,50", "1.234,50", "12,34", "1,2345", "1,000,00", "1_0"
)  # fmt: skip
NONSENSE = ("", "K", "five", "-5", "+5", "1e6", "0x10", "NaN", "inf", ".5", "5.", "1 000", "٣", "5%", "9" * 19)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(("text", "amount"), COUNTS.items())
def test_a_clear_count_is_read(text: str, amount: int) -> None:
    assert amounts.count(text) == amount


@pytest.mark.parametrize(("text", "amount"), DOLLARS.items())
def test_clear_money_is_read_exactly(text: str, amount: str) -> None:
    assert amounts.dollars(text) == Decimal(amount)


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    for read in (amounts.count, amounts.dollars):
        with pytest.raises(ValueError, match=r"two ways|is no number"):
            read(text)


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_number_is_refused(text: str) -> None:
    for read in (amounts.count, amounts.dollars):
        with pytest.raises(ValueError, match=r"is no number|more than 18 digits"):
            read(text)


@pytest.mark.parametrize("text", ["0.5", "1.5", "1.2345K", "$5"])
def test_a_count_is_whole_and_no_money(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        amounts.count(text)


def test_percent_is_whole() -> None:
    assert [amounts.percent(text) for text in ("80", "80%", " 80 %")] == [80] * 3
    for text in ("80,5", "12.5%", "0.8", "-1", "%"):
        with pytest.raises(ValueError, match="percent"):
            amounts.percent(text)


def test_settings_read_the_same_texts(tmp_path: Path) -> None:
    file = tmp_path / "asb.toml"
    file.write_text(
        'policy.plausible_tokens = "3M"\npolicy.plausible_dollars = "$4.50"\n'
        'policy.limits = [{scope = "global", unit = "tokens", window = "day", amount = "500K"}]\n'
    )
    policy = initial_policy.policy(load({"config": str(file)}, environ={}, cwd=tmp_path))
    assert (policy.plausible_tokens, policy.plausible_nanos) == (3_000_000, 4_500_000_000)
    assert policy.limits[0].amount == 500_000


@pytest.mark.parametrize("text", ['"1.000"', '"1,5"', "-1", "0", '"0"'])
def test_a_setting_that_is_unclear_or_out_of_range_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "asb.toml"
    file.write_text(f"[policy]\nplausible_tokens = {text}\n")
    with pytest.raises(ConfigError, match=r"policy\.plausible_tokens"):
        load({"config": str(file)}, environ={}, cwd=tmp_path)


@pytest.mark.parametrize("value", ["0", "-1", "1000001", "1,5"])
def test_implausible_dollars_of_a_setting_are_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="plausible_dollars"):
        load(environ={"ASB_POLICY_PLAUSIBLE_DOLLARS": value, "HOME": str(tmp_path)}, cwd=tmp_path)
