"""Usage that is told after its attempt has ended: it replaces the estimate, once, and no more."""

from __future__ import annotations

from tests.given import Bus


def done_without_usage() -> tuple[Bus, str]:
    bus = Bus()
    bus.join("w1", capacity=3)
    task = bus.submit()
    bus.run()
    bus.report("task.completed", task)
    bus.run()
    return bus, task


def booked_tokens(bus: Bus) -> int:
    return sum(cell.tokens for cell in bus.state.lifetime.values())


def used(bus: Bus) -> int:
    return sum(bucket.tokens for bucket in bus.state.scopes["global"].hours.values())


def tell(bus: Bus, task: str, tokens: int) -> None:
    bus.send("usage.recorded", agent="codex", task=task, attempt=1, input_tokens=tokens)
    bus.run()


def test_usage_told_after_the_end_takes_the_place_of_the_estimate() -> None:
    bus, task = done_without_usage()
    assert booked_tokens(bus) > 1_000
    bus.wait(3_700)  # another hour: the correction belongs to the window of the estimate
    tell(bus, task, 300)
    assert booked_tokens(bus) == used(bus) == 300
    assert len(bus.of("usage.corrected")) == 1


def test_what_was_measured_late_counts_as_estimated_no_more() -> None:
    bus, task = done_without_usage()
    assert estimated(bus) == [booked_tokens(bus)] * 2
    tell(bus, task, 300)
    assert estimated(bus) == [0, 0]
    tell(bus, task, 450)
    assert estimated(bus) == [0, 0]


def test_a_late_result_leaves_nothing_estimated() -> None:
    bus = Bus()
    bus.join("w1")
    task = bus.submit(max_attempts=1, timeout_s=600)
    bus.run()
    bus.report("task.started", task)
    session = bus.state.tasks[task].session
    bus.wait(700)
    assert estimated(bus) == [booked_tokens(bus)] * 2
    usage = {"input_tokens": 333}
    bus.send("task.completed", task=task, attempt=1, session=session, usage=usage)
    bus.run()
    assert (booked_tokens(bus), estimated(bus)) == (333, [0, 0])


def estimated(bus: Bus) -> list[int]:
    """For all time, and by day."""
    days = [cell for cells in bus.state.days.values() for cell in cells.values()]
    return [sum(c.estimated_tokens for c in cells) for cells in (bus.state.lifetime.values(), days)]


def test_running_totals_told_after_the_end_are_not_added_up() -> None:
    bus, task = done_without_usage()
    for total in (300, 300, 450):
        tell(bus, task, total)
    assert booked_tokens(bus) == used(bus) == 450


def test_usage_told_again_after_a_result_with_usage_adds_nothing() -> None:
    bus = Bus()
    bus.join("w1", capacity=3)
    task = bus.submit()
    bus.run()
    bus.report("task.completed", task, usage={"input_tokens": 700})
    bus.run()
    tell(bus, task, 700)
    assert booked_tokens(bus) == 700
    assert bus.of("usage.corrected") == bus.of("usage.recorded") == []


def test_a_repeat_of_a_result_without_usage_does_nothing() -> None:
    bus, task = done_without_usage()
    before = booked_tokens(bus)
    bus.send("task.completed", task=task, attempt=1, session=bus.of("task.dispatched")[0].session)
    bus.run()
    assert len(bus.of("task.completed")) == 1
    assert booked_tokens(bus) == before


def test_a_worker_without_signs_of_life_is_lost_only_at_its_tasks_timeout() -> None:
    bus = Bus()
    bus.join("w1", heartbeat="no", lease_s=60)
    bus.submit(timeout_s=600)
    bus.run()
    bus.wait(500)
    assert bus.of("worker.lost") == []
    bus.wait(200)
    assert len(bus.of("worker.lost")) == 1
    assert bus.of("task.requeued")[0].reason == "worker w1 was lost"


def test_two_names_of_one_part_are_not_added_up() -> None:
    bus = Bus()
    bus.send("usage.recorded", agent="codex", input_tokens=500, prompt_tokens=500)
    bus.run()
    assert booked_tokens(bus) == 500
