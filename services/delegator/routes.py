"""Who does which kind of work by default, a user's own rules, and the form of a decision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from events.task import KINDS, Candidate


class Route(msgspec.Struct, frozen=True):
    """Who does it: the program an agent runs and the model it runs on."""

    agent: str
    model: str


_CHEAP: Final = Route("claude", "haiku")
_CODE: Final = Route("codex", "sonnet")

DEFAULT_ROUTES: Final[Mapping[str, Route]] = {
    **dict.fromkeys(KINDS, _CODE),
    "ui": Route("comet", "haiku"),
    "documentation": _CHEAP,
    "research": _CHEAP,
    "analysis": Route("claude", "sonnet"),
}


class Delegation(msgspec.Struct, frozen=True):
    """Where a task goes, and why.

    Scores are in points: hundredths of the lead that training asks of the right kind, so a kind
    that leads by 100 leads clearly. `margin` is how many points the best candidate lies before the
    best one with another route; `close` says that it is too little to rely on (`CLOSE_POINTS`).
    """

    kind: str
    agent: str
    model: str
    complexity: str
    estimated_tokens: int
    candidates: tuple[Candidate, ...]
    reason: str
    margin: int = 0
    close: bool = False


RULE_WEIGHT: Final = 40  # more than the words of one sentence usually say
MAX_RULE_WEIGHT: Final = 1_000
_PLAIN: Final = re.compile(r"[\w\s'’-]+")


class Rule(msgspec.Struct, frozen=True):
    """A user's own word on it: where `pattern` is found, `kind` gains `weight`.

    A pattern of plain words matches these words in any case; anything else is a regular expression.
    """

    kind: str
    pattern: str
    weight: int = RULE_WEIGHT


def compile_rule(rule: Rule) -> re.Pattern[str]:
    """The rule's pattern, ready to search with. ValueError names the rule and what is wrong."""
    if rule.kind not in KINDS:
        raise ValueError(f"{_name(rule)}: unknown kind {rule.kind!r}; one of {', '.join(KINDS)}")
    if not _is_weight(rule.weight):
        raise ValueError(
            f"{_name(rule)}: weight {rule.weight!r} must be a whole number"
            f" from -{MAX_RULE_WEIGHT} to {MAX_RULE_WEIGHT}, not 0"
        )
    if not rule.pattern.strip():
        raise ValueError(f"{_name(rule)}: the pattern is empty")
    try:
        compiled = re.compile(_expression(rule.pattern), re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{_name(rule)}: not a regular expression: {error}") from error
    if compiled.search(""):
        raise ValueError(f"{_name(rule)}: the pattern matches the empty text, so every task")
    return compiled


def _expression(pattern: str) -> str:
    if not _PLAIN.fullmatch(pattern):
        return pattern
    words = r"\s+".join(re.escape(word) for word in pattern.split())
    # Scripts without spaces have no word ends to look for.
    return rf"(?<!\w){words}(?!\w)" if pattern.isascii() else words


def _is_weight(weight: object) -> bool:
    return type(weight) is int and weight != 0 and abs(weight) <= MAX_RULE_WEIGHT


def _name(rule: Rule) -> str:
    return f"delegator rule {rule.kind!r} ← {rule.pattern!r}"
