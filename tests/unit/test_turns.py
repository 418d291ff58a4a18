"""Turns: bounded, ordered, whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from events.envelope import Event
from events.policy import AlertRaised
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided
from services.engine.turn import ENTRIES_MAX, EVENTS_MAX, Turn, run_turn
from services.store.log import parse_id
from tests import examples
from tests.examples import NOON
from tests.given import DECIDERS, Bus


def turns_of(bus: Bus) -> Iterator[list[Event]]:
    while True:
        turn = bus.decide()
        bus.keep(turn)
        if not turn.events and not turn.more:
            return
        yield turn.events


def test_a_turn_has_at_most_200_events() -> None:
    bus = Bus()
    bus.join("w1", capacity=1_000)
    for _ in range(500):
        bus.submit()
    sizes = [len(events) for events in turns_of(bus)]
    assert max(sizes) <= EVENTS_MAX
    assert len(bus.of("task.dispatched")) == 500


def test_a_backlog_is_dispatched_200_at_a_time() -> None:
    bus = Bus()
    for _ in range(450):
        bus.submit()
    bus.run()
    bus.join("w1", capacity=1_000)
    sizes = [len(events) for events in turns_of(bus)]
    assert sizes[:3] == [200, 200, 51]


def test_each_decider_stops_at_the_bound() -> None:
    """A decider that fills the turn leaves nothing for the one after it to add."""

    def many(_state: State, _now: int, _inputs: Inputs) -> Decisions:
        for _ in range(300):
            yield decided(examples.alert_raised(), "test")

    deciders = [Decider(name, many, frozenset({AlertRaised})) for name in ("first", "second")]
    turn = run_turn(State(), NOON, deciders, Inputs())
    assert len(turn.events) == EVENTS_MAX
    assert turn.more


def test_repeats_and_refusals_end_a_turn_too() -> None:
    bus = Bus()
    bus.run()
    for _ in range(ENTRIES_MAX + 10):
        bus.send("weather.changed")
    turn = bus.decide()
    bus.keep(turn)
    assert (turn.consumed, turn.more, turn.events) == (ENTRIES_MAX, True, [])


def test_an_entry_is_taken_whole_or_not_at_all() -> None:
    """Both events of a second session stand in one turn, however full it is."""
    bus = Bus()
    for n in range(150):
        bus.join(f"w{n}")
    bus.run()
    for n in range(150):
        bus.join(f"w{n}", take_over=True)
    for events in turns_of(bus):
        types = [e.data.type for e in events]
        assert types.count("worker.lost") == types.count("worker.joined")


def test_a_turn_that_was_lost_is_decided_again() -> None:
    """Queues, timers and routes are found again after it was undone."""
    bus = Bus()
    bus.join("w1")
    task = bus.submit()
    bus.keep(bus.decide())
    bus.report("task.failed", task, error="no luck")
    bus.run()
    bus.submit()
    bus.now += 5_000_000
    words = [e.data for e in bus.decide().events]
    bus.undo()
    assert [e.data for e in bus.decide().events] == words
    bus.undo()
    bus.run()
    assert bus.state.tasks[task].attempt == 2


@pytest.mark.parametrize("second_stands", [True, False])
def test_a_turn_decided_ahead_stands_or_goes_by_itself(second_stands: bool) -> None:
    bus = Bus()
    for name in ("w1", "w2"):
        bus.join(name, capacity=30)
    bus.run()
    for _ in range(150):
        bus.submit()
    before = bus.state.digest()
    first = bus.decide()
    between = bus.state.digest()
    second = ahead(bus, first)
    after = bus.state.digest()
    assert len({before, between, after}) == 3
    bus.state.rollback()
    assert bus.state.digest() == between
    assert [e.raw for e in ahead(bus, first).events] == [e.raw for e in second.events]
    bus.state.commit()
    if second_stands:
        bus.state.commit()
    else:
        bus.state.rollback()
    assert bus.state.digest() == (after if second_stands else between)


def test_both_turns_go_without_a_trace() -> None:
    bus = Bus()
    bus.join("w1", capacity=30)
    for _ in range(150):
        bus.submit()
    before = bus.state.digest()
    first = bus.decide()
    ahead(bus, first)
    bus.state.rollback()
    bus.state.rollback()
    assert bus.state.digest() == before
    assert [e.raw for e in bus.decide().events] == [e.raw for e in first.events]


def ahead(bus: Bus, under_way: Turn) -> Turn:
    """The turn after one that may yet be undone."""
    bus.inputs.entries = bus.waiting[under_way.consumed :]
    bus.state.dirty_scopes.clear()
    bus.state.begin()
    return run_turn(bus.state, bus.now, bus.deciders, bus.inputs)


def test_log_ids_increase_even_when_the_clock_does_not() -> None:
    bus = Bus()
    bus.join("w1", capacity=9)
    for seconds in (0, 5, -3, 0, 0.0001, -100, 200):
        bus.now += int(seconds * 1_000_000)
        bus.submit()
        bus.run()
    ids = [parse_id(e.log_id) for e in bus.events]
    assert ids == sorted(set(ids))
    assert all(e.at <= bus.now + 105_000_000 for e in bus.events)


def test_every_event_says_when_who_and_where_from() -> None:
    bus = Bus()
    entry = bus.join("w1")
    bus.submit()
    bus.run()
    joined = next(e for e in bus.events if e.data.type == "worker.joined")
    assert (joined.source, joined.origin, joined.at) == ("asb:intake", f"asb:intake {entry}", NOON)
    dispatched = next(e for e in bus.events if e.data.type == "task.dispatched")
    assert (dispatched.source, dispatched.origin) == ("dispatcher", "")
    assert len({e.id for e in bus.events}) == len(bus.events)


def test_cursors_of_intakes_are_part_of_the_state() -> None:
    bus = Bus()
    bus.submit()
    entry = bus.submit()
    bus.run()
    assert bus.state.intakes == {"asb:intake": entry}


def test_the_prompt_of_a_task_of_this_turn_is_at_hand() -> None:
    bus = Bus()
    task = bus.submit("Write the README")
    turn = bus.decide()
    bus.keep(turn)
    assert bus.inputs.texts == {task: "Write the README"}
    assert bus.types("task.delegated") == ["task.delegated"]


def test_an_empty_log_begins_with_its_policy_and_only_once() -> None:
    bus = Bus(examples.policy(reason="the first"))
    bus.submit()
    bus.run()
    bus.run()
    assert bus.types()[0] == "policy.changed"
    assert bus.texts("policy.changed", "reason") == ["the first"]


def test_the_whole_engine_says_the_same_as_its_parts_one_after_the_other() -> None:
    """Four deciders in one turn, or a turn each: the same facts in the end."""
    whole, parts = Bus(), Bus()
    for bus in (whole, parts):
        bus.join("w1", capacity=9)
        for _ in range(5):
            bus.submit()
    whole.run()
    for _ in range(3):
        for decider in ("intake", "delegator", "dispatcher", "throttle"):
            turn_of_one(parts, decider)
    assert sorted(parts.types()) == sorted(whole.types())
    assert {t.status for t in parts.state.tasks.values()} == {"dispatched"}


def turn_of_one(bus: Bus, name: str) -> None:
    bus.deciders = tuple(decider for decider in DECIDERS if decider.name in ("policy", name))
    bus.keep(bus.decide())
