"""The engine in this process: the life of a task, its mishaps, and what comes through the
intakes."""

from __future__ import annotations

import anyio
import pytest

from events.envelope import text_of
from services.store import beginning
from tests.integration.test_engine_ground import (
    Bus,
    Hands,
    caught_up,
    limit,
    proven,
    running,
    working,
)
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio


# -- a task's life -----------------------------------------------------------------------------


async def test_a_task_goes_in_and_is_done(bus: Bus) -> None:
    host = bus.host()
    async with running(host):
        worker = await Hands(bus).join()
        task = await bus.submit("Write the documentation of the parser", project="p")
        entry = await worker.takes()
        assert entry["text"] == "Write the documentation of the parser"
        assert (entry["kind"], entry["model"], entry["attempt"]) == ("documentation", "haiku", "1")
        await worker.does(entry, tokens=300)
        state = await bus.ended(task)
        await caught_up(bus, host)
        a = proven(bus, host, tasks=[task])
    assert [e.type for e in bus.events()] == [
        *("policy.changed", "worker.joined", "task.submitted", "task.delegated"),
        *("task.dispatched", "task.started", "task.completed"),
    ]
    assert state.outcomes[task].status == "completed"
    assert state.outcomes[task].tokens == 300
    assert a.state.scopes["global"].hours.popitem()[1].tokens == 300
    assert await bus.dead() == []


async def test_every_event_names_who_says_so_and_where_from(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit()
        await worker.does(await worker.takes())
        await bus.ended(task)
    intake = bus.keys.main_intake
    for event in bus.events():
        decided = event.type in ("policy.changed", "task.delegated", "task.dispatched")
        assert bool(event.origin) is not decided, event.type
        assert event.source == intake or decided
    submitted = bus.events("task.submitted")[0]
    assert submitted.origin == f"{intake} {task}"
    assert submitted.id == task


async def test_what_a_writer_adds_survives_on_the_log(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.submit("x", mood="sunny", nested={"a": [1, 2]})
        await wait_until(lambda: bus.events("task.submitted"))
    assert b'"mood":"sunny","nested":{"a":[1,2]}' in bus.events("task.submitted")[0].raw


async def test_a_failed_attempt_is_tried_again_until_they_are_used_up(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit(max_attempts=2)
        for attempt in ("1", "2"):
            entry = await worker.takes()
            assert entry["attempt"] == attempt
            await worker.says("failed", entry, error="no luck")
        state = await bus.ended(task)
    assert (state.outcomes[task].status, state.outcomes[task].attempt) == ("failed", 2)
    proven(bus, tasks=[task])


async def test_a_task_waits_for_the_ones_it_names(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join(capacity=5)
        first = await bus.submit("first")
        second = await bus.submit("second", after=[first])
        entry = await worker.takes()
        assert entry["text"] == "first"

        async def nothing_more() -> bool:
            return await worker.inbox() == []

        await stays(nothing_more, during=0.1)
        await worker.does(entry)
        await worker.does(await worker.takes())
        await bus.ended(first, second)
    proven(bus, tasks=[first, second])


async def test_what_waits_for_a_task_that_fails_fails_with_it(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        first = await bus.submit("first", max_attempts=1)
        others = [await bus.submit("second", after=[first])]
        others.append(await bus.submit("third", after=others))
        await worker.says("failed", await worker.takes(), error="no")
        state = await bus.ended(first, *others)
    assert {state.outcomes[t].status for t in (first, *others)} == {"failed"}
    proven(bus, tasks=[first, *others])


async def test_a_limit_makes_tasks_wait_and_never_breaks(redis_url: str, namespace: str) -> None:
    most = limit("global", "tasks", "day", 3)
    bus = Bus(redis_url, namespace, limits=(most,))
    async with running(bus.host()):
        worker = await Hands(bus).join(capacity=10)
        tasks = await bus.submit_many(6)
        for _ in range(2):  # normal tasks reach less than 95 % of three
            await worker.does(await worker.takes())
        await wait_until(lambda: len(bus.folded().outcomes) == 2)
        await stays(lambda: len(bus.events("task.dispatched")) == 2, during=0.2)
    assert len(set(tasks) & set(bus.folded().tasks)) == 4
    proven(bus)
    await bus.close()


# -- mishaps -----------------------------------------------------------------------------------


async def test_a_lost_worker_s_task_goes_to_another_and_its_late_result_changes_nothing(
    bus: Bus,
) -> None:
    async with running(bus.host()):
        lost = await Hands(bus, "lost").join(lease_s=1)
        task = await bus.submit()
        entry = await lost.takes()
        await lost.says("started", entry)
        other = await Hands(bus, "other").join()
        again = await other.takes(within=8)
        assert (again["task"], again["attempt"]) == (task, "2")
        usage = {"input_tokens": 40, "output_tokens": 2}
        for _ in range(2):  # a repeat finds nothing
            await lost.says("completed", entry, result="late", usage=usage)
        await other.does(again, tokens=100)
        state = await bus.ended(task)
        await wait_until(lambda: [e for e in bus.events("task.completed") if e.data.stale])
    assert [e.data.worker for e in bus.events("worker.lost")] == ["lost"]
    assert [e.data.attempt for e in bus.events("task.requeued")] == [1]
    assert [e.data.stale for e in bus.events("task.completed")] == [True, False]
    assert (state.outcomes[task].worker, state.outcomes[task].attempt) == ("other", 2)
    assert state.scopes["global"].hours.popitem()[1].tokens == 142  # the hold gave way to the truth
    proven(bus, tasks=[task])
    assert [e["type"] for e in await lost.inbox()] == ["worker.lost", "task.requeued"]


async def test_a_worker_that_shows_its_sign_of_life_is_not_lost(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join(lease_s=2)
        await bus.submit()
        entry = await worker.takes()

        async def shown() -> bool:
            await worker.show(2)
            return not bus.events("worker.lost")

        await stays(shown, during=3.5)
        await worker.does(entry)
        await bus.ended(entry["task"])


async def test_a_second_session_ends_the_first_and_requeues_what_it_held(bus: Bus) -> None:
    async with running(bus.host()):
        first = await Hands(bus).join(capacity=2)
        tasks = [await bus.submit(), await bus.submit()]
        entry = await first.takes()
        second = await Hands(bus).join(capacity=2)
        for _ in tasks:
            again = await second.takes()
            assert again["attempt"] == "2"
            await second.does(again)
        await first.says("completed", entry, result="too late")
        await bus.ended(*tasks)
    assert len(bus.events("worker.lost")) == 1
    assert len(bus.events("task.requeued")) == 2
    proven(bus, tasks=tasks)


async def test_a_worker_that_leaves_gives_back_what_it_held(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit()
        await worker.takes()
        await bus.tell("worker.left", worker="w1", session=worker.session)
        await wait_until(lambda: bus.events("task.requeued"))
        back = await Hands(bus).join()
        await back.does(await back.takes())
        await bus.ended(task)
    proven(bus, tasks=[task])


async def test_cancelling_what_waits_ends_it_at_once(bus: Bus) -> None:
    async with running(bus.host()):
        task = await bus.submit()
        await bus.tell("task.cancel_requested", task=task, reason="changed my mind")
        state = await bus.ended(task)
    assert state.outcomes[task].status == "cancelled"
    assert text_of(bus.events("task.cancelled")[0], "reason") == "changed my mind"
    proven(bus, tasks=[task])


async def test_cancelling_what_runs_asks_its_worker_and_waits_for_its_word(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit()
        entry = await worker.takes()
        await bus.tell("task.cancel_requested", task=task)
        asked = await worker.takes("task.cancel_requested")
        assert (asked["task"], asked["attempt"]) == (task, "1")
        assert bus.folded().tasks[task].status == "dispatched"
        await worker.says("cancelled", entry, reason="stopped")
        state = await bus.ended(task)
    assert state.outcomes[task].status == "cancelled"
    proven(bus, tasks=[task])


async def test_an_attempt_past_its_time_is_ended_by_the_engine(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.queues.TIMEOUT_GRACE", 0)
    async with running(bus.host()):
        worker = await Hands(bus).join(lease_s=30)
        task = await bus.submit(timeout_s=1, max_attempts=1)
        await worker.takes()
        state = await bus.ended(task)
    assert state.outcomes[task].status == "failed"
    assert text_of(bus.events("task.failed")[0], "error") == "no result within 1 s"


async def test_a_backoff_passes_before_the_next_attempt(redis_url: str, namespace: str) -> None:
    bus = Bus(redis_url, namespace, backoff_s=1)
    async with running(bus.host()):
        worker = await Hands(bus).join()
        await bus.submit()
        await worker.says("failed", await worker.takes())
        await worker.does(await worker.takes())
    failed, again = bus.events("task.failed")[0], bus.events("task.dispatched")[1]
    assert 1_000_000 <= again.at - failed.at < 2_000_000
    await bus.close()


# -- repeats -----------------------------------------------------------------------------------


async def test_a_submission_with_the_same_key_counts_once(bus: Bus) -> None:
    same = ("type", "task.submitted", "id", "k1", "data", '{"text":"once"}')
    async with running(bus.host()):
        for _ in range(3):
            await bus.put(*same)
        await wait_until(lambda: bus.events("task.submitted"))
        await bus.put(*same)
    async with running(bus.host()):  # a later host has it from the log's side table
        await bus.put(*same)
        other = await bus.put("type", "task.submitted", "id", "k1", "data", '{"text":"twice"}')
        elsewhere = await bus.put(*same, intake="other")
        await bus.submit("last")
        await wait_until(lambda: len(bus.events("task.submitted")) >= 2)
    assert [text_of(e, "text") for e in bus.events("task.submitted")] == ["once", "last"]
    assert bus.events("task.submitted")[0].id == "k1"
    assert await bus.dead() == [(other, "id 'k1' was used before, with other content")]
    assert elsewhere  # an intake nobody opened is not read


async def test_repeats_within_one_turn_count_once(bus: Bus) -> None:
    for n in (1, 1, 2, 1):
        await bus.put("type", "task.submitted", "id", f"k{n}", "data", '{"text":"x"}')
    async with running(bus.host()):
        await wait_until(lambda: len(bus.events("task.submitted")) == 2)
    proven(bus)


async def test_a_task_id_is_taken_once(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        await bus.submit(task="mine")
        repeat = await bus.put("type", "task.submitted", "data", '{"text":"x","task":"mine"}')
        await worker.does(await worker.takes())
        await bus.ended("mine")
        late = await bus.put("type", "task.submitted", "data", '{"text":"x","task":"mine"}')
        dead = await wait_until(lambda: _two(bus))
    why = "task 'mine' exists already; choose another id"
    assert dead == [(repeat, why), (late, why)]


async def _two(bus: Bus) -> list[tuple[str, str]]:
    dead = await bus.dead()
    return dead if len(dead) == 2 else []


# -- several engines, restarts ---------------------------------------------------------------------


async def test_a_restarted_engine_goes_on_where_the_log_ends(bus: Bus) -> None:
    worker = Hands(bus)
    tasks: list[str] = []
    for n in range(4):
        async with running(bus.host()):
            if not n:
                await worker.join(capacity=50)
            tasks += [await bus.submit() for _ in range(3)]
            entry = await worker.takes()
            if n:
                await worker.does(entry)
        tasks.append(await bus.submit("while nobody is there"))
    async with running(bus.host()):
        await wait_until(lambda: len(bus.events("task.dispatched")) == len(tasks))
    a = proven(bus)
    assert len(a.submitted) == len(tasks) == 16


async def test_the_policy_is_seeded_once_by_whoever_comes_first(bus: Bus) -> None:
    hosts = [bus.host() for _ in range(4)]
    async with running(*hosts):
        await bus.submit()
        await wait_until(lambda: bus.events("task.delegated"))
        await caught_up(bus, *hosts)
        proven(bus, *hosts)
    assert len(bus.events("policy.changed")) == 1
    assert bus.events()[0].type == "policy.changed"
    assert sum(host.stats.conflicts for host in hosts) > 0


async def test_a_standby_takes_over_when_the_active_engine_ends(bus: Bus) -> None:
    worker = await Hands(bus).join(capacity=100)
    first, second = bus.host(), bus.host()
    scope = anyio.CancelScope()

    async def until_cancelled() -> None:
        with scope:
            await first.run()

    async with anyio.create_task_group() as group:
        group.start_soon(until_cancelled)
        await worker.does(await _taken_after_submit(bus, worker))
        group.start_soon(second.run)
        await second.ready.wait()
        await worker.does(await _taken_after_submit(bus, worker))
        assert second.stats.turns == 0  # it stands by while the first one works
        scope.cancel()
        last = await _taken_after_submit(bus, worker)
        await worker.does(last)
        await bus.ended(last["task"])
        assert second.stats.turns > 0
        await caught_up(bus, second)
        proven(bus, second)
        group.cancel_scope.cancel()
    assert len(bus.folded().outcomes) == 3


async def _taken_after_submit(bus: Bus, worker: Hands) -> dict[str, str]:
    await bus.submit()
    return await worker.takes(within=8)


async def test_who_died_before_its_first_heartbeat_keeps_no_name(bus: Bus) -> None:
    """Given a worker that joined and was killed before it gave a heartbeat, when it is started
    again, then it asks until its name is free, and goes on."""
    async with running(bus.host()):
        await bus.tell("worker.joined", worker="w1", lease_s=6)
        task = await bus.submit()
        async with working(bus, "w1", lease_s=6):
            await wait_until(lambda: bus.events("worker.refused"), within=20)
            await bus.ended(task, within=40)


async def test_who_asks_for_the_name_of_a_living_worker_ends(bus: Bus) -> None:
    async with running(bus.host()):
        await Hands(bus, "w1").join(lease_s=600)
        with pytest.raises(ExceptionGroup) as refused:
            async with working(bus, "w1", lease_s=6):
                await wait_until(lambda: bus.events("worker.left"), within=20)
    assert "is alive" in str(refused.value.exceptions[0])


async def test_a_log_cut_to_nothing_before_the_first_look_at_its_head_is_noticed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus that began on an empty log must not take an emptied one for that."""
    monkeypatch.setattr(beginning, "GUARD_S", 1.5)
    async with running(bus.host()):
        await bus.submit()
        await wait_until(lambda: bus.events("task.delegated"), what="the first task on the log")
        await bus.client.call("XTRIM", bus.keys.log, "MAXLEN", 0)
        await wait_until(
            lambda: bus.events("log.trimmed"), within=30, what="the event that says so"
        )
