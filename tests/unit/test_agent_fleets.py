"""Fleets of agents that name their models: tiers of the routes, models the user gave, and what an
attempt costs that called no model."""

from __future__ import annotations

from typing import Any

import pytest

from events.money import Price
from projections.prices import Quote
from services.client.story import Story
from services.dispatcher.placement import is_cheap
from services.queries.history import denials
from services.screens.history import history_text
from services.worker.drivers.table import AGENTS, agent
from tests.budget.ground import audit_of
from tests.given import Bus


def join(bus: Bus, name: str, worker: str = "w1") -> None:
    table = agent(name)
    bus.join(
        worker, agent=name, models=list(table.models), cheap=table.cheap, capable=table.capable
    )


def placed(bus: Bus) -> tuple[str, str]:
    bus.run()
    dispatched = bus.of("task.dispatched")[-1]
    return dispatched.agent, dispatched.model


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("text", ["Fix the crash in the login handler", "Document the API"])
def test_a_fleet_of_one_agent_takes_every_route_by_its_tier(name: str, text: str) -> None:
    bus = Bus()
    join(bus, name)
    bus.submit(text)
    bus.run()
    route = bus.of("task.delegated")[0]
    table = agent(name)
    tier = table.cheap if is_cheap(route.model) else table.capable
    assert placed(bus) == (name, tier)


def test_the_route_s_own_agent_comes_first() -> None:
    bus = Bus()
    join(bus, "claude", "w1")
    join(bus, "codex", "w2")
    bus.submit("Fix the crash in the login handler", kind="coding")
    assert placed(bus) == ("codex", agent("codex").capable)


@pytest.mark.parametrize(
    ("given", "model"),
    [({"model": "haiku"}, "haiku"), ({"model": "claude-opus-5-5"}, "claude-opus-5-5")],
)
def test_a_model_the_user_gave_is_used_as_it_is(given: dict[str, Any], model: str) -> None:
    bus = Bus()
    join(bus, "codex", "w1")
    join(bus, "claude", "w2")
    bus.submit(**given)
    assert placed(bus) == ("claude", model)


def test_a_model_that_no_worker_takes_is_refused_at_submission() -> None:
    bus = Bus()
    join(bus, "codex")
    bus.submit(model="haiku")
    bus.submit(model="gpt-9", task="known")
    bus.run()
    assert [r.error for r in bus.refused] == [
        "no worker takes the model 'haiku'; they take codex: gpt-6-luna, gpt-6.1-sol, gpt-*, "
        "codex-*, o*-*"
    ]
    assert placed(bus) == ("codex", "gpt-9")


def test_a_model_waits_where_no_worker_says_what_it_takes() -> None:
    bus = Bus()
    bus.submit(model="haiku")  # nobody has joined
    bus.run()
    bus.join("w1", agent="mine", models=["other"])  # it names models, but is no agent with tiers
    bus.submit(model="sonnet")
    bus.run()
    assert bus.refused == []
    assert bus.of("task.dispatched") == []


# -- what an attempt costs ---------------------------------------------------------------------


def running(bus: Bus) -> str:
    bus.join("w1")
    task = bus.submit()
    bus.run()
    bus.report("task.started", task)
    bus.run()
    return task


def test_a_failure_before_any_call_to_a_model_releases_its_hold() -> None:
    bus = Bus()
    task = running(bus)
    bus.report("task.failed", task, error="no key", retryable=False, calls=0)
    bus.run()
    charged = bus.of("task.failed")[0].charged
    assert (charged.tokens, charged.nanos, charged.estimated) == (0, 0, False)
    assert not bus.state.learnt
    audit = audit_of(bus.log)  # which has its worker's word on the log
    assert (audit.findings, audit.checked["holds released"]) == ([], 1)


def test_calls_that_were_paid_for_are_charged_whatever_is_said_of_calls() -> None:
    bus = Bus()
    task = running(bus)
    bus.report("task.failed", task, error="x", calls=0, usage={"input_tokens": 7})
    bus.run()
    assert bus.of("task.failed")[0].charged.tokens == 7


def test_the_models_that_were_used_are_what_is_priced() -> None:
    bus = Bus()
    task = running(bus)
    used = {"inputTokens": 1_000_000, "outputTokens": 0}
    models = {"claude-haiku-5-5": used, "claude-opus-5-5": used}
    usage = {"modelUsage": models}
    bus.inputs.price_lookup = _price
    bus.report("task.completed", task, result="ok", usage=usage, model="claude-opus-5-5")
    bus.run()
    charged = bus.of("task.completed")[0].charged
    assert (charged.model, charged.nanos) == ("claude-opus-5-5", 4_100_000_000)


def _price(model: str) -> Any:
    dollars = {"claude-haiku-5-5": 100_000_000, "claude-opus-5-5": 4_000_000_000}
    return Quote(Price(dollars[model]), "a list") if model in dollars else None


def test_permissions_that_were_refused_are_shown_on_the_task() -> None:
    bus = Bus()
    task = running(bus)
    bus.report("task.failed", task, error="x", denials=2, denied=["Bash", "Write"])
    bus.run()
    bus.wait(60)
    bus.report("task.completed", task, result="ok", denials=1, denied=["Bash"])
    bus.run()
    events = [e for e in bus.events if getattr(e.data, "task", "") == task]
    story = Story(task, events, "completed")
    assert denials(story) == (3, ["Bash", "Write"])
    assert "Refused:    3 permissions: Bash, Write" in history_text(story)
