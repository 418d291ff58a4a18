"""What is reported beyond the plausibility bound is disputed, until an operator corrects it."""

from __future__ import annotations

from typing import Any

import pytest

from events.money import NANOS_PER_DOLLAR
from events.policy import PolicyChanged
from projections import charges, usage
from services.audit.check import Audit
from services.queries.conservation import books
from tests.examples import policy
from tests.given import Bus, replayed

BOUND, MONEY = 2_000_000, 20 * NANOS_PER_DOLLAR
HUGE = 5_000_000_000
HOUR = 3_600


def started(first: PolicyChanged | None = None, **data: Any) -> tuple[Bus, str]:
    """A bus with one task that runs on w1."""
    bus = Bus(first or policy())
    bus.join("w1")
    task = bus.submit(model="sonnet", **data)
    bus.run()
    bus.report("task.started", task)
    bus.run()
    return bus, task


def charged(bus: Bus) -> tuple[int, int]:
    """Counted tokens and nano-dollars of all time, the same in windows and in totals."""
    total = usage.total(bus.state.lifetime.values())
    hours = bus.state.scopes["global"].hours.values() if bus.state.scopes else ()
    assert (total.tokens, total.nanos) == (
        sum(b.tokens for b in hours),
        sum(b.nanos for b in hours),
    )
    return total.tokens, total.nanos


def disputed(bus: Bus) -> tuple[int, int]:
    total = usage.total(bus.state.lifetime.values())
    return total.disputed_tokens, total.disputed_nanos


def sound(bus: Bus) -> None:
    """The audit agrees, every sum is the same on all sides, and a replay comes to the same."""
    audit = Audit()
    for entry in bus.log:
        audit.feed(entry)
    assert audit.findings == []
    assert [row for row in books(audit, bus.state) if not row.good] == []
    assert replayed(bus.log).digest() == bus.state.digest()


def implausible_end() -> tuple[Bus, str]:
    bus, task = started()
    bus.report("task.completed", task, usage={"input_tokens": HUGE, "output_tokens": 500})
    bus.run()
    return bus, task


def correct(bus: Bus, task: str, attempt: int = 1, **how: Any) -> list[str]:
    """Send a correction; what the intake refused."""
    before = len(bus.refused)
    bus.send("usage.corrected", task=task, attempt=attempt, **{"reason": "a slip", **how})
    bus.run()
    return [refused.error for refused in bus.refused[before:]]


# -- the bound -----------------------------------------------------------------------------------


def test_an_end_beyond_the_bound_charges_the_bound_and_the_rest_is_disputed() -> None:
    bus, task = implausible_end()
    reported = HUGE + 500
    assert charged(bus) == (BOUND, MONEY)
    assert disputed(bus) == (reported - BOUND, 9_000 * reported - MONEY)
    charge = bus.state.disputes[charges.key_of(task, 1)]
    assert (charge.tokens, charge.disputed_tokens) == (BOUND, reported - BOUND)
    sound(bus)


def test_an_end_at_the_bound_is_not_disputed() -> None:
    bus, task = started()
    bus.report("task.completed", task, usage={"input_tokens": BOUND})
    bus.run()
    assert (charged(bus)[0], disputed(bus)) == (BOUND, (0, 0))
    sound(bus)


def test_a_running_meter_is_held_to_the_bound_of_its_attempt_however_often_it_tells() -> None:
    bus, task = started()
    for tokens in (1_500_000, 1_900_000, HUGE, HUGE, HUGE + 7):
        bus.report("usage.recorded", task, agent="codex", input_tokens=tokens)
        bus.run()
    assert charged(bus)[0] == BOUND
    assert disputed(bus)[0] == HUGE + 7 - BOUND
    sound(bus)


def test_progress_documents_are_held_to_the_bound_and_repeats_add_nothing() -> None:
    bus, task = started()
    for percent in (10, 20, 30):
        bus.send(
            "progress.updated",
            agent="w1",
            task=task,
            document={"tokens_used": HUGE, "percent": percent},
        )
        bus.run()
    assert (charged(bus)[0], disputed(bus)[0]) == (BOUND, HUGE - BOUND)
    bus.report("task.completed", task)
    bus.run()
    bus.send("progress.updated", agent="w1", task=task, document={"tokens_used": HUGE, "note": 1})
    bus.run()
    assert (charged(bus)[0], disputed(bus)[0]) == (BOUND, HUGE - BOUND)
    sound(bus)


def test_the_last_word_of_the_driver_ends_a_dispute_that_a_worse_meter_began() -> None:
    bus, task = started()
    bus.report("usage.recorded", task, agent="codex", input_tokens=HUGE)
    bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 3_000})
    bus.run()
    assert disputed(bus) == (0, 0)
    assert bus.state.disputes == {}
    sound(bus)


def test_late_usage_is_held_to_the_bound() -> None:
    bus, task = started()
    bus.report("task.completed", task)
    bus.run()
    bus.send("usage.recorded", agent="codex", task=task, attempt=1, input_tokens=HUGE)
    bus.run()
    assert (charged(bus)[0], disputed(bus)[0]) == (BOUND, HUGE - BOUND)
    sound(bus)


def test_each_foreign_report_is_held_to_the_bound() -> None:
    bus = Bus(policy())
    for _ in range(2):
        bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=HUGE)
        bus.run()
    assert charged(bus)[0] == 2 * BOUND
    assert len(bus.state.disputes) == 2
    report = min(bus.state.disputes)
    assert correct(bus, report, attempt=0, tokens=10) == []
    assert charged(bus)[0] == BOUND + 10
    assert len(bus.state.disputes) == 1
    sound(bus)


def test_a_users_own_estimate_lifts_the_bound() -> None:
    bus, task = started(estimate_tokens=3_000_000)
    bus.report("task.completed", task, usage={"input_tokens": HUGE})
    bus.run()
    assert charged(bus)[0] == 3_000_000
    sound(bus)


def test_the_bound_is_policy() -> None:
    bus, task = started(policy(plausible_tokens=500))
    bus.send("policy.changed", plausible_tokens=700, plausible_nanos=1_000_000)
    bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 5_000})
    bus.run()
    assert charged(bus) == (700, 1_000_000)
    sound(bus)


# -- corrections ---------------------------------------------------------------------------------


def test_accept_charges_the_rest_and_drop_leaves_the_bound() -> None:
    for how, expected in (("accept", HUGE + 500), ("drop", BOUND)):
        bus, task = implausible_end()
        bus.wait(2 * HOUR)
        assert correct(bus, task, **{how: True}) == []
        assert charged(bus)[0] == expected
        assert (disputed(bus), bus.state.disputes) == ((0, 0), {})
        assert len(bus.state.scopes["global"].hours) == 1, "the hour of the charge was corrected"
        sound(bus)


def test_another_figure_takes_the_place_of_the_reported_one_with_its_share_of_the_money() -> None:
    bus, task = implausible_end()
    bus.wait(2 * HOUR)
    assert correct(bus, task, tokens=10_000) == []
    assert charged(bus) == (10_000, 90_000_000)
    assert disputed(bus) == (0, 0)
    cell = usage.total(bus.state.lifetime.values())
    assert cell.input_tokens + cell.output_tokens == 10_000
    sound(bus)


@pytest.mark.parametrize("tokens", [0, 1, 999, 50_000])
def test_any_ended_attempt_can_be_corrected_up_and_down_and_again(tokens: int) -> None:
    bus, task = started()
    bus.report("task.completed", task, usage={"input_tokens": 700, "output_tokens": 300})
    bus.run()
    for figure in (tokens, 40, tokens):
        bus.wait(HOUR)
        assert correct(bus, task, tokens=figure) == []
        assert charged(bus)[0] == figure
        sound(bus)
    assert bus.state.outcomes[task].tokens == tokens


def test_the_outcome_of_a_task_says_all_of_an_attempt_that_was_charged_at_its_end() -> None:
    bus, task = started()
    bus.report("task.completed", task, usage={"input_tokens": 700, "output_tokens": 300})
    bus.run()
    assert bus.state.outcomes[task].past == ()
    charge = charges.of_attempt(bus.state, task, 1)
    assert charge is not None
    assert (charge.parts, charge.tokens, charge.worker) == ((700, 300, 0, 0), 1000, "w1")


def test_money_can_be_named_beside_the_tokens() -> None:
    bus, task = implausible_end()
    assert correct(bus, task, tokens=10, cost_usd="0.50") == []
    assert charged(bus) == (10, NANOS_PER_DOLLAR // 2)
    sound(bus)


def test_an_estimate_that_is_corrected_is_estimated_no_more() -> None:
    bus, task = started()
    bus.report("task.completed", task)
    bus.run()
    assert correct(bus, task, tokens=5) == []
    assert usage.total(bus.state.lifetime.values()).estimated_tokens == 0
    assert charged(bus)[0] == 5
    bus.send("usage.recorded", agent="codex", task=task, attempt=1, input_tokens=900)
    bus.run()
    assert charged(bus)[0] == 5, "an operator's word stands"
    sound(bus)


def test_what_was_charged_in_several_hours_is_given_back_in_these_the_newest_first() -> None:
    bus, task = started(timeout_s=20 * HOUR)
    for tokens in (1_000, 3_000, 6_000):
        bus.report("usage.recorded", task, agent="codex", input_tokens=tokens)
        bus.run()
        bus.wait(HOUR)
    bus.report("task.completed", task, usage={"input_tokens": 10_000})
    bus.run()
    hours = bus.state.scopes["global"].hours
    assert [hours[i].tokens for i in sorted(hours)] == [1_000, 2_000, 3_000, 4_000]
    assert correct(bus, task, tokens=2_500) == []
    assert [hours[i].tokens for i in sorted(hours)] == [1_000, 1_500, 0, 0]
    assert [hours[i].nanos for i in sorted(hours)] == [9_000_000, 13_500_000, 0, 0]
    sound(bus)


def test_an_earlier_attempt_is_corrected_by_its_number() -> None:
    bus, task = started()
    bus.report("task.failed", task, usage={"input_tokens": HUGE}, error="no luck")
    bus.run()
    bus.wait(10)
    bus.report("task.started", task)
    bus.report("task.completed", task, usage={"input_tokens": 100})
    bus.run()
    assert correct(bus, task, 1, tokens=20) == []
    assert correct(bus, task, 2, tokens=30) == []
    assert charged(bus)[0] == 50
    sound(bus)


def test_an_attempt_stays_its_workers_when_the_task_is_cancelled_in_the_same_moment() -> None:
    """Corrected after its worker was lost, cancelled in the queue at the very microsecond of that
    end, corrected again: what is taken back is taken from the worker that was charged."""
    bus = Bus(policy())
    bus.join("w1")
    task = bus.submit(model="sonnet")
    bus.run()
    bus.silent.add("w1")
    bus.wait(61)
    assert correct(bus, task, tokens=1) == []
    bus.send("task.cancel_requested", task=task)
    bus.run()
    assert correct(bus, task, tokens=0) == []
    assert {cell.tokens for cell in bus.state.lifetime.values()} == {0}
    sound(bus)


def test_a_running_attempt_is_not_corrected() -> None:
    bus, task = started()
    assert "still runs" in correct(bus, task, tokens=1)[0]


def test_only_the_shared_stream_takes_corrections() -> None:
    bus, task = implausible_end()
    bus.send("intake.opened", name="w1")
    bus.run()
    bus.send("usage.corrected", intake="asb:intake:w1", task=task, attempt=1, drop=True, reason="x")
    bus.run()
    assert "shared intake only" in bus.refused[-1].error
    assert disputed(bus)[0] > 0


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"tokens": 1, "drop": True}, "exactly one"),
        ({}, "exactly one"),
        ({"tokens": 1, "reason": " "}, "reason"),
        ({"tokens": -1}, "whole number"),
        ({"tokens": "1.000"}, "whole number"),
        ({"tokens": 1, "cost_usd": "1e99999999"}, "cost_usd"),
        ({"cost_usd": 1, "drop": True}, "goes with tokens"),
        ({"tokens": 1, "attempt": 7}, "unknown"),
        ({"tokens": 1, "attempt": 0}, "no disputed report"),
        ({"tokens": 1, "task": "nope"}, "unknown"),
        ({"tokens": 1, "tokenz": 1}, "unknown field"),
    ],
)
def test_a_correction_that_is_not_clear_is_rejected(how: dict[str, Any], why: str) -> None:
    bus, task = implausible_end()
    before = bus.state.digest()
    order: dict[str, Any] = {"task": task, "attempt": 1, "reason": "a slip", **how}
    bus.send("usage.corrected", **order)
    bus.run()
    assert why in bus.refused[-1].error
    assert bus.state.digest() == before


def test_what_is_not_disputed_is_neither_accepted_nor_dropped() -> None:
    bus, task = started()
    bus.report("task.completed", task, usage={"input_tokens": 10})
    bus.run()
    assert "is disputed" in correct(bus, task, accept=True)[0]


def test_nothing_is_learnt_from_what_is_disputed() -> None:
    bus, _ = implausible_end()
    assert bus.state.learnt == {}
