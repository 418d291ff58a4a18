"""Progress documents as usage: what they add, to whom, and what they never do."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from events.envelope import beside, words_of
from events.usage import ProgressUpdated
from projections import budgets, progress, usage
from projections.state import State, decode_state
from tests.examples import DAY, NOON, policy, progress_updated
from tests.given import Bus, given, replayed


def bus_with_task(task: str = "CL-102", worker: str = "w1", **data: Any) -> Bus:
    """A bus on which ``task`` runs at a worker that serves every agent."""
    bus = Bus(policy())
    bus.join(worker, **data)
    bus.run()
    bus.submit(task=task, agent="claude", model="sonnet", estimate_tokens=10_000)
    bus.run()
    bus.report("task.started", task)
    bus.run()
    return bus


def tell(bus: Bus, used: Any, key: str = "claude:CL-102", **more: Any) -> ProgressUpdated:
    """One document with these tokens goes through the intake; the event it became."""
    agent, _, task = key.partition(":")
    document = {"status": "in_progress", "tokens_used": used, **more}
    bus.send("progress.updated", agent=agent, task=task, document=document)
    bus.run()
    return bus.of("progress.updated")[-1]


def used_tokens(bus: Bus) -> int:
    """All tokens charged, wherever one looks."""
    total = usage.total(bus.state.lifetime.values()).tokens
    assert total == budgets.used(bus.state, "global", "day", bus.now).tokens
    events = [getattr(e.data, "charged", None) for e in bus.events]
    assert total == sum(b.tokens for b in events if b is not None)
    return total


# -- work that asb did not dispatch ------------------------------------------------------------


def test_running_totals_are_booked_by_their_differences() -> None:
    bus = Bus(policy())
    for total in (1000, 2500, 2500, 4000):
        tell(bus, {"prompt": total // 5, "completion": total - total // 5, "model": "sonnet"})
    assert used_tokens(bus) == 4000
    cells = usage.by(bus.state.lifetime, "agent")
    assert (cells["claude"].input_tokens, cells["claude"].output_tokens) == (800, 3200)
    assert usage.by(bus.state.lifetime, "model")["sonnet"].nanos == 4000 * 9000


def test_a_total_that_falls_is_flagged_and_takes_nothing_away() -> None:
    bus = Bus(policy())
    tell(bus, 5000)
    fallen = tell(bus, 200)
    assert fallen.charged is None
    assert fallen.flag == "tokens fell from 5000 to 200"
    assert bus.state.progress["claude:CL-102"].flag == fallen.flag
    assert tell(bus, 6000).flag == ""
    assert used_tokens(bus) == 6000


def test_a_bare_total_followed_by_its_parts_is_counted_once() -> None:
    bus = Bus(policy())
    tell(bus, 5000)
    tell(bus, {"prompt": 2000, "completion": 3000, "total": 5000})
    tell(bus, {"prompt": 2000, "completion": 4000, "total": 6000})
    assert used_tokens(bus) == 6000


def test_a_document_without_tokens_is_no_usage() -> None:
    bus = Bus(policy())
    bus.send("progress.updated", agent="claude", task="CL-102", document="completed")
    bus.run()
    (event,) = bus.of("progress.updated")
    assert (event.charged, event.status) == (None, "completed")


def test_foreign_work_that_is_done_counts_once_as_a_task_of_its_agent() -> None:
    bus = Bus(policy())
    for status in ("in_progress", "completed", "in_progress", "completed"):
        tell(bus, {"total": 10}, key="codex:migration", status=status)
    tell(bus, {"total": 10}, key="codex:other", status="failed")
    by_agent = usage.by(bus.state.lifetime, "agent")
    assert {agent: cell.completed for agent, cell in by_agent.items()} == {"codex": 1}
    assert usage.total(bus.state.days[min(bus.state.days)].values()).completed == 1
    assert bus.state.meta.completed == 0  # asb gave out none of it


def test_a_document_of_a_task_of_ours_is_no_task_more() -> None:
    bus = bus_with_task()
    tell(bus, {"total": 10}, status="completed")
    assert usage.total(bus.state.lifetime.values()).completed == 0


def test_an_unknown_price_is_flagged_and_not_taken_for_nothing() -> None:
    bus = Bus(policy())
    charged = tell(bus, {"total": 10, "model": "gpt-4"}).charged
    assert charged is not None
    assert (charged.model, charged.unpriced, charged.tokens) == ("gpt-4", True, 10)


def test_the_document_stands_on_the_log_as_it_was_written() -> None:
    document = b'{ "status":"done",\n "cost": 1.50, "own": {"b":1,"a":[1e2]} }'
    bus = Bus(policy())
    data = b'{"agent":"claude","task":"t","document":' + document + b"}"
    bus.put([b"type", b"progress.updated", b"data", data])
    bus.run()
    assert document in bus.log[-1][1][-1]
    written = beside(bus.events[-1]).words["document"]
    assert bytes(written) == document


def test_the_writers_own_time_counts_in_reports_only_and_only_if_it_can_be_true() -> None:
    bus = Bus(policy())
    yesterday, long_ago, tomorrow = (
        "2026-11-21T13:00:00Z",
        "2025-08-29T13:00:00Z",
        "2026-11-23T13:00:00Z",
    )
    for n, (at, day) in enumerate(
        [(yesterday, "2026-11-21"), (long_ago, "2026-11-22"), (tomorrow, "2026-11-22")]
    ):
        tell(bus, 100 * (n + 1), timestamp=at)
        assert day in bus.state.days
        assert (long_ago[:10] in bus.state.days, tomorrow[:10] in bus.state.days) == (False, False)
    assert budgets.used(bus.state, "global", "hour", bus.now).tokens == 300


def test_names_that_only_progress_keys_have_are_taken() -> None:
    bus = Bus(policy())
    tell(bus, 10, key="{agent}:{task}")
    tell(bus, 10, key="a b:c:d e")
    assert set(bus.state.progress) == {"{agent}:{task}", "a b:c:d e"}
    assert bus.refused == []


def test_what_is_no_document_is_a_dead_letter_with_the_reason() -> None:
    bus = Bus(policy())
    bus.send("progress.updated", agent="claude", task="t", document="x" * 70_000)
    bus.send("progress.updated", agent="a:b", task="t", document={})
    bus.send("progress.updated", agent="a", task="t", document="?", unreadable="it is a hash")
    bus.run()
    assert [r.error.split(";")[0] for r in bus.refused] == [
        "document has more than 65,536 bytes",
        "agent 'a:b' must not hold a colon: there the task begins",
        "it is a hash",
    ]


# -- attempts ----------------------------------------------------------------------------------


def test_a_document_belongs_to_the_attempt_that_runs_and_eats_its_hold() -> None:
    bus = bus_with_task()
    event = tell(bus, {"prompt": 2000, "completion": 1000})
    assert event.attempt == 1
    assert event.charged is not None
    assert (event.charged.worker, event.charged.model) == ("w1", "sonnet")
    task = bus.state.tasks["CL-102"]
    assert (task.used_tokens, task.hold_left[0]) == (3000, 7000)
    assert budgets.held(bus.state, "global", "tokens") == 7000


def test_its_end_without_usage_stands_on_what_progress_told() -> None:
    bus = bus_with_task()
    tell(bus, 3000)
    bus.report("task.completed", "CL-102")
    bus.run()
    assert used_tokens(bus) == 3000
    charged = bus.of("task.completed")[0].charged
    assert (charged.tokens, charged.estimated, charged.meter) == (0, False, "progress")
    assert usage.total(bus.state.lifetime.values()).completed == 1


def test_the_drivers_figure_is_compared_and_never_added() -> None:
    bus = bus_with_task()
    tell(bus, 3000)
    bus.report("task.completed", "CL-102", usage={"input_tokens": 4000, "output_tokens": 500})
    bus.run()
    assert used_tokens(bus) == 4500


def test_once_a_better_meter_spoke_the_difference_is_published_and_not_added() -> None:
    bus = bus_with_task()
    bus.report("usage.recorded", "CL-102", agent="claude", input_tokens=4000, meter="driver")
    bus.run()
    event = tell(bus, 5500)
    assert (event.charged, event.against, event.difference) == (None, "driver", 1500)
    assert used_tokens(bus) == 4000


def test_totals_start_anew_with_each_attempt() -> None:
    bus = bus_with_task()
    tell(bus, 3000)
    bus.report("task.failed", "CL-102", error="again, please")
    bus.run()
    bus.wait(60)
    bus.report("task.started", "CL-102")
    bus.run()
    assert bus.state.tasks["CL-102"].attempt == 2
    event = tell(bus, 2000)
    assert (event.attempt, event.flag) == (2, "")
    assert used_tokens(bus) == 5000
    assert bus.state.progress["claude:CL-102"].seen.total == 2000


def test_what_was_foreign_before_the_dispatch_is_no_part_of_the_attempt() -> None:
    bus = Bus(policy())
    tell(bus, 700)
    bus.join("w1")
    bus.submit(task="CL-102", agent="claude", model="sonnet")
    bus.run()
    assert tell(bus, 900).attempt == 1
    assert used_tokens(bus) == 1600


def test_the_last_document_of_an_ended_attempt_adds_only_what_was_not_booked() -> None:
    bus = bus_with_task()
    bus.report("task.completed", "CL-102", usage={"total_tokens": 3000})
    bus.run()
    assert tell(bus, 3000, status="completed").attempt == 0
    assert used_tokens(bus) == 3000
    tell(bus, 3400, status="completed")
    assert used_tokens(bus) == 3400


def test_two_keys_about_one_attempt_are_two_tellings_of_the_same_work() -> None:
    bus = bus_with_task()
    tell(bus, 3000, key="claude:CL-102")
    tell(bus, 3200, key="w1:CL-102")
    tell(bus, 3100, key="claude-code:CL-102")
    assert used_tokens(bus) == 3200


def test_another_worker_cannot_speak_for_the_attempt() -> None:
    bus = bus_with_task()
    bus.join("gemini")
    bus.run()
    event = tell(bus, 3000, key="gemini:CL-102")
    assert event.attempt == 0
    assert bus.state.tasks["CL-102"].used_tokens == 0
    intake = "asb:intake:gemini"
    bus.send("progress.updated", agent="claude", task="x", document={}, intake=intake)
    bus.run()
    assert [r.error for r in bus.refused] == [
        "the intake of gemini may not speak for agent 'claude'"
    ]


# -- read again --------------------------------------------------------------------------------


def test_a_document_read_before_another_was_taken_is_not_taken_on_top_of_it() -> None:
    bus = Bus(policy())
    for _ in range(3):
        bus.send("progress.updated", agent="c", task="t", document={"n": 1}, newest="")
    bus.run()
    place = bus.state.progress["c:t"].log_id
    bus.send("progress.updated", agent="c", task="t", document={"n": 2}, newest="")
    bus.send("progress.updated", agent="c", task="t", document={"n": 3}, newest=place)
    bus.run()
    reported = [
        words_of(e)["document"]["n"] for e in bus.events if e.data.type == "progress.updated"
    ]
    assert reported == [1, 3]
    assert bus.refused == []


# -- the records -------------------------------------------------------------------------------


def test_ten_thousand_records_are_kept_and_ended_ones_go_first() -> None:
    state = State()
    world = given(at=NOON)
    world.state = state
    for n in range(10_000):
        status = "completed" if n >= 9_500 else "in_progress"
        world.given(progress_updated(f"t{n}", status=status))
    assert len(state.progress) == 10_000
    world.given(progress_updated("one more"))
    assert len(state.progress) == 9_001
    assert not any(r.status == "completed" for r in state.progress.values())
    assert "codex:t0" not in state.progress
    assert "codex:t500" in state.progress
    again = decode_state(state.encode())
    assert again is not None
    assert again.digest() == state.digest()


def test_an_ended_record_is_over_after_thirty_days() -> None:
    bus = Bus(policy())
    tell(bus, 500, status="completed")
    bus.now += 31 * DAY
    assert tell(bus, 400).flag == ""
    assert usage.total(bus.state.lifetime.values()).tokens == 900


def test_a_turn_that_did_not_reach_the_log_leaves_no_trace() -> None:
    bus = bus_with_task()
    tell(bus, 3000)
    before = bus.state.digest()
    document = {"tokens_used": 9000}
    bus.send("progress.updated", agent="claude", task="CL-102", document=document)
    turn = bus.decide()
    assert len(turn.events) == 1
    bus.undo()
    assert bus.state.digest() == before


def test_replay_folds_the_same_records() -> None:
    bus = bus_with_task()
    tell(bus, {"prompt": 2000, "completion": 1000, "model": "gpt-4"})
    tell(bus, 100, key="codex:migration")
    assert replayed(bus.log).digest() == bus.state.digest()


def test_events_of_older_versions_are_folded() -> None:
    old = replace(progress_updated(), document=msgspec.Raw(b'"started"'))
    state = given(old).state
    assert progress.newest(state, "codex", "t1", NOON) is not None
