"""Who has a worker's name: a living worker keeps it, a crashed one gets it back at once."""

from __future__ import annotations

from typing import Any

import pytest

from events.worker import WorkerHeartbeat
from tests.given import Bus

LEASE_S = 60


def bus_with_holder(**worker: Any) -> tuple[Bus, str, str]:
    """A bus, the session that has the name w1, and the task it runs."""
    bus = Bus()
    session = bus.join("w1", **{"lease_s": LEASE_S, "instance": "first", **worker})
    task = bus.submit(worker="w1")
    bus.run()
    bus.report("task.started", task)
    bus.wait(LEASE_S)
    return bus, session, task


def test_a_living_worker_keeps_its_name_and_its_task() -> None:
    bus, holder, task = bus_with_holder()
    joined_at = bus.state.workers["w1"].joined_at
    wanted = bus.join("w1", instance="second")
    bus.run()
    (refused,) = bus.of("worker.refused")
    assert (refused.worker, refused.session, refused.holder) == ("w1", wanted, holder)
    assert refused.since == joined_at
    assert bus.of("worker.lost") == bus.of("task.requeued") == []
    assert bus.state.workers["w1"].session == holder
    assert (bus.state.tasks[task].attempt, bus.state.tasks[task].session) == (1, holder)


def test_one_whose_heartbeat_is_gone_is_taken_over_at_once() -> None:
    bus, holder, task = bus_with_holder()
    bus.silent.add("w1")
    session = bus.join("w1", instance="second")
    bus.run()
    assert bus.of("worker.refused") == []
    assert [(lost.session, lost.taken_by) for lost in bus.of("worker.lost")] == [(holder, session)]
    assert (bus.state.tasks[task].attempt, bus.state.tasks[task].session) == (2, session)


def test_who_joined_a_moment_ago_need_not_show_a_heartbeat_yet() -> None:
    bus = Bus()
    first = bus.join("w1", lease_s=LEASE_S, instance="first")
    bus.join("w1", instance="second")  # in the same turn
    bus.run()
    bus.silent.add("w1")
    bus.now += (LEASE_S // 2 - 1) * 1_000_000
    bus.join("w1", instance="third")
    bus.run()
    assert bus.state.workers["w1"].session == first
    assert len(bus.of("worker.refused")) == 2
    bus.now += 2_000_000
    last = bus.join("w1", instance="fourth")
    bus.run()
    assert bus.state.workers["w1"].session == last


def test_a_heartbeat_that_is_gone_counts_after_a_clock_step_back() -> None:
    bus, _, _ = bus_with_holder()
    bus.silent.add("w1")
    bus.now -= 20 * 60 * 1_000_000
    session = bus.join("w1", instance="second")
    bus.run()
    assert bus.state.workers["w1"].session == session


def test_a_join_sent_twice_is_one() -> None:
    bus = Bus()
    bus.join("w1", instance="first")
    session = bus.join("w1", instance="first")
    bus.run()
    assert bus.types("worker.lost", "worker.refused") == []
    assert list(bus.state.workers) == ["w1"]
    task = bus.submit()
    bus.run()
    assert (bus.state.tasks[task].session, bus.state.tasks[task].attempt) == (session, 1)


def test_what_was_given_to_the_first_of_two_equal_joins_is_given_to_the_second() -> None:
    bus, first, task = bus_with_holder()
    second = bus.join("w1", instance="first")
    bus.run()
    assert first != second
    assert bus.of("worker.lost") == []
    assert (bus.state.tasks[task].attempt, bus.state.tasks[task].session) == (2, second)
    assert bus.state.scopes["global"].held_tasks == 1


@pytest.mark.parametrize("evidence", ["{holder} its process 4711 is gone", "its host burnt down"])
def test_evidence_of_the_holders_death_frees_the_name(evidence: str) -> None:
    bus, holder, _ = bus_with_holder()
    session = bus.join("w1", instance="second", evidence=evidence.format(holder=holder))
    bus.run()
    assert bus.state.workers["w1"].session == session
    said = evidence.removeprefix("{holder} ")
    assert bus.texts("worker.lost", "evidence") == [f"session {session} took its name: {said}"]


def test_evidence_about_another_session_says_nothing_about_the_holder() -> None:
    """Two restarts at once saw the same dead process: one of them is the holder by now."""
    bus, dead, _ = bus_with_holder()
    first = bus.join("w1", instance="second", evidence=f"{dead} its process 4711 is gone")
    bus.join("w1", instance="third", evidence=f"{dead} its process 4711 is gone")
    bus.run()
    assert bus.state.workers["w1"].session == first
    assert [refused.holder for refused in bus.of("worker.refused")] == [first]


@pytest.mark.parametrize(
    ("held", "has_it"),
    [
        ({"attempt": 1, "evidence": "its pane is there"}, True),
        ({"attempt": 1}, False),
        ({"attempt": 2, "evidence": "its pane is there"}, False),
    ],
)
def test_who_holds_what_the_holder_ran_has_the_name(held: dict[str, Any], has_it: bool) -> None:
    bus, holder, task = bus_with_holder()
    session = bus.join("w1", instance="second", holds=[{"task": task, **held}])
    bus.run()
    assert bus.state.workers["w1"].session == (session if has_it else holder)
    assert bus.state.tasks[task].attempt == 1  # held or not taken away: it goes on
    if has_it:
        assert bus.state.tasks[task].session == session
        assert [lost.session for lost in bus.of("worker.lost")] == [holder]


def test_a_worker_without_a_heartbeat_owns_nothing_by_idling() -> None:
    bus, holder, _ = bus_with_holder(heartbeat="no")
    session = bus.join("w1", instance="second")
    bus.run()
    assert [lost.session for lost in bus.of("worker.lost")] == [holder]
    assert bus.state.workers["w1"].session == session


def test_a_name_is_free_once_its_worker_has_left_or_was_lost() -> None:
    bus, holder, _ = bus_with_holder()
    bus.send("worker.left", worker="w1", session=holder)
    session = bus.join("w1", instance="second")
    bus.run()
    assert bus.state.workers["w1"].session == session
    assert bus.types("worker.refused", "worker.lost") == []


def test_a_refused_join_can_neither_speak_for_the_name_nor_take_it_away() -> None:
    bus, holder, task = bus_with_holder()
    wanted = bus.join("w1", instance="second")
    bus.send("worker.left", worker="w1", session=wanted)
    bus.send("task.completed", task=task, attempt=1, session=wanted)
    bus.run()
    assert bus.state.workers["w1"].session == holder
    assert bus.of("task.completed") == bus.of("worker.left") == []


def test_a_heartbeat_says_whose_it_is_and_a_bare_session_is_one_too() -> None:
    whole = WorkerHeartbeat("5-0", "b0a1", "host/boot/pid:[1]", "4711", "99", "8.15.ab")
    assert WorkerHeartbeat.read(whole.value.encode()) == whole
    partly = WorkerHeartbeat("5-0", "b0a1", pid="4711")
    assert WorkerHeartbeat.read(partly.value.encode()) == partly
    assert WorkerHeartbeat.read(b"5-0") == WorkerHeartbeat("5-0")
    assert WorkerHeartbeat.read(b"5-0 a b c d e f g").keeper == "e"
    assert WorkerHeartbeat.read(None) == WorkerHeartbeat.read(b"") == WorkerHeartbeat()
