"""Running totals in any order, with repeats and falls: usage is their maximum, never negative."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from events import document
from events.document import Totals
from projections import usage
from services.intake.progress import growth
from tests.examples import policy
from tests.given import Bus

COUNTS = st.integers(0, 10_000)
TOTALS = st.builds(Totals, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def maximum(reported: list[Totals]) -> Totals:
    seen = Totals()
    for totals in reported:
        seen = seen.highest(totals)
    return seen


@given(st.lists(TOTALS, max_size=12))
def test_what_is_booked_is_the_running_maximum_and_no_part_is_ever_negative(
    reported: list[Totals],
) -> None:
    seen, charged = Totals(), (0, 0, 0, 0)
    for totals in reported:
        seen = seen.highest(totals)
        added = growth(seen, charged)
        if added is not None:
            parts = (
                added.input_tokens,
                added.output_tokens,
                added.cache_read_tokens,
                added.cache_write_tokens,
            )
            assert min(parts) >= 0
            assert sum(parts) > 0
            charged = (
                charged[0] + parts[0],
                charged[1] + parts[1],
                charged[2] + parts[2],
                charged[3] + parts[3],
            )
        assert sum(charged) == seen.total
    assert sum(charged) == maximum(reported).total


@given(st.data())
def test_order_and_repeats_change_nothing(data: st.DataObject) -> None:
    rising = sorted(data.draw(st.lists(COUNTS, min_size=1, max_size=8)))
    documents = [{"tokens_used": {"prompt": n, "completion": n // 3, "model": "m"}} for n in rising]
    shuffled = data.draw(st.permutations(documents + documents[::2]))
    assert _usage_of(documents) == _usage_of(shuffled)


def _usage_of(documents: list[dict[str, Any]]) -> tuple[int, int, int]:
    bus = Bus(policy())
    for reported in documents:
        bus.send("progress.updated", agent="codex", task="t", document=reported)
        bus.run()
        assert all(
            min(b.input_tokens, b.output_tokens, b.tokens, b.nanos) >= 0
            for e in bus.of("progress.updated")
            if (b := e.charged) is not None
        )
    total = usage.total(bus.state.lifetime.values())
    return total.tokens, total.input_tokens, total.output_tokens


@given(ANY_JSON)
def test_whatever_json_an_agent_writes_is_read(value: Any) -> None:
    raw = msgspec.json.encode(value)
    if document.problem("a", "t", raw, 10**6) == "":
        document.read(raw)


@given(
    st.dictionaries(
        st.sampled_from(["tokens_used", "usage", "progress", "status", "timestamp", "model"]),
        ANY_JSON,
    )
)
def test_no_field_can_make_a_document_unreadable(value: Any) -> None:
    raw = msgspec.json.encode(value)
    if document.problem("a", "t", raw, 10**6) == "":
        reported = document.read(raw)
        assert reported.percent is None or 0 <= reported.percent <= 100
        assert reported.totals is None or min(*reported.totals.parts, reported.totals.total) >= 0
        msgspec.json.encode(reported)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_have_a_problem_and_nothing_breaks(raw: bytes) -> None:
    raw = document.as_json(raw)
    if document.problem("a", "t", raw, 1000) == "":
        document.read(raw)
