"""A user's own rules: data, checked when they are read, stronger than our words."""

from __future__ import annotations

import pytest

from services.delegator.classify import Delegator, Rule


@pytest.mark.parametrize(
    "pattern", ["checkout page", "Checkout  Page", r"check-?out\s+page", "(?i)CHECKOUT page$"]
)
def test_a_rule_wins(pattern: str) -> None:
    text = "Buttons overlap on the checkout page"
    assert Delegator().delegate(text).kind == "ui"
    found = Delegator(rules=[Rule("analysis", pattern)]).delegate(text)
    assert found.kind == "analysis"
    assert pattern in found.reason


def test_plain_words_match_whole_words_only() -> None:
    own = Delegator(rules=[Rule("database", "row")])
    assert own.delegate("Buttons grow on hover").kind == "ui"
    assert own.delegate("Buttons of the row on hover").kind == "database"


def test_plain_words_without_spaces_between_them() -> None:
    own = Delegator(rules=[Rule("analysis", "结算")])
    assert own.delegate("请修改结算页面的按钮样式").kind == "analysis"


def test_a_weak_rule_only_tips_the_scale() -> None:
    own = Delegator(rules=[Rule("analysis", "buttons", weight=1)])
    assert own.delegate("Buttons overlap in the dialog").kind == "ui"


def test_a_negative_rule_speaks_against_a_kind() -> None:
    own = Delegator(rules=[Rule("ui", "theme", weight=-40)])
    assert own.delegate("Publish the theme").kind != "ui"


def test_a_rule_sees_only_the_beginning_of_a_text() -> None:
    own = Delegator(rules=[Rule("ui", "xyzzy")])
    assert own.delegate("a " * 5_000 + "xyzzy").kind != "ui"


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (Rule("cooking", "soup"), "unknown kind 'cooking'"),
        (Rule("ui", "(button"), "not a regular expression"),
        (Rule("ui", "   "), "pattern is empty"),
        (Rule("ui", "x*"), "matches the empty text"),
        (Rule("ui", "button", weight=0), "weight 0"),
        (Rule("ui", "button", weight=100_000), "weight 100000"),
        (Rule("ui", "button", weight=True), "weight True"),
    ],
)
def test_a_bad_rule_is_named(rule: Rule, complaint: str) -> None:
    with pytest.raises(ValueError, match="delegator rule") as caught:
        Delegator(rules=[Rule("api", "fine"), rule])
    assert complaint in str(caught.value)
    assert repr(rule.pattern) in str(caught.value)
