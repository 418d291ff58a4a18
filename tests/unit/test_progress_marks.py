"""The mark of a progress view: what is ours, and what an agent made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.progress import marks

KEY = "asb:progress:claude:CL-102"
FACTS: dict[str, Any] = {"as_of": "7-1", "document": "7-0", "status": "in_progress", "cost": "$1"}


def view(document: bytes = b'{"status": "working", "n": 1.50}', **facts: Any) -> bytes:
    return marks.render(KEY, document, {**FACTS, **facts})


def test_a_view_of_ours_is_known_as_ours_and_says_where_it_stands() -> None:
    found = marks.ours(KEY, view())
    assert found == marks.Ours("7-1", "7-0")


def test_what_an_agent_wrote_is_kept_byte_for_byte_in_each_field() -> None:
    raw = b'{"status": "working", "big": 12345678901234567890.10, "o": {"b" : 1,"a": [1e2]}}'
    shown = view(raw)
    for part in (b"12345678901234567890.10", b'{"b" : 1,"a": [1e2]}', b'"working"'):
        assert part in shown


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        (b'"completed"', "status", "completed"),
        (b"75", "value", 75),
        (b"[1]", "value", [1]),
        (b"null", "value", None),
        (b"{}", "asb", None),
    ],
)
def test_any_document_can_be_shown(document: bytes, field: str, value: Any) -> None:
    shown = json.loads(view(document))
    assert value is None or shown[field] == value
    assert field in shown


def test_every_change_makes_it_the_agents() -> None:
    whole = view()
    assert marks.ours(KEY, whole.replace(b"working", b"stopped")) is None
    assert marks.ours(KEY, json.dumps(json.loads(whole)).encode()) is None
    assert marks.ours("asb:progress:claude:CL-103", whole) is None
    assert marks.ours(KEY, whole + b"\n") is None
    assert marks.ours(KEY, b"") is None


def test_a_changed_view_told_as_a_document_gets_one_asb_at_its_end() -> None:
    again = view(view().replace(b"working", b"stopped"), status="unknown")
    assert again.count(b'"asb"') == 1
    assert marks.ours(KEY, again) is not None
    assert json.loads(again)["asb"]["status"] == "unknown"


def test_two_views_are_compared_by_what_they_say_not_by_their_place() -> None:
    assert marks.says(view(), {**FACTS, "as_of": "9-9"})
    assert not marks.says(view(), {**FACTS, "status": "completed"})
    assert not marks.says(view(), {**FACTS, "more": 1})


@given(st.binary(max_size=80))
def test_no_bytes_of_others_are_taken_for_ours(raw: bytes) -> None:
    assert marks.ours(KEY, raw) is None
    assert marks.ours(KEY, raw + b',"mark":"' + b"a" * 24 + b'"}}') is None
