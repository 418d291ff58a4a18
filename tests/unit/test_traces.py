"""Spans of tasks: which, from when to when, and whose ids."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from events.envelope import Event, Payload
from events.trace import span_id, trace_id, traceparent
from services.traces.journeys import Journeys, Stretch
from services.traces.service import headers_of
from tests.examples import (
    NOON,
    cancelled,
    charge,
    completed,
    delegated,
    dispatched,
    failed,
    joined,
    requeued,
    submitted,
    usage_recorded,
)
from tests.given import given

SECOND = 1_000_000


def spans(*payloads: Payload, journeys: Journeys | None = None) -> list[Stretch]:
    """What ends with these, which come a second apart."""
    journeys = journeys or Journeys("asb")
    return journeys.spans(
        Event(payload, NOON + number * SECOND) for number, payload in enumerate(payloads)
    )


def stretches(ended: Sequence[Stretch]) -> list[tuple[str, float, float, str]]:
    return [(s.name, (s.began - NOON) / SECOND, (s.ended - NOON) / SECOND, s.error) for s in ended]


def test_a_task_is_a_trace_with_its_decision_and_its_attempt() -> None:
    ended = spans(submitted(), delegated(), dispatched(), completed())
    assert stretches(ended) == [("decision", 0, 2, ""), ("attempt", 2, 3, ""), ("task", 0, 3, "")]
    decision, attempt, task = ended
    assert {s.trace for s in ended} == {trace_id("asb", "t1")}
    assert decision.parent == attempt.parent == task.id == span_id("asb", "t1", "task")
    assert task.parent == b""
    assert len({s.id for s in ended}) == 3


def test_an_attempt_tells_all_that_it_was_charged() -> None:
    used = replace(usage_recorded().charged, cache_read_tokens=50, output_tokens=7)
    ended = spans(
        submitted(), dispatched(), usage_recorded(charged=used), completed(charged=charge(600))
    )
    attributes = ended[1].attributes
    assert attributes["gen_ai.usage.input_tokens"] == 200 + 50 + 600
    assert attributes["gen_ai.usage.output_tokens"] == 7
    assert attributes["asb.counted_tokens"] == 800
    assert attributes["gen_ai.agent.name"] == "codex"
    assert attributes["gen_ai.request.model"] == "sonnet"


def test_a_retry_is_another_decision_and_another_attempt() -> None:
    ended = spans(
        submitted(),
        dispatched(),
        failed(retry_at=NOON + 3 * SECOND),
        requeued(charged=None),
        dispatched(attempt=2),
        completed(attempt=2),
    )
    assert stretches(ended) == [
        ("decision", 0, 1, ""),
        ("attempt", 1, 2, "failed"),
        ("decision", 3, 4, ""),
        ("attempt", 4, 5, ""),
        ("task", 0, 5, ""),
    ]
    assert len({s.id for s in ended}) == 5


def test_a_late_report_of_an_older_attempt_ends_nothing() -> None:
    begun = (submitted(), dispatched(), requeued(), dispatched(attempt=2))
    assert not spans(*begun, completed(stale=True))[3:]


def test_a_task_that_never_began_has_but_itself() -> None:
    ended = spans(submitted(), cancelled(attempt=0, charged=None))
    assert stretches(ended) == [("task", 0, 1, "cancelled")]


def test_a_reader_that_comes_later_knows_the_open_tasks() -> None:
    before = given(joined(), submitted(), delegated(), dispatched(), usage_recorded())
    journeys = Journeys("asb")
    journeys.restored(before.state)
    ended = spans(completed(), journeys=journeys)
    whole = spans(submitted(), delegated(), dispatched(), usage_recorded(), completed())
    assert [(s.name, s.id, s.attributes) for s in ended] == [
        (s.name, s.id, s.attributes) for s in whole[1:]
    ]
    assert spans(completed(), journeys=journeys) == []  # it has ended


def test_nothing_of_what_was_written_is_told() -> None:
    told = repr(spans(submitted(text="SESAME"), delegated(reason="SESAME"), dispatched(), failed()))
    assert "SESAME" not in told
    assert "exit code" not in told


def test_an_agent_is_told_where_its_work_belongs() -> None:
    version, trace, parent, flags = traceparent("asb", "t1", 1).split("-")
    assert (version, flags) == ("00", "01")
    _, attempt, _ = spans(submitted(), dispatched(), completed())
    assert (trace, parent) == (attempt.trace.hex(), attempt.id.hex())
    assert traceparent("asb", "t1", 2) != traceparent("asb", "t1", 1)
    assert traceparent("team", "t1", 1).split("-")[1] != trace


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    assert headers_of("") == {}
    assert headers_of("Authorization=Bearer a=b, x-scope = 7,") == {
        "Authorization": "Bearer a=b",
        "x-scope": "7",
    }
