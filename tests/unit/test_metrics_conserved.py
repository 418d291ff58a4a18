"""The check of ``asb doctor --deep`` that holds a page of metrics against the log: it agrees with a
true page, and finds each kind of falsehood."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from events.policy import Limit, PolicyChanged
from services.audit.check import Audit
from services.exporter import figures
from services.exporter.service import exposed
from services.queries.metrics import Served, compared
from tests.given import Bus


def worked() -> Bus:
    """A bus on which one task was done, one runs, and one was used elsewhere."""
    bus = Bus(PolicyChanged(limits=(Limit("global", "tokens", "hour", 1_000_000),)))
    bus.join(capacity=2)
    done, _ = bus.submit("Write a page"), bus.submit("Write more")
    bus.run()
    bus.report("task.completed", done, usage={"input_tokens": 70, "output_tokens": 7})
    bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=11, output_tokens=2)
    bus.run()
    return bus


def page(bus: Bus) -> str:
    class Page(Collector):
        def collect(self):  # pyright: ignore
            samples = figures.samples(bus.state, bus.state.meta.at, figures.Pairs())
            return list(exposed(samples))

    registry = CollectorRegistry()
    registry.register(Page())
    return generate_latest(registry).decode()


def audit(bus: Bus) -> Audit:
    made = Audit()
    for entry in bus.log:
        made.feed(entry)
    return made


def test_a_true_page_agrees_with_the_log() -> None:
    bus = worked()
    row = compared(Served(page(bus)), audit(bus), "here")
    assert row.good, row.value
    assert "90 tokens" in row.value


@pytest.mark.parametrize(
    ("series", "named"),
    [
        ('asb_counted_tokens_total{agent="codex"', "codex"),
        ("asb_cost_dollars_total{", "the total"),
        ('asb_tasks_ended_total{outcome="completed"}', "tasks completed"),
        ("asb_holds ", "holds"),
        ("asb_budget_used{", "tokens/hour of global"),
        ("asb_budget_held{", "tokens/hour of global"),
    ],
)
def test_a_false_figure_is_found(series: str, named: str) -> None:
    bus = worked()
    lines = page(bus).splitlines()
    [place, *_] = [n for n, line in enumerate(lines) if line.startswith(series)]
    head, _, value = lines[place].rpartition(" ")
    lines[place] = f"{head} {float(value) + 1}"
    row = compared(Served("\n".join(lines) + "\n"), audit(bus), "here")
    assert not row.good
    assert named in row.value
