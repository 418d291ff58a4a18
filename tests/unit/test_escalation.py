"""Routes that learn from success: figures by kind and model, and a last try on a capable model."""

from __future__ import annotations

from typing import Any

import pytest

from projections.records import Routed
from services.decider import Defaults
from tests.examples import policy
from tests.given import Bus


def bus(escalate_to: str = "sonnet", **task: Any) -> tuple[Bus, str]:
    """A bus with a worker that serves all, and a task that ran on haiku and is about to fail."""
    made = Bus(policy())
    made.inputs.defaults = Defaults(escalate_to=escalate_to, backoff_s=1)
    made.join("w1")
    found = made.submit("Write a tutorial for newcomers", max_attempts=1, **task)
    made.run()
    return made, found


def fail(made: Bus, task: str, **more: Any) -> None:
    made.report("task.failed", task, error="too hard", usage={"total_tokens": 10}, **more)
    made.run()
    made.wait(5)


def test_a_task_that_failed_on_the_cheap_model_is_tried_once_on_the_capable_one() -> None:
    made, task = bus()
    assert made.of("task.dispatched")[-1].model == "haiku"
    fail(made, task)
    escalated = made.of("task.escalated")
    assert [(e.task, e.model) for e in escalated] == [(task, "sonnet")]
    assert "haiku" in escalated[0].reason
    assert made.of("task.dispatched")[-1].model == "sonnet"
    fail(made, task)
    assert made.state.outcomes[task].status == "failed"
    assert len(made.of("task.escalated")) == 1


@pytest.mark.parametrize(
    ("escalate_to", "task", "report"),
    [
        ("", {}, {}),
        ("sonnet", {"model": "haiku"}, {}),
        ("sonnet", {"kind": "analysis"}, {}),
        ("sonnet", {}, {"retryable": False}),
        ("nobody-knows", {}, {}),
    ],
    ids=["off", "the user named the model", "it ran on it", "no retry helps", "unknown price"],
)
def test_what_does_not_escalate(
    escalate_to: str, task: dict[str, Any], report: dict[str, Any]
) -> None:
    made, name = bus(escalate_to, **task)
    fail(made, name, **report)
    assert made.of("task.escalated") == []
    assert made.state.outcomes[name].status == "failed"


def test_how_routes_fare_is_folded() -> None:
    made, task = bus()
    fail(made, task)
    made.report("task.completed", task, usage={"total_tokens": 30})
    made.run()
    cheap = made.state.routed["documentation|haiku"]
    assert (cheap.attempts, cheap.completed, cheap.escalated, cheap.lost) == (1, 0, 1, 0)
    assert cheap.tokens == 10
    capable = made.state.routed["documentation|sonnet"]
    assert (capable.attempts, capable.completed, capable.rescued, capable.tokens) == (1, 1, 1, 30)
    assert capable.micros >= 0
    assert isinstance(capable, Routed)


def test_a_task_that_failed_for_good_is_counted_as_lost() -> None:
    made, task = bus("")
    fail(made, task)
    assert made.state.routed["documentation|haiku"].lost == 1
