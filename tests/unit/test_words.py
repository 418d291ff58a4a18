"""Words and figures: what somebody wrote stands under ``words`` and nowhere else."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.commands import COMMANDS
from events.envelope import decode, known_types, payload_class, text_of, words_of
from events.words import FORGOTTEN, mark_of, undeclared_fields
from projections import fold
from projections.state import State
from services.client.story import result_of
from tests.examples import SECOND, limit, policy
from tests.given import Bus, wire_entry

ROOT = Path(__file__).resolve().parents[2]
MARKER = "Xyzzy-plugh"
TEXTS = [c for name in known_types() if (c := payload_class(name)) is not None]


def test_every_field_that_can_hold_text_says_whether_it_is_private() -> None:
    """Given any event or command, each of its fields is declared in its class."""
    assert [f for cls in (*TEXTS, *COMMANDS.values()) for f in undeclared_fields(cls)] == []


def test_a_field_that_says_nothing_is_seen() -> None:
    class Note(msgspec.Struct):
        task: str
        size: int
        parts: tuple[dict[str, int], ...] = ()

    assert undeclared_fields(Note) == ["Note.task", "Note.parts"]


def a_day_of_words() -> Bus:
    """Every command with the marker wherever somebody may write what he likes."""
    bus = Bus(policy(limit("worker", "tokens", "hour", 10**9)))
    session = bus.join("w1", agent="codex", capacity=9, evidence=MARKER, note=MARKER)
    ids = [bus.submit(f"{MARKER} {n}", note={MARKER: n}, max_attempts=2) for n in range(4)]
    bus.run()
    done, failed, cancelled, running = ids
    for kind in ("task.delivered", "task.started"):
        bus.report(kind, done, note=MARKER, changes=MARKER)
    usage = {"input_tokens": 700, "note": MARKER}
    bus.report("task.completed", done, result={"a": MARKER}, usage=usage, model=f"{MARKER}\n")
    bus.report("task.failed", failed, error=MARKER, cost_usd=MARKER, duration_ms=MARKER)
    bus.send("task.cancel_requested", task=cancelled, reason=MARKER)
    bus.send("usage.recorded", agent="codex", input_tokens=5, note=MARKER, time=MARKER)
    bus.send("progress.updated", agent="codex", task=running, document={MARKER: MARKER})
    held = [{"task": MARKER, "attempt": 1, "evidence": MARKER}]
    bus.run()
    bus.report("task.cancelled", cancelled, reason=MARKER)
    bus.send("worker.paused", worker="w1", reason=MARKER)
    bus.send("worker.resumed", worker="w1", reason=MARKER)
    bus.send("worker.state", worker="w1", state="busy", reason=MARKER)
    refusal = {"until": bus.now // SECOND + 3_600, "evidence": MARKER}
    bus.report("task.failed", running, error=MARKER, calls=0, limit=refusal)
    bus.run()
    for account in bus.state.accounts:
        bus.send("account.released", account=account, reason=MARKER)
    bus.run()
    bus.join("w1", take_over=True, evidence=MARKER, holds=held)
    bus.send("clock.confirmed", reason=MARKER)
    examples = [{"kind": "ui", "text": MARKER}]
    bus.send("delegator.learnt", overlay={MARKER: "e+50"}, examples=examples, reason=MARKER)
    bus.send("policy.changed", plausible_tokens=10, reason=MARKER)
    bus.run()
    bus.send("usage.corrected", task=done, attempt=1, tokens=9, reason=MARKER, session=session)
    bus.send("usage.corrected", task=done, attempt=1, tokens=9, reason=MARKER)
    bus.send("worker.left", worker="w1", note=MARKER)
    bus.wait(60)
    return bus


def public_part(entry: list[Any]) -> list[Any]:
    """An entry of the log without its words, as one whose words were forgotten."""
    log_id, fields = entry
    data = json.loads(fields[-1])
    if data.pop("words", None) is not None:
        data["forgotten_at"] = 1
    return [log_id, [*fields[:-1], json.dumps(data, separators=(",", ":")).encode()]]


def test_what_somebody_wrote_stands_nowhere_but_under_words() -> None:
    bus = a_day_of_words()
    with_words = {command.type for command in COMMANDS.values() if command.private}
    assert with_words - bus.sent == set(), "the day above does without these"
    written = {entry[1][1] for entry in bus.log if MARKER.encode() in entry[1][-1]}
    assert len(written) >= 15
    public = [public_part(entry) for entry in bus.log]
    assert [entry for entry in public if MARKER.encode() in b" ".join(entry[1])] == []
    assert MARKER.encode() not in bus.state.encode()
    assert not any(MARKER in refused.error for refused in bus.refused)


def test_without_words_the_log_folds_to_the_same_bytes() -> None:
    """Given a log, when all its words are taken out, then each of its places folds as before."""
    bus = a_day_of_words()
    whole, bare = State(), State()
    for entry in bus.log:
        fold.apply(whole, decode(entry))
        fold.apply(bare, decode(public_part(entry)))
        assert whole.digest() == bare.digest()
    assert whole.digest() == bus.state.digest()


def test_a_mark_tells_the_length_and_needs_the_secret() -> None:
    bus = a_day_of_words()
    entry = next(e for e in bus.log if e[1][1] == b"task.completed")
    data = json.loads(entry[1][-1])
    assert set(data["marks"]) >= {"result", "usage"}
    assert data["reported"]["input_tokens"] == 700
    text = "Fix the login form"
    assert mark_of(text, b"1" * 64).length == len(text)
    assert mark_of(text, b"1" * 64) != mark_of(text, b"2" * 64)
    assert mark_of(msgspec.Raw(b'"\\u00e4"'), b"1") == mark_of("ä", b"1")


def test_words_that_are_gone_show_as_forgotten() -> None:
    bus = a_day_of_words()
    gone = [decode(public_part(entry)) for entry in bus.log]
    submitted = next(e for e in gone if e.type == "task.submitted")
    assert text_of(submitted, "text") == FORGOTTEN
    assert words_of(submitted) == {}
    assert result_of([e for e in gone if e.type == "task.completed"]) == FORGOTTEN
    assert text_of(next(e for e in gone if e.type == "worker.left"), "reason") == ""


def test_no_fold_reads_words() -> None:
    """Folds see private fields empty; that none even looks at one is plain from the source."""
    private = {name for cls in TEXTS for name in cls.private}
    public = {f for cls in TEXTS for f in cls.__struct_fields__} - private
    reads = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in sorted((ROOT / "projections").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in private - public
        and ast.unparse(node.value) in ("payload", "event.data")
    ]
    assert reads == []
    assert {"text", "error", "document"} <= private


@pytest.mark.parametrize(
    ("changes", "reused"),
    [({}, True), ({"text": "Fix it"}, False), ({"kind": "ui"}, False), ({"project": "b"}, False)],
)
def test_the_result_of_the_same_task_is_reused_by_its_mark(
    changes: dict[str, Any], reused: bool
) -> None:
    bus = Bus(policy())
    bus.join("w1", capacity=5)
    asked: dict[str, Any] = {"text": "Fix the form", "kind": "api", "project": "a"}
    first = bus.submit(**asked)
    bus.run()
    bus.report("task.completed", first, result="done")
    bus.run()
    again = bus.submit(**{**asked, **changes}, reuse=True)
    bus.run()
    assert (bus.of("task.completed")[-1].reused == first) == reused
    assert (again in bus.state.outcomes) == reused


def test_what_is_decided_is_read_as_it_stands_on_the_log() -> None:
    """Given a turn, then its events are, word for word, what a reader of the log has."""
    bus = a_day_of_words()
    for event in bus.events:
        assert event == decode(wire_entry(event))
