"""The envelope: what stands on the log is read back as it was written, or stops the reader."""

from __future__ import annotations

import json
from copy import copy
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from events.envelope import (
    FIELDS,
    Event,
    ForeignEntry,
    Payload,
    UnsupportedEvent,
    blank,
    decode,
    known_types,
    words_of,
)
from projections import fold
from projections.state import State
from tests import examples
from tests.given import given, wire, wire_entry

PAYLOADS = examples.every_payload()


def entry(kind: str, data: bytes, **changes: bytes) -> list[Any]:
    fields = {"type": kind.encode(), "id": b"e1", "source": b"engine", "from": b"", "at": b"7"}
    fields = {**fields, **changes, "data": data}
    return [b"5-1", [part for name, value in fields.items() for part in (name.encode(), value)]]


def test_there_is_an_example_of_every_type() -> None:
    assert sorted(PAYLOADS) == known_types()


def test_wire_names_are_the_contract() -> None:
    """Literals here, so that renaming a class or a module cannot rename what is on the log."""
    assert set(known_types()) >= {
        *("task.submitted", "task.delegated", "task.deferred", "task.dispatched"),
        *("task.delivered", "task.started", "task.cancel_requested", "task.cancelled"),
        *("task.completed", "task.failed", "task.requeued", "hold.extended"),
        *("usage.recorded", "usage.corrected", "progress.updated"),
        *("worker.joined", "worker.paused", "worker.resumed", "worker.left", "worker.lost"),
        "worker.refused",
        *("policy.changed", "alert.raised", "report.issued"),
    }
    assert FIELDS == ("type", "id", "source", "from", "at", "data")


def as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=lambda p: p.type)
def test_every_payload_comes_back_as_it_was_written(payload: Payload) -> None:
    event = Event(
        payload, 1_795_348_800_000_001, "1795348800000-3", "engine", "asb:intake 9-0", "e1"
    )
    event.raw = wire(payload)
    read = decode(wire_entry(event))
    assert words_of(read) == {
        name: as_json(value) for name in payload.private if (value := getattr(payload, name))
    }
    public = copy(payload)
    blank(public)
    if hasattr(public, "marks"):  # their folds read marks
        assert getattr(public, "marks") != read.data.marks  # noqa: B009
        setattr(public, "marks", read.data.marks)  # noqa: B010
    assert read == replace(event, data=public)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=lambda p: p.type)
def test_the_version_comes_first_and_the_rest_is_json(payload: Payload) -> None:
    raw = wire(payload)
    assert raw.startswith(b'{"v":1')
    assert next(iter(json.loads(raw))) == "v"


def test_an_event_of_no_fields_is_still_json() -> None:
    class Empty(Payload):
        pass

    assert wire(Empty()) == b'{"v":1}'


def test_fields_of_later_versions_survive() -> None:
    raw = b'{"v":1,"task":"t1","colour":"red","deep":{"a":[1,2]}}'
    found = decode(entry("task.cancel_requested", raw))
    assert found.data.task == "t1"
    assert found.raw == raw


def test_an_optional_unknown_type_is_skipped_and_counted() -> None:
    found = decode(entry("weather.changed", b'{"v":3,"optional":true,"sun":1}'))
    state = State()
    fold.apply(state, found)
    assert (state.meta.unknown, state.meta.events, state.meta.log_id) == (1, 1, "5-1")


def test_an_optional_newer_version_is_skipped_and_counted() -> None:
    found = decode(entry("task.submitted", b'{"v":2,"optional":true,"what":"?"}'))
    state = State()
    fold.apply(state, found)
    assert state.meta.unknown == 1
    assert state.tasks == {}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("weather.changed", b'{"v":1}'),
        ("task.submitted", b'{"v":2,"task":"t1","text":"x"}'),
        ("task.submitted", b'{"v":12,"task":"t1","text":"x"}'),
        ("task.submitted", b'{"task":"t1","text":"x","v":2}'),
    ],
)
def test_what_this_version_does_not_know_stops_the_reader(kind: str, data: bytes) -> None:
    with pytest.raises(UnsupportedEvent, match="5-1"):
        decode(entry(kind, data))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("weather.changed", b"not json"),
        ("weather.changed", b'{"v":"one"}'),
        ("weather.changed", b"{}"),
        ("task.submitted", b'{"v":"2","task":"t1","text":"x"}'),
        ("task.submitted", b'{"v":1,"task":5}'),
        ("task.submitted", b'{"v":1,"task":"t1","text":"\xff"}'),
        ("task.submitted", b"[1]"),
        ("task.submitted", b""),
        ("task.submitted", b"[" * 100_000),
        ("\ufffd", b"{}"),
    ],
)
def test_contents_that_no_event_of_ours_has_are_foreign(kind: str, data: bytes) -> None:
    with pytest.raises(ForeignEntry, match="5-1"):
        decode(entry(kind, data))


@pytest.mark.parametrize(
    "fields",
    [
        [b"hello", b"world"],
        [b"a", b"task.submitted", *[b"x"] * 10],
        [b"data", b"{}", b"type", b"task.submitted", *[b"x"] * 8],
        [b"type", b"task.submitted", b"data", b"{}"],
        [b"type", b"task.submitted"],
        [b"type", b"\xff\xfe"],
    ],
)
def test_entries_without_our_fields_are_foreign(fields: list[bytes]) -> None:
    with pytest.raises(ForeignEntry, match="5-1"):
        decode([b"5-1", fields])


@pytest.mark.parametrize(
    "changes", [{"at": b"soon"}, {"source": b"\xff"}, {"at": b""}, {"at": b"+5"}, {"at": b"1_0"}]
)
def test_an_envelope_out_of_shape_is_foreign(changes: dict[str, bytes]) -> None:
    raw = wire(examples.started())
    with pytest.raises(ForeignEntry, match="5-1"):
        decode(entry("task.started", raw, **changes))


def test_numbers_on_the_wire_are_whole() -> None:
    """T35: no float in what we write; money and tokens are integers to the last digit."""

    def floats(value: Any) -> list[float]:
        if isinstance(value, dict):
            values: list[Any] = list(value.values())  # pyright: ignore[reportUnknownArgumentType]
            return [f for item in values for f in floats(item)]
        if isinstance(value, list):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            return [f for item in items for f in floats(item)]
        return [value] if isinstance(value, float) else []

    for payload in PAYLOADS.values():
        assert floats(msgspec.json.decode(wire(payload))) == []


def test_facts_for_people_change_nothing_but_the_place() -> None:
    case = given(examples.submitted())
    before = [msgspec.structs.asdict(t) for t in case.state.tasks.values()]
    case.given(examples.delivered(), examples.alert_raised(), examples.report_issued())
    assert [msgspec.structs.asdict(t) for t in case.state.tasks.values()] == before
