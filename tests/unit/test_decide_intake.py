"""The intakes: what comes in becomes facts once, and what cannot is named (T17, T18, T22)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.given import Bus

TOO_LONG = "x" * 300_000


def bus_running() -> tuple[Bus, str]:
    bus = Bus()
    bus.join("w1", capacity=3)
    task = bus.submit()
    bus.run()
    return bus, task


def errors(bus: Bus) -> list[str]:
    return [refused.error for refused in bus.refused]


def test_a_task_is_named_by_its_entry_or_by_its_writer() -> None:
    bus = Bus()
    given = bus.submit(task="my-task")
    made = bus.submit()
    bus.send("task.submitted", intake="asb:intake:w1", text="Do it")
    bus.run()
    assert {given, made} < set(bus.state.tasks)
    assert [t for t in bus.state.tasks if t.startswith("w1.")] != []


def test_what_the_writer_said_stands_untouched_beside_ours() -> None:
    bus = Bus()
    bus.submit(colour="red", deep={"a": [1, 2]})
    bus.run()
    data = json.loads(next(e.raw for e in bus.events if e.data.type == "task.submitted"))
    assert data["v"] == 1
    assert data["words"]["colour"] == "red"
    assert data["words"]["deep"] == {"a": [1, 2]}
    assert set(data["marks"]) == {"text", "others"}


def test_flat_fields_are_understood() -> None:
    bus = Bus()
    bus.put([b"type", b"usage.recorded", b"agent", b"codex", b"input_tokens", b"1500"])
    bus.run()
    assert bus.of("usage.recorded")[0].charged.tokens == 1_500


@pytest.mark.parametrize("later", [0, 25 * 3_600])
def test_a_repeat_of_an_id_does_nothing(later: int) -> None:
    bus = Bus()
    bus.submit(given_id="order-1")
    bus.run()
    bus.wait(later)
    bus.submit(given_id="order-1")
    bus.run()
    assert len(bus.of("task.submitted")) == 1
    assert errors(bus) == []


def test_an_id_twice_in_one_turn_counts_once() -> None:
    bus = Bus()
    for _ in range(5):
        bus.submit(given_id="order-1")
    bus.run()
    assert len(bus.of("task.submitted")) == 1


def test_the_same_id_with_other_content_is_refused_and_kept() -> None:
    """T18: the first stands, the second is a dead letter."""
    bus = Bus()
    bus.submit("One thing", given_id="order-1")
    bus.submit("Another thing", given_id="order-1")
    bus.run()
    assert bus.texts("task.submitted", "text") == ["One thing"]
    assert "used before, with other content" in errors(bus)[0]


def test_the_same_object_in_another_order_is_the_same_submission() -> None:
    bus = Bus()
    for data in (b'{"text":"k","priority":"low"}', b'{ "priority": "low",\n "text": "k" }'):
        bus.put([b"type", b"task.submitted", b"data", data, b"id", b"K1"])
        bus.run()
    assert len(bus.of("task.submitted")) == 1
    assert errors(bus) == []


@pytest.mark.parametrize("sign", ["\x9b31m", "\u202e", "\x1b[2J", "\u2028"])
def test_labels_hold_nothing_that_a_terminal_obeys(sign: str) -> None:
    bus, task = bus_running()
    for fields in (
        {"text": "x", "task": f"t{sign}"},
        {"text": "x", "model": f"m{sign}"},
        {"text": "x", "project": f"p{sign}"},
        {"text": "x", "agent": f"a{sign}"},
    ):
        bus.send("task.submitted", **fields)
    for name in ("agent", "worker", "model", "project", "kind", "task"):
        given: dict[str, Any] = {"agent": "codex", "total_tokens": 5, name: f"n{sign}"}
        bus.send("usage.recorded", **given)
    bus.send("worker.joined", worker="w2", models=[f"m{sign}"])
    bus.run()
    assert len(errors(bus)) == 11
    bus.report("task.completed", task, usage={"total_tokens": 5}, model=f"m{sign}")
    bus.run()
    assert bus.of("task.completed")[0].charged.tokens == 5  # no result is lost for its label


def test_one_id_at_two_intakes_is_two_things() -> None:
    bus = Bus()
    bus.submit(given_id="order-1")
    bus.send("task.submitted", given_id="order-1", intake="asb:intake:w1", text="Do it")
    bus.run()
    assert len(bus.of("task.submitted")) == 2


@pytest.mark.parametrize(
    "kind", ["task.started", "task.completed", "task.failed", "task.cancelled"]
)
def test_a_report_told_five_times_counts_once(kind: str) -> None:
    bus, task = bus_running()
    reported: dict[str, Any] = {
        "task": task,
        "attempt": 1,
        "session": bus.state.tasks[task].session,
    }
    for _ in range(5):
        bus.send(kind, **reported, retryable=False, usage={"total_tokens": 7})
    bus.run()
    assert len(bus.of(kind)) == 1
    tokens = sum(b.tokens for s in ("global",) for b in bus.state.scopes[s].hours.values())
    assert tokens == (0 if kind == "task.started" else 7)


def test_a_worker_that_says_it_never_began_costs_nothing() -> None:
    bus, task = bus_running()
    bus.report("task.failed", task, error="no such program", started=False, retryable=False)
    bus.run()
    assert bus.of("task.failed")[0].charged.tokens == 0


def test_a_result_without_usage_is_booked_at_the_hold_and_says_so() -> None:
    """T32: unknown is not zero; an explicit zero is."""
    bus, task = bus_running()
    hold = bus.state.tasks[task].hold_tokens
    bus.report("task.completed", task)
    bus.run()
    charged = bus.of("task.completed")[0].charged
    assert (charged.tokens, charged.estimated) == (hold, True)
    bus, task = bus_running()
    bus.report("task.completed", task, usage={"input_tokens": 0})
    bus.run()
    charged = bus.of("task.completed")[0].charged
    assert (charged.tokens, charged.estimated) == (0, False)


def test_an_unknown_price_is_flagged() -> None:
    bus = Bus()
    bus.send("usage.recorded", agent="codex", model="brand-new", input_tokens=10)
    bus.send("usage.recorded", agent="codex", model="brand-new", input_tokens=10, cost_usd="0.5")
    bus.run()
    first, second = (d.charged for d in bus.of("usage.recorded"))
    assert (first.unpriced, first.nanos) == (True, 0)
    assert (second.unpriced, second.nanos) == (False, 500_000_000)


@pytest.mark.parametrize(
    ("kind", "data", "word"),
    [
        ("task.submitted", {"text": ""}, "empty"),
        ("task.submitted", {"text": " \n\t"}, "empty"),
        ("task.submitted", {"text": TOO_LONG}, "300,000 bytes"),
        ("task.submitted", {"text": "a\x07b"}, "control character"),
        ("task.submitted", {"text": "x", "priority": "urgent"}, "priority"),
        ("task.submitted", {"text": "x", "kind": "gardening"}, "kind"),
        ("task.submitted", {"text": "x", "after": ["nowhere"]}, "unknown"),
        ("task.submitted", {"text": "x", "task": "me", "after": ["me"]}, "unknown"),
        ("task.submitted", {"text": "x", "timeout_s": -1}, "timeout_s"),
        ("task.submitted", {"text": "x", "estimate_tokens": -5}, "estimate_tokens"),
        ("task.submitted", {"text": "x", "estimate_tokens": 2**63}, "estimate_tokens"),
        ("task.submitted", {"text": "x", "worker": "a:b"}, "worker"),
        ("task.submitted", {"text": 5}, "text"),
        ("task.submitted", {"text": "x", "v": 9}, "newer"),
        ("task.submitted", {}, "text"),
        ("task.completed", {"task": "t9", "attempt": 1, "session": "s"}, "unknown"),
        ("task.completed", {"task": "t9"}, "attempt"),
        ("task.cancel_requested", {"task": "t9"}, "unknown"),
        ("usage.recorded", {"agent": "codex"}, "no tokens"),
        ("usage.recorded", {"agent": "codex", "input_tokens": -5}, "input_tokens"),
        ("usage.recorded", {"agent": "codex", "input_tokens": 2**63}, "input_tokens"),
        ("usage.recorded", {"agent": "codex", "input_tokens": "NaN"}, "input_tokens"),
        ("usage.recorded", {"agent": "codex", "input_tokens": 1, "cost_usd": "nan"}, "cost_usd"),
        ("usage.recorded", {"agent": "codex", "input_tokens": 1, "cost_usd": -1}, "cost_usd"),
        ("worker.joined", {"worker": "a b"}, "worker"),
        ("worker.joined", {"worker": "w2", "capacity": 0}, "capacity"),
        ("worker.left", {"worker": "nobody"}, "unknown"),
        (
            "policy.changed",
            {"set_limits": [{"scope": "moon", "unit": "tokens", "window": "hour", "amount": 1}]},
            "scope",
        ),
        ("task.dispatched", {"task": "t1"}, "decided by asb"),
        ("weather.changed", {}, "unknown type"),
    ],
)
def test_what_cannot_be_accepted_is_named_and_stops_nothing(
    kind: str, data: dict[str, Any], word: str
) -> None:
    bus = Bus()
    bus.send(kind, **data)
    good = bus.submit()
    bus.run()
    assert word in errors(bus)[0]
    assert list(bus.state.tasks) == [good]
    assert "global" not in bus.state.scopes


@pytest.mark.parametrize(
    "fields",
    [
        [b"hello", b"world"],
        [b"type", b"task.submitted", b"data", b"{broken"],
        [b"type", b"task.submitted", b"data", b'{"text":"\xff\xfe"}'],
        [b"type", b"\xff", b"data", b"{}"],
        [b"type", b"task.submitted", b"data", b"[" * 50_000],
        [b"type", b"task.submitted", b"id", b"\xff", b"data", b'{"text":"x"}'],
        [b"type", b"usage.recorded", b"agent", b"codex", b"input_tokens", b"many"],
    ],
)
def test_poison_of_any_shape_is_kept_with_a_reason(fields: list[bytes]) -> None:
    bus = Bus()
    bus.put(fields)
    good = bus.submit()
    bus.run()
    assert len(errors(bus)) == 1
    assert list(bus.state.tasks) == [good]


def test_a_task_cannot_be_submitted_twice_under_one_name() -> None:
    bus = Bus()
    bus.submit(task="mine")
    bus.submit("Something else", task="mine")
    bus.run()
    assert "exists already" in errors(bus)[0]


def test_an_intake_speaks_for_its_own_worker_only() -> None:
    bus, task = bus_running()
    bus.report("task.completed", task, intake="asb:intake:w2")
    bus.run()
    assert "may not speak for" in errors(bus)[0]
    assert bus.of("task.completed") == []


def test_a_result_that_is_too_long_is_cut_and_not_lost() -> None:
    bus, task = bus_running()
    bus.report("task.completed", task, result="y" * 200_000)
    bus.run()
    data = json.loads(bus.events[-1].raw)
    assert bus.state.outcomes[task].status == "completed"
    assert data["reported"]["truncated"]
    assert len(bus.events[-1].raw) < 70_000
