"""The exporter's figures: complete, bounded, and not paid for by the number of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from events.envelope import Event
from events.policy import Limit, PolicyChanged
from events.task import Charge
from events.usage import UsageRecorded
from projections.fold import apply
from projections.state import State
from services.assembly import OF_EVERY_BUS
from services.exporter import figures, processes
from services.exporter.catalogue import ROWS, Durations, Sample
from services.exporter.processes import Counted, Places, Polled
from services.exporter.service import exposed
from services.store.heartbeat import Beat
from tests.given import Bus

NOW = 1_800_000_000_000_000


class Unwalkable(dict[str, Any]):
    """Tasks that can be looked up and not walked."""

    def _walk(self, *_: object) -> Any:
        raise AssertionError("a scrape walked the open tasks")

    __iter__ = keys = values = items = _walk


def fold(state: State) -> list[Sample | Durations]:
    return list(figures.samples(state, max(NOW, state.meta.at), figures.Pairs()))


def rest(state: State, polled: Polled | None = None) -> list[Sample]:
    made = processes.samples(polled or Polled(), state, NOW, Places(), Counted(), 50_000)
    return list(made)


def total(samples: list[Sample | Durations], name: str) -> float:
    return sum(s.value for s in samples if isinstance(s, Sample) and s.name == name)


def charged(state: State, *charges: Charge) -> State:
    """``state`` after reports of foreign work."""
    for charge in charges:
        log_id = f"{state.meta.events + 1}-0"
        apply(state, Event(UsageRecorded(agent=charge.agent, charged=charge), NOW, log_id))
    return state


def test_every_metric_is_served_on_an_empty_bus_or_has_labels_from_the_log() -> None:
    """What alerts watch must be there before anything happens: it also fires when it vanishes."""
    served = {s.name for s in [*fold(State()), *rest(State())]} | {"asb_build"}
    of_the_log = {
        name
        for name, row in ROWS.items()
        if {"agent", "model", "source", "scope", "gen_ai_agent_name"} & set(row.labels)
    }
    assert served | of_the_log == set(ROWS)
    assert not served & of_the_log


def test_labels_are_those_of_the_catalogue() -> None:
    charges = (Charge(agent=f"a{n}", model="m", tokens=n, input_tokens=n) for n in range(3))
    state = charged(State(), *charges)
    for sample in [*fold(state), *rest(state)]:
        assert len(sample.labels) == len(ROWS[sample.name].labels), sample


def test_a_name_that_the_catalogue_lacks_is_an_error() -> None:
    with pytest.raises(KeyError):
        list(exposed([Sample("asb_nothing", (), 1)]))


def test_a_scrape_walks_no_tasks() -> None:
    bus = Bus()
    for n in range(30):
        bus.send("task.submitted", text=f"task {n}")
    bus.run()
    bus.state.tasks = Unwalkable(bus.state.tasks)
    samples = fold(bus.state)
    assert total(samples, "asb_tasks") == 30
    assert max(s.value for s in samples if s.name == "asb_queue_oldest_seconds") > 0  # pyright: ignore


def test_agents_and_models_beyond_the_bound_share_a_series_and_sums_hold() -> None:
    number = figures.PAIRS_SHOWN + 100
    charges = (
        Charge(agent=f"agent{n}", model="m", tokens=n, nanos=n, output_tokens=n)
        for n in range(number)
    )
    samples = fold(charged(State(), *charges))
    pairs = {s.labels[:2] for s in samples if s.name == "asb_counted_tokens"}
    assert len(pairs) == figures.PAIRS_SHOWN + 1
    assert figures.OTHER in pairs
    assert total(samples, "asb_counted_tokens") == sum(range(number))


def test_scopes_beyond_the_bound_are_counted_and_the_fullest_are_served() -> None:
    state = State()
    state.set_policy(PolicyChanged(limits=(Limit("agent", "tokens", "hour", 1_000_000),)))
    last = figures.SCOPES_SHOWN + 4
    charged(state, *(Charge(agent=f"agent{n}", tokens=n + 1) for n in range(last + 1)))
    samples = fold(state)
    scopes = {s.labels[0] for s in samples if s.name == "asb_budget_used"}
    assert "agent:agent0" not in scopes
    assert f"agent:agent{last}" in scopes
    assert total(samples, "asb_budget_scopes_omitted") == 5


def test_what_is_taken_back_never_lowers_a_counter() -> None:
    up = Charge(agent="a", model="m", tokens=100, nanos=7, output_tokens=9)
    down = Charge(agent="a", model="m", tokens=-60, nanos=-7, output_tokens=-9)
    before, after = fold(charged(State(), up)), fold(charged(State(), up, down))
    for name in ("asb_counted_tokens", "asb_cost_dollars", "asb_tokens"):
        assert total(after, name) == total(before, name)
    assert total(after, "asb_counted_tokens_returned") == 60
    assert total(after, "asb_tokens_returned") == 9


# -- what other processes say ---------------------------------------------------------------------


def test_a_service_that_is_behind_shows_by_how_much_and_for_how_long() -> None:
    places = Places()
    for second, events in enumerate((10, 20, 30, 40)):
        places.reached(events, float(second))
    assert places.lag(40, 3.0) == (0, 0.0)
    assert places.lag(20, 3.0) == (20, 1.0)  # the first of these came at 2.0
    assert places.lag(20, 1.5) == (0, 0.0)  # by then it had them all: its heartbeat is old
    places.reached(5, 4.0)  # the log went back
    assert places.lag(5, 4.5) == (0, 0.0)


def test_counters_of_processes_that_come_and_go_only_grow() -> None:
    def beat(process: str, turns: int) -> Beat:
        return Beat("intake", process, {"turns": str(turns)})

    counted = Counted()
    seen: list[int] = []
    both = [beat("p1", 8), beat("p2", 1)]
    for beats in ([beat("p1", 5)], both, [beat("p2", 2)], [], [beat("p3", 4)]):
        counted.saw(beats)
        seen.append(counted.sums["turns"])
    assert seen == [5, 9, 10, 10, 14]


def test_each_service_has_its_series_whether_it_runs_or_not() -> None:
    def of(name: str, samples: list[Sample]) -> Iterator[tuple[str, float]]:
        return ((s.labels[0], s.value) for s in samples if s.name == name)

    polled = Polled(up=True, beats=(Beat("usage", "p1", {"folded": "3"}, 1.0),))
    numbers = dict(of("asb_service_processes", rest(State(), polled)))
    assert numbers == {**dict.fromkeys(OF_EVERY_BUS, 0), "usage": 1}
