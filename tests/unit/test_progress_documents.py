"""What agents really write as progress, and what asb understands of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from events import document
from events.document import Totals, problem, read

SEED = """{
  "task": "TASK_ID",
  "status": "completed|in_progress|failed",
  "progress": 75,
  "tokens_used": {
    "prompt": 1500,
    "completion": 2500,
    "total": 4000
  },
  "timestamp": "ISO_DATE",
  "duration": "45 minutes",
  "deliverables": ["file1.js", "file2.json"]
}"""


def reported(value: Any) -> document.ReadDocument:
    return read(msgspec.json.encode(value))


def tokens(**used: Any) -> Totals | None:
    return reported({"tokens_used": used}).totals


def test_the_template_of_the_seed_is_understood_as_far_as_it_says_anything() -> None:
    found = read(SEED.encode())
    assert (found.status, found.percent, found.at) == ("unknown", 75, 0)
    assert found.totals == Totals(1500, 2500, total_tokens=4000)
    assert problem("{agent}", "{task}", SEED.encode(), 65_536) == ""


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("completed", "completed"),
        ("done", "completed"),
        ("in-progress", "in_progress"),
        ("In Progress", "in_progress"),
        ("working", "in_progress"),
        ("started", "in_progress"),
        ("FAILED", "failed"),
        ("canceled", "cancelled"),
        ("completed|in_progress|failed", "unknown"),
        ("", "unknown"),
        (7, "unknown"),
        (None, "unknown"),
    ],
)
def test_statuses_come_in_many_words(word: Any, status: str) -> None:
    assert reported({"status": word}).status == status
    if isinstance(word, str):
        assert reported(word).status == status


@pytest.mark.parametrize(
    ("progress", "percent"),
    [
        (75, 75),
        ("75%", 75),
        ("75.9 %", 75),
        (0.75, 75),
        (0.29, 29),
        (1.0, 100),  # a share of one that reached it
        ("1.0", 100),
        ("0.5%", 0),
        (1, 1),
        (250, 100),
        (-3, 0),
        ("most", None),
        (True, None),
        (None, None),
        ({}, None),
    ],
)
def test_percentages_come_in_many_forms(progress: Any, percent: int | None) -> None:
    assert reported({"progress": progress}).percent == percent


def test_what_is_completed_is_done_to_100_percent_unless_it_says_otherwise() -> None:
    assert reported({"status": "done"}).percent == 100
    assert reported({"status": "done", "progress": 90}).percent == 90


def test_token_parts_go_where_their_names_say_and_others_explain_the_total() -> None:
    assert tokens(prompt=2000, completion=3000, total=5000, model="gpt-4") == Totals(
        2000, 3000, total_tokens=5000
    )
    used = tokens(embedding_generation=15000, code_completion=3000, total=18000)
    assert used == Totals(total_tokens=18000)
    assert tokens(promptTokens=5, completionTokens=6) == Totals(5, 6)
    assert tokens(input=5, output=6, cache_read=7, cache_creation=8) == Totals(5, 6, 7, 8)


def test_missing_totals_are_computed_and_told_ones_win() -> None:
    for used, total in (
        ({"prompt": 10, "completion": 5}, 15),
        ({"prompt": 10, "completion": 5, "total": 40}, 40),
        ({"prompt": 10, "completion": 5, "total": 3}, 3),
    ):
        found = tokens(**used)
        assert found is not None
        assert found.total == total


def test_tokens_may_be_a_bare_number() -> None:
    for value in (4000, "4000", "4,000", 4000.0, 4e3):
        found = reported({"tokens_used": value})
        assert found.totals == Totals(total_tokens=4000)
        assert found.flaw == ""


def test_what_is_no_count_makes_tokens_unknown_and_is_said() -> None:
    for value in (-1, 1.5, "-7", "12.5K", "1.500", 10**30):
        found = reported({"tokens_used": {"prompt": value, "completion": 5}})
        assert found.totals is None
        assert "prompt" in found.flaw
        found = reported({"tokens_used": {"total": value}})
        assert found.totals is None
        assert "total" in found.flaw
    assert reported({"tokens_used": "many"}).flaw
    assert reported({"tokens_used": {"model": "gpt-4"}}).totals is None


def test_tokens_within_another_part_are_taken_out_of_it_and_money_is_none() -> None:
    used = tokens(input_tokens=10, output_tokens=20, reasoning_tokens=15, cached_tokens=9, cost=3)
    assert used == Totals(1, 20, 9)


def test_the_model_is_told_with_the_tokens_or_beside_them() -> None:
    assert reported({"tokens_used": {"total": 1, "model": "gpt-4"}, "model": "x"}).model == "gpt-4"
    assert reported({"model": "x"}).model == "x"
    assert reported({"model": {"name": 1}}).model == ""


def test_times_that_cannot_be_read_are_none() -> None:
    assert reported({"timestamp": "2025-08-29T13:00:00Z"}).at == 1_756_472_400_000_000
    assert reported({"timestamp": "2025-08-29T15:00:00+02:00"}).at == 1_756_472_400_000_000
    for bad in ("ISO_DATE", "yesterday", 17, "9999-99-99", "0001-01-01T00:00:00+14:00", None):
        assert reported({"timestamp": bad}).at == 0


@pytest.mark.parametrize("value", [b"75", b"true", b"null", b"[1]", b'"x"', b"{}", b"12.5"])
def test_any_json_is_a_document(value: bytes) -> None:
    assert problem("claude", "t", value, 100) == ""
    assert read(value).totals is None


@pytest.mark.parametrize(
    ("agent", "task", "raw", "said"),
    [
        ("", "t", b"{}", "no agent"),
        ("a", "", b"{}", "no task"),
        ("a:b", "t", b"{}", "colon"),
        ("a\n", "t", b"{}", "printable"),
        ("a", "t" * 201, b"{}", "200"),
        ("a", "t", b"{", "not JSON"),
        ("a", "t", b"\xff\xfe", "not JSON"),
        ("a", "t", b"[" * 5000 + b"]" * 5000, "nested too deep"),
        ("a", "t", b'"' + b"x" * 11_000 + b'"', "more than 10,240 bytes"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(
    agent: str, task: str, raw: bytes, said: str
) -> None:
    assert said in problem(agent, task, raw, 10_240)


def test_bare_words_become_json_strings_and_nothing_else_does() -> None:
    assert document.as_json(b"completed") == b'"completed"'
    assert document.as_json(b" in-progress \n") == b'"in-progress"'
    for same in (b'"completed"', b"75", b"true", b"null", b'{"a": 1}', b"<html>", b"\xff"):
        assert document.as_json(same) == same


def test_documents_are_nested_no_deeper_than_every_reader_can_go() -> None:
    def nested(depth: int) -> bytes:
        return b'{"text": "' + b"[" * 500 + b'", "list": ' + b"[" * depth + b"]" * depth + b"}"

    assert problem("a", "t", nested(document.DEPTH_MAX - 1), 10_000) == ""
    assert "nested too deep" in problem("a", "t", nested(document.DEPTH_MAX), 10_000)
    many = b"[" + b",".join([b'{"a": [1]}'] * 500) + b"]"
    assert problem("a", "t", many, 10_000) == ""
