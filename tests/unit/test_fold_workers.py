"""Workers: sessions, leases, and what becomes of what they held."""

from __future__ import annotations

from typing import Any

from tests.examples import NOON, SECOND
from tests.given import Bus


def bus_with_work(count: int = 1, **worker: Any) -> tuple[Bus, list[str]]:
    bus = Bus()
    bus.join("w1", **{"capacity": 5, **worker})
    tasks = [bus.submit() for _ in range(count)]
    bus.run()
    for task in tasks:
        bus.report("task.started", task)
    bus.run()
    return bus, tasks


def test_the_session_is_the_intake_entry_that_opened_it() -> None:
    bus = Bus()
    session = bus.join("w1")
    bus.run()
    assert bus.state.workers["w1"].session == session


def test_a_take_over_ends_the_first_session_and_its_work_is_requeued() -> None:
    bus, (task,) = bus_with_work()
    session = bus.join("w1", take_over=True)
    bus.run()
    assert bus.types("worker.lost", "worker.joined", "task.requeued", "task.dispatched")[-4:] == [
        "worker.lost",
        "worker.joined",
        "task.requeued",
        "task.dispatched",
    ]
    run = bus.state.tasks[task]
    assert (run.attempt, run.session) == (2, session)
    assert bus.of("task.requeued")[0].charged.estimated
    assert bus.of("worker.lost")[0].taken_by == session


def test_the_old_sessions_result_changes_nothing_but_its_use() -> None:
    bus, (task,) = bus_with_work()
    old = bus.state.tasks[task].session
    bus.join("w1", take_over=True)
    bus.run()
    bus.send("task.completed", task=task, attempt=1, session=old, usage={"total_tokens": 5})
    bus.run()
    assert bus.state.tasks[task].attempt == 2
    assert bus.of("task.completed")[0].stale
    total = sum(b.tokens for b in bus.state.scopes["global"].hours.values())
    assert total == 5


def test_what_a_worker_still_holds_with_evidence_goes_on() -> None:
    bus, (kept, doubtful, other) = bus_with_work(3)
    session = bus.join(
        "w1",
        capacity=5,
        holds=[
            {"task": kept, "attempt": 1, "evidence": "its pane is there"},
            {"task": doubtful, "attempt": 1},
            {"task": other, "attempt": 2, "evidence": "of another attempt"},
        ],
    )
    bus.run()
    assert sorted(d.task for d in bus.of("task.requeued")) == sorted([doubtful, other])
    assert (bus.state.tasks[kept].attempt, bus.state.tasks[kept].session) == (1, session)
    bus.report("task.completed", kept)
    bus.run()
    assert bus.state.outcomes[kept].status == "completed"


def test_a_worker_is_lost_one_lease_after_its_last_renewal() -> None:
    bus, (task,) = bus_with_work(lease_s=60)
    bus.silent.add("w1")
    bus.wait(59.999)
    assert bus.of("worker.lost") == []
    bus.wait(0.001)
    assert "absent at every look for 30 s (lease 60 s)" in bus.texts("worker.lost", "evidence")[0]
    assert bus.of("task.requeued")[0].task == task
    assert bus.state.tasks[task].status == "queued"
    assert bus.state.scopes["global"].held_tasks == 0


def test_nobody_is_lost_before_a_full_lease_since_redis_was_found_again() -> None:
    bus, _ = bus_with_work(lease_s=60)
    bus.silent.add("w1")
    bus.found_since = NOON + 50 * SECOND
    bus.wait(100)
    assert bus.of("worker.lost") == []
    bus.wait(11)
    assert len(bus.of("worker.lost")) == 1


def test_a_worker_without_a_heartbeat_is_not_lost() -> None:
    bus, (task,) = bus_with_work(heartbeat="no")
    bus.silent.add("w1")
    bus.wait(7_000)
    assert bus.of("worker.lost") == []
    assert bus.state.tasks[task].status == "started"


def test_every_lost_attempt_counts() -> None:
    bus, (task,) = bus_with_work()
    for _ in range(2):
        bus.silent.add("w1")
        bus.wait(61)
        bus.join("w1")
        bus.run()
    assert bus.state.tasks[task].attempt == 3
    bus.silent.add("w1")
    bus.wait(61)
    assert bus.state.outcomes[task].status == "failed"
    assert "last attempt" in bus.texts("task.failed", "error")[0]


def test_a_lost_worker_that_was_to_cancel_has_cancelled() -> None:
    bus, (task,) = bus_with_work()
    bus.send("task.cancel_requested", task=task)
    bus.run()
    bus.silent.add("w1")
    bus.wait(61)
    assert bus.state.outcomes[task].status == "cancelled"


def test_a_worker_that_leaves_gives_its_work_back() -> None:
    bus, (task,) = bus_with_work()
    bus.send("worker.left", worker="w1")
    bus.send("worker.left", worker="w1")
    bus.run()
    assert len(bus.of("worker.left")) == 1
    assert bus.state.tasks[task].status == "queued"


def test_a_goodbye_of_an_old_session_is_not_heard() -> None:
    bus, _ = bus_with_work()
    old = bus.state.workers["w1"].session
    bus.join("w1", take_over=True)
    bus.run()
    bus.send("worker.left", worker="w1", session=old)
    bus.run()
    assert bus.of("worker.left") == []


def test_a_paused_worker_gets_nothing_until_it_is_resumed() -> None:
    bus = Bus()
    bus.join("w1")
    bus.send("worker.paused", worker="w1", reason="lunch")
    bus.run()
    task = bus.submit()
    bus.run()
    assert bus.of("task.dispatched") == []
    bus.join("w1", take_over=True)  # a new session is paused as well
    bus.run()
    assert bus.of("task.dispatched") == []
    bus.send("worker.resumed", worker="w1")
    bus.run()
    assert [d.task for d in bus.of("task.dispatched")] == [task]


def test_a_worker_runs_as_much_as_it_can_and_no_more() -> None:
    bus = Bus()
    bus.join("w1", capacity=3)
    for _ in range(10):
        bus.submit()
    bus.run()
    assert len(bus.of("task.dispatched")) == 3
    assert bus.state.workers["w1"].free == 0
