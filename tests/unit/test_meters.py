"""More than one meter of an attempt: the best is charged, up or down; the others are compared."""

from __future__ import annotations

from typing import Any

from events.usage import UsageCompared
from services.audit.check import Audit
from services.client.story import result_of
from services.throttle.projector import is_alert, level_of, message
from tests.given import Bus

MODEL = "sonnet"


def running(**task: Any) -> tuple[Bus, str]:
    bus = Bus()
    bus.join("w1")
    task_id = bus.submit(**task)
    bus.run()
    bus.report("task.started", task_id)
    bus.run()
    return bus, task_id


def live(bus: Bus, task: str, meter: str, tokens: int) -> None:
    usage = {"models": {MODEL: {"input_tokens": tokens}}}
    bus.send("usage.recorded", agent="w1", task=task, attempt=1, meter=meter, usage=usage)
    bus.run()


def end(bus: Bus, task: str, tokens: int, **more: Any) -> None:
    bus.report("task.completed", task, usage={"input_tokens": tokens}, model=MODEL, **more)
    bus.run()


def charged(bus: Bus) -> tuple[int, int]:
    """In the books, and in the windows."""
    cells = sum(cell.tokens for cell in bus.state.lifetime.values())
    hours = bus.state.scopes["global"].hours.values()
    return cells, sum(bucket.tokens for bucket in hours)


def is_sound(bus: Bus) -> bool:
    audit = Audit()
    for entry in bus.log:
        audit.feed(entry)
    return not audit.findings


def compared(bus: Bus) -> list[UsageCompared]:
    return bus.of("usage.compared")


def test_the_drivers_figure_takes_the_place_of_telemetrys_up_or_down() -> None:
    for tokens in (900, 4_000):
        bus, task = running()
        live(bus, task, "telemetry", 1_000)
        bus.wait(3_700)  # charged in another hour than the end
        live(bus, task, "telemetry", 2_500)
        assert charged(bus) == (2_500, 2_500)
        end(bus, task, tokens)
        assert charged(bus) == (tokens, tokens)
        assert bus.state.outcomes[task].tokens == tokens
        assert all(b.tokens >= 0 for b in bus.state.scopes["global"].hours.values())
        assert (bus.state.scopes["global"].held_tokens, bus.state.scopes["global"].held_nanos) == (
            0,
            0,
        )
        assert is_sound(bus)


def test_while_it_runs_usage_only_rises_whoever_tells_of_it() -> None:
    bus, task = running()
    live(bus, task, "stream", 1_500)
    live(bus, task, "telemetry", 600)  # a batch that comes late
    assert charged(bus) == (1_500, 1_500)
    live(bus, task, "telemetry", 2_000)  # a subagent, which no stream shows
    assert charged(bus) == (2_000, 2_000)
    end(bus, task, 2_100)
    assert charged(bus) == (2_100, 2_100)
    assert is_sound(bus)


def test_a_worse_meter_at_the_end_takes_nothing_back() -> None:
    bus, task = running()
    live(bus, task, "telemetry", 2_000)
    end(bus, task, 1_200, meter="transcript")
    assert charged(bus) == (2_000, 2_000)


def test_others_are_compared_and_never_added() -> None:
    bus, task = running()
    meters = {"telemetry": {"input_tokens": 1_010}, "transcript": {"input_tokens": 980}}
    end(bus, task, 1_000, meters=meters)
    assert charged(bus) == (1_000, 1_000)
    assert [(c.meter, c.tokens, c.against, c.difference, c.alert) for c in compared(bus)] == [
        ("driver", 1_000, "telemetry", 10, False),
        ("driver", 1_000, "transcript", -20, False),
    ]
    assert is_sound(bus)


def test_a_task_keeps_its_result_though_more_is_told_of_it_later() -> None:
    bus, task = running()
    bus.report("task.completed", task, result="the answer", meters={"telemetry": {"input": 9}})
    bus.run()
    live(bus, task, "transcript", 300)
    events = [event for event in bus.events if getattr(event.data, "task", "") == task]
    assert events[-1].type == "usage.corrected"
    assert result_of(events) == "the answer"


def test_a_difference_above_the_bound_is_an_alert() -> None:
    bus, task = running()
    end(bus, task, 30_000, meters={"telemetry": {"input_tokens": 9_000}})
    (event,) = [e for e in bus.events if e.type == "usage.compared"]
    assert (is_alert(event), level_of(event)) == (True, "WARNING")
    said = message(event)
    assert (said["type"], said["driver"], said["telemetry"]) == ("USAGE_DIFFERS", 30_000, 9_000)
    assert said["difference"] == -21_000
    assert bus.state.meta.compared_said == event.log_id


def test_what_stands_for_meters_may_be_anything() -> None:
    odd: tuple[Any, ...] = (7, [], {"telemetry": "much"}, {"x" * 500: {"input_tokens": 5}})
    for meters in odd:
        bus, task = running()
        end(bus, task, 1_000, meters=meters)
        assert charged(bus) == (1_000, 1_000)
        assert compared(bus) == []


def test_a_transcript_heals_what_was_estimated_once_and_by_its_models() -> None:
    bus, task = running(max_attempts=1, timeout_s=600)
    bus.wait(700)
    assert bus.state.outcomes[task].past[0].charge.estimated_tokens > 0
    for _ in range(2):
        live(bus, task, "transcript", 300)
        assert charged(bus) == (300, 300)
    assert bus.of("usage.corrected")[0].charged.meter == "transcript"
    assert is_sound(bus)
