"""The result of a task whose submission was torn off the log: its usage counts once, as foreign."""

from __future__ import annotations

from typing import Any

import pytest

from projections import usage
from services.audit.check import Audit
from services.intake.decide import asks
from services.queries.conservation import books
from tests.examples import policy
from tests.given import Bus, intake_entry, replayed

ENDS = ("task.completed", "task.failed", "task.cancelled")


def reported(bus: Bus, kind: str, **more: Any) -> None:
    data: dict[str, Any] = {"task": "gone", "attempt": 1, "session": "77-0", **more}
    bus.send(kind, **data)
    bus.run()


def tokens(bus: Bus) -> int:
    return usage.total(bus.state.lifetime.values()).tokens


@pytest.mark.parametrize("kind", ENDS)
def test_its_usage_is_charged_as_foreign_work_once_and_the_rest_is_a_dead_letter(kind: str) -> None:
    bus = Bus(policy())
    session = bus.join("w1", agent="codex")
    bus.run()
    for _ in range(3):
        reported(bus, kind, session=session, usage={"input_tokens": 700}, model="sonnet")
    assert tokens(bus) == 700
    assert [e.error for e in bus.refused] == [
        "task 'gone' is unknown to this log; its usage was charged as foreign work"
    ]
    (recorded,) = bus.of("usage.recorded")
    assert (recorded.charged.agent, recorded.charged.worker) == ("codex", "w1")
    assert bus.state.workers["w1"].completed == 0
    assert bus.state.scopes["worker:w1"].hours
    audit = Audit()
    for entry in bus.log:
        audit.feed(entry)
    assert audit.findings == []
    assert all(row.good for row in books(audit, bus.state))
    assert replayed(bus.log).digest() == bus.state.digest()


def test_another_attempt_of_it_counts_by_itself() -> None:
    bus = Bus(policy())
    for attempt in (1, 2, 1, 2):
        reported(bus, "task.completed", attempt=attempt, usage={"input_tokens": 100})
    assert tokens(bus) == 200


def test_without_usage_it_is_a_dead_letter_only() -> None:
    bus = Bus(policy())
    reported(bus, "task.completed", result="done")
    assert bus.state.lifetime == {}
    assert bus.refused[0].error == "task 'gone' is unknown"


def test_a_named_stream_speaks_for_its_own_worker_only() -> None:
    bus = Bus(policy())
    session = bus.join("w1")
    bus.send("intake.opened", name="w2")
    bus.run()
    data: dict[str, Any] = {"task": "gone", "attempt": 1, "session": session}
    data["usage"] = {"input_tokens": 9}
    bus.send("task.completed", intake="asb:intake:w2", **data)
    bus.run()
    assert bus.state.lifetime == {}
    assert "may not speak for" in bus.refused[0].error


def test_a_task_that_ended_too_long_ago_to_be_remembered_is_not_lost() -> None:
    bus = Bus(policy())
    bus.ever.add("gone")
    reported(bus, "task.completed", usage={"input_tokens": 100})
    assert (bus.state.lifetime, bus.refused) == ({}, [])


def test_what_it_reports_beyond_the_plausible_is_disputed() -> None:
    bus = Bus(policy())
    reported(bus, "task.completed", usage={"input_tokens": 10**12})
    assert tokens(bus) == 2_000_000
    assert len(bus.state.disputes) == 1


@pytest.mark.parametrize("kind", ENDS)
def test_whether_a_task_ended_long_ago_is_looked_up_for_its_result(kind: str) -> None:
    entry = intake_entry(kind, "5-0", {"task": "gone", "attempt": 1, "session": "77-0"})
    assert asks(Bus(policy()).state, [entry]).tasks == {"gone"}
