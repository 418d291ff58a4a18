"""Usage at the intake streams: the same object is the same tokens wherever it is told, and no
figure costs a result."""

from __future__ import annotations

from typing import Any

import pytest

from events.task import Booking
from tests.examples import limit, policy
from tests.given import Bus

INCLUSIVE = {
    "input_tokens": 9_013,
    "cache_read_input_tokens": 8_000,
    "cache_creation_input_tokens": 1_000,
    "output_tokens": 20,
    "total_tokens": 9_033,
}


def running(**changes: Any) -> tuple[Bus, str]:
    bus = Bus(policy(limit("global", "tokens", "day", 10**9)))
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_000, model="sonnet", **changes)
    bus.run()
    bus.report("task.started", task)
    return bus, task


def completed(**told: Any) -> Booking:
    """What a report of this end is booked at."""
    bus, task = running()
    bus.report("task.completed", task, result="the work", **told)
    bus.run()
    assert not bus.refused
    return bus.of("task.completed")[0].booked


def parts(booked: Booking) -> tuple[int, int, int, int]:
    return (
        booked.input_tokens,
        booked.output_tokens,
        booked.cache_read_tokens,
        booked.cache_write_tokens,
    )


def test_an_object_is_the_same_tokens_through_a_report_a_record_and_a_document() -> None:
    bus = Bus(policy())
    bus.send("usage.recorded", agent="a", usage=INCLUSIVE)
    flat: dict[str, Any] = {"agent": "b", **INCLUSIVE}
    bus.send("usage.recorded", **flat)
    bus.send("progress.updated", agent="c", task="t", document={"tokens_used": INCLUSIVE})
    bus.run()
    records, [document] = bus.of("usage.recorded"), bus.of("progress.updated")
    booked = [*(d.booked for d in records), document.booked, completed(usage=INCLUSIVE)]
    assert [parts(b) for b in booked] == [(13, 20, 8_000, 1_000)] * 4
    flags = [*(d.booked.flag for d in records), document.flag, booked[-1].flag]
    assert all("the input holds the cached ones" in flag for flag in flags)


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": "12.5K"}, {"total_tokens": 1.5}, {"output_tokens": -1}, "1.500", [], "{"],
)
def test_an_unreadable_figure_costs_no_result_and_is_an_estimate_with_a_flag(usage: Any) -> None:
    booked = completed(usage=usage)
    assert (booked.tokens, booked.estimated) == (1_000, True)
    assert booked.flag


def test_a_float_without_a_fraction_is_a_count() -> None:
    booked = completed(usage={"input_tokens": 1000.0, "output_tokens": 2})
    assert (parts(booked), booked.estimated, booked.flag) == ((1_000, 2, 0, 0), False, "")


def test_an_impossible_cost_costs_no_result_either() -> None:
    for cost in ("much", -1, 10**9, True, [1]):
        booked = completed(usage={"input_tokens": 5}, cost_usd=cost)
        assert (booked.tokens, booked.flag) == (5, "cost_usd: not an amount of dollars")


def test_padded_and_grouped_figures_in_flat_fields_are_whole() -> None:
    bus = Bus(policy())
    for figure in ("               1500000", "1,500,000", "1500000.0"):
        bus.put([b"type", b"usage.recorded", b"agent", b"x", b"input_tokens", figure.encode()])
    bus.run()
    assert [d.booked.input_tokens for d in bus.of("usage.recorded")] == [1_500_000] * 3


def test_a_record_whose_figures_cannot_be_read_is_refused_with_the_name_of_the_figure() -> None:
    bus = Bus(policy())
    bus.put([b"type", b"usage.recorded", b"agent", b"x", b"total_tokens", b"12.5K"])
    bus.run()
    [refused] = bus.refused
    assert refused.error == "total_tokens: not a whole number of tokens"


def test_vendors_names_in_flat_fields_are_understood() -> None:
    bus = Bus(policy())
    flat = "type usage.recorded agent x input_tokens 7 cache_read_input_tokens 40 output_tokens 2"
    bus.put([word.encode() for word in flat.split()])
    bus.run()
    assert parts(bus.of("usage.recorded")[0].booked) == (7, 2, 40, 0)


def test_what_a_result_says_is_no_usage() -> None:
    for result in ('{"usage": {"input_tokens": 5}}', {"usage": {"input_tokens": 5}}):
        bus, task = running()
        bus.report("task.completed", task, result=result, error="input_tokens 5")
        bus.run()
        booked = bus.of("task.completed")[0].booked
        assert (booked.tokens, booked.estimated) == (1_000, True)
