"""Usage at the intake streams: the same object is the same tokens wherever it is told, and no
figure costs a result."""

from __future__ import annotations

from typing import Any

import pytest

from events.task import Charge
from projections import flags
from projections.state import decode_state
from services.client.story import Story
from services.queries.describe import describe
from services.queries.doctor.checks import usage_row
from services.queries.status import metrics_view
from services.screens.history import history_text
from services.screens.status import metrics_screen
from tests.examples import DAY, limit, policy
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


def completed(**reported: Any) -> Charge:
    """What a report of this end is charged at."""
    bus, task = running()
    bus.report("task.completed", task, result="the work", **reported)
    bus.run()
    assert not bus.refused
    return bus.of("task.completed")[0].charged


def parts(charged: Charge) -> tuple[int, int, int, int]:
    return (
        charged.input_tokens,
        charged.output_tokens,
        charged.cache_read_tokens,
        charged.cache_write_tokens,
    )


def test_an_object_is_the_same_tokens_through_a_report_a_record_and_a_document() -> None:
    bus = Bus(policy())
    bus.send("usage.recorded", agent="a", usage=INCLUSIVE)
    flat: dict[str, Any] = {"agent": "b", **INCLUSIVE}
    bus.send("usage.recorded", **flat)
    bus.send("progress.updated", agent="c", task="t", document={"tokens_used": INCLUSIVE})
    bus.run()
    records, [document] = bus.of("usage.recorded"), bus.of("progress.updated")
    charged = [*(d.charged for d in records), document.charged, completed(usage=INCLUSIVE)]
    assert [parts(b) for b in charged] == [(13, 20, 8_000, 1_000)] * 4
    flags = [*(d.charged.flag for d in records), document.flag, charged[-1].flag]
    assert all("the input holds the cached ones" in flag for flag in flags)


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": "12.5K"}, {"total_tokens": 1.5}, {"output_tokens": -1}, "1.500", [], "{"],
)
def test_an_unreadable_figure_costs_no_result_and_is_an_estimate_with_a_flag(usage: Any) -> None:
    charged = completed(usage=usage)
    assert (charged.tokens, charged.estimated) == (1_000, True)
    assert charged.flag


def test_a_float_without_a_fraction_is_a_count() -> None:
    charged = completed(usage={"input_tokens": 1000.0, "output_tokens": 2})
    assert (parts(charged), charged.estimated, charged.flag) == ((1_000, 2, 0, 0), False, "")


def test_an_impossible_cost_costs_no_result_either() -> None:
    for cost in ("much", -1, 10**9, True, [1]):
        charged = completed(usage={"input_tokens": 5}, cost_usd=cost)
        assert (charged.tokens, charged.flag) == (5, "cost_usd: not an amount of dollars")


def test_padded_and_grouped_figures_in_flat_fields_are_whole() -> None:
    bus = Bus(policy())
    for figure in ("               1500000", "1,500,000", "1500000.0"):
        bus.put([b"type", b"usage.recorded", b"agent", b"x", b"input_tokens", figure.encode()])
    bus.run()
    assert [d.charged.input_tokens for d in bus.of("usage.recorded")] == [1_500_000] * 3


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
    assert parts(bus.of("usage.recorded")[0].charged) == (7, 2, 40, 0)


# -- flags ---------------------------------------------------------------------------------------


def flagged() -> Bus:
    """A bus on which one document cannot be read, and one report contradicts itself."""
    bus = Bus(policy())
    document = {"tokens_used": {"total": "12.5K"}}
    bus.send("progress.updated", agent="probe", task="T", document=document)
    bus.run()
    bus.now += 1_000_000
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 20}
    bus.send("usage.recorded", agent="otel", usage=usage)
    bus.send("usage.recorded", agent="otel", input_tokens=5)
    bus.run()
    return bus


def test_flags_are_counted_by_agent_with_the_last_of_them() -> None:
    state = flagged().state
    assert {a: (f.count, f.flag) for a, f in state.flags.items()} == {
        "probe": (1, "total: not a whole number of tokens"),
        "otel": (1, "total 20 against parts of 12: the total counts"),
    }
    again = decode_state(state.encode())
    assert again is not None
    assert again.flags == state.flags


def test_doctor_metrics_and_the_log_show_what_is_flagged() -> None:
    bus = flagged()
    name, value, verdict, hint = usage_row(bus.state, bus.now)
    assert (name, verdict) == ("usage", "warn")
    assert "told by otel, probe" in value
    assert "total 20 against parts of 12" in value
    assert "flagged" in hint
    assert usage_row(bus.state, bus.now + DAY)[2] == "ok"
    assert "Unreadable: 2 reports of" in metrics_screen(bus.state)
    assert set(metrics_view(bus.state, bus.now)["flags"]) == {"otel", "probe"}
    lines = [describe(event) for event in bus.events]
    assert "probe T · flagged: total: not a whole number of tokens" in lines
    assert any("· flagged: total 20 against parts of 12" in line for line in lines)


def test_a_bus_without_flags_says_so() -> None:
    bus = Bus(policy())
    bus.send("usage.recorded", agent="otel", input_tokens=5)
    bus.run()
    assert usage_row(bus.state, bus.now)[2] == "ok"
    assert "Unreadable" not in metrics_screen(bus.state)


def test_agents_beyond_a_thousand_share_one_record_of_flags() -> None:
    bus = Bus(policy())
    for n in range(1_005):
        flags.add(bus.state, f"a{n}", bus.now, "odd")
    assert len(bus.state.flags) == flags.AGENTS_MAX + 1
    assert bus.state.flags[flags.OTHERS].count == 5


# -- the models that were really used ------------------------------------------------------------

BY_MODEL = {
    "usage": {"input_tokens": 1_000},
    "modelUsage": {"opus-full": {"inputTokens": 1_000}, "local": {"outputTokens": 90_000}},
}


def test_each_model_is_priced_as_what_it_is() -> None:
    charged = completed(usage=BY_MODEL, cost_usd=0.11)
    assert parts(charged) == (1_000, 90_000, 0, 0)
    assert (charged.nanos, charged.model, charged.unpriced) == (5_000_000, "sonnet", False)


def test_a_model_nobody_knows_among_them_makes_the_agents_own_figure_count() -> None:
    usage = {"modelUsage": {"nobody": {"inputTokens": 9}, "local": {"outputTokens": 1}}}
    charged = completed(usage=usage, cost_usd="0.11")
    assert (charged.nanos, charged.price, charged.unpriced) == (110_000_000, "agent", False)


def test_the_agents_own_cost_stands_beside_ours() -> None:
    bus, task = running()
    bus.report("task.completed", task, usage=BY_MODEL, cost_usd=0.11)
    bus.run()
    shown = history_text(
        Story(task, [e for e in bus.events if getattr(e.data, "task", "") == task], "completed")
    )
    assert "$0.0050 (its own figure: $0.1100)" in shown


def test_what_a_result_says_is_no_usage() -> None:
    for result in ('{"usage": {"input_tokens": 5}}', {"usage": {"input_tokens": 5}}):
        bus, task = running()
        bus.report("task.completed", task, result=result, error="input_tokens 5")
        bus.run()
        charged = bus.of("task.completed")[0].charged
        assert (charged.tokens, charged.estimated) == (1_000, True)
