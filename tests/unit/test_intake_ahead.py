"""Entry ids of the future: what makes one, what does not, and that the bound never moves by ids."""

from __future__ import annotations

import json

import pytest

from services.intake.intakes import AHEAD_MS
from tests.examples import DAY, HOUR, MINUTE, NOON, SECOND
from tests.given import SHARED, Bus


def put(bus: Bus, ms: int, task: str, seq: int = 0) -> None:
    data = json.dumps({"text": "x", "task": task}).encode()
    bus.put([b"type", b"task.submitted", b"data", data], entry_id=f"{ms}-{seq}")


def taken(bus: Bus) -> list[str]:
    bus.run()
    return [e.task for e in bus.of("task.submitted")]


@pytest.mark.parametrize(("ahead_ms", "good"), [(0, True), (AHEAD_MS, True), (AHEAD_MS + 1, False)])
def test_an_id_more_than_a_minute_ahead_is_refused(ahead_ms: int, good: bool) -> None:
    bus = Bus()
    put(bus, NOON // 1000 + ahead_ms, "t")
    assert taken(bus) == (["t"] if good else [])
    assert [bool(refused.back_to) for refused in bus.refused] == ([] if good else [True])


def test_no_number_of_entries_pushes_an_intake_further_ahead_than_a_minute() -> None:
    bus = Bus()
    for n in range(1, 7):
        put(bus, NOON // 1000 + n * AHEAD_MS - 1, f"t{n}")
        bus.run()
    assert taken(bus) == ["t1"]
    cursor_ms = int(bus.state.intakes[SHARED].partition("-")[0])
    assert cursor_ms <= NOON // 1000 + AHEAD_MS


@pytest.mark.parametrize("back", [20 * MINUTE, 26 * HOUR, 70 * DAY])
def test_after_a_step_back_what_goes_on_in_the_old_millisecond_is_taken(back: int) -> None:
    bus = Bus()
    put(bus, NOON // 1000, "before")
    bus.run()
    bus.step(-back)
    put(bus, NOON // 1000, "after", seq=1)
    assert taken(bus) == ["before", "after"]
    assert bus.refused == []


@pytest.mark.parametrize("down", [0, 3 * HOUR])
def test_what_redis_gave_out_before_a_step_back_is_taken_after_it(down: int) -> None:
    """Nobody was there for a while, or the entries came in the moment before the step."""
    bus = Bus()
    put(bus, NOON // 1000, "before")
    bus.run()
    bus.now += down
    given_out = bus.now
    bus.now += SECOND
    bus.step(-26 * HOUR)
    put(bus, given_out // 1000 + 1, "waited")
    bus.now += SECOND
    assert taken(bus) == ["before", "waited"]
    assert bus.refused == []


def test_a_clock_that_was_ahead_for_a_while_is_no_licence_for_ids_beyond_it() -> None:
    bus = Bus()
    bus.step(26 * HOUR)
    put(bus, bus.now // 1000, "ahead")
    bus.run()
    bus.step(-26 * HOUR)
    put(bus, (NOON + 70 * DAY) // 1000, "far")
    assert taken(bus) == ["ahead"]
    assert [bool(refused.back_to) for refused in bus.refused] == [True]
