"""Whatever the text is, there is a valid delegation, and always the same one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.delegator.classify import DEFAULT_ROUTES, KINDS, Delegation, Delegator

DELEGATOR = Delegator()
MARKS = "?？!.;:,()[]【】「」&|-–—'’\"`_\n\r\t\x00\x1b\u202e\ufeff\ud800 "
WORDS = st.sampled_from(
    [
        "audit",
        "docs:",
        "fix(ui):",
        "How",
        "button",
        "l'affichage",
        "KeyError",
        "错误",
        "버튼",
        "İstanbul",
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet=MARKS),
    st.lists(st.one_of(WORDS, st.text(alphabet=MARKS, max_size=4)), max_size=30).map(" ".join),
    st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=30).map("".join),
)


def check(found: Delegation, text: str) -> None:
    assert found.kind in KINDS
    assert (found.agent, found.model) == (
        DEFAULT_ROUTES[found.kind].agent,
        DEFAULT_ROUTES[found.kind].model,
    )
    assert found.complexity in {"low", "medium", "high"}
    assert found.estimated_tokens == len(text) // 4 + 1000
    assert found.candidates[0].kind == found.kind
    assert len({candidate.kind for candidate in found.candidates}) == len(found.candidates)
    assert found.reason.isprintable()
    assert found.reason
    assert len(found.reason) <= 400


@given(TEXTS)
@example("")
@example("[")
@example("[]:")
@example("?")
@example("As a , I want to ")
@example("- - - -")
@example("\ud800")
@example("'''")
@example("''''a'")
def test_any_text_is_delegated(text: str) -> None:
    found = DELEGATOR.delegate(text)
    check(found, text)
    assert DELEGATOR.delegate(text) == found


@given(TEXTS, st.sampled_from(KINDS))
def test_any_text_with_a_kind(text: str, kind: str) -> None:
    found = DELEGATOR.delegate(text, kind=kind)
    check(found, text)
    assert found.kind == kind


@given(TEXTS, st.text())
def test_an_unknown_kind_is_no_reason_to_fall_over(text: str, kind: str) -> None:
    check(DELEGATOR.delegate(text, kind=kind), text)


@pytest.mark.parametrize(
    "piece", ["a", " ", "\n", "[", "a.", "a ", "'", "a'", "Aa", "、", "错", "-to-", "as a ", "\x00"]
)
def test_ten_megabytes(piece: str) -> None:
    text = piece * (10_000_000 // len(piece))
    check(DELEGATOR.delegate(text), text)
