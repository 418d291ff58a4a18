"""Which kind of work a task's text asks for, and so which agent and model get it.

Pure: no I/O, no clock, no chance. The same text gives the same decision everywhere.

The text is read as a person skims it. Each word says something by itself, more as the first word of
the request ("Audit the API"), as the noun the request is about ("an audit *log*") or as a tag
("[Docs] …"); some words mean something only together ("dark mode"). All of it is in `lexicon/`, as
data; here the evidence is only added up. In a text of several sentences, the one which asks for
something counts most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from services.delegator.gather import Hit, gather
from services.delegator.kinds import (
    CODE_KINDS,
    DEFAULT_ROUTES,
    KINDS,
    Candidate,
    Delegation,
    Route,
    Rule,
    compile_rule,
)
from services.delegator.reading import READ_AT_MOST, Sentence, read, sentences
from services.delegator.vocabulary import Vocabulary, default_vocabulary

__all__ = ["DEFAULT_ROUTES", "KINDS", "Candidate", "Delegation", "Delegator", "Route", "Rule"]

CANDIDATES: Final = 3
QUOTED, QUOTED_CHARS = 3, 80  # words a reason names, and how much of each
ASK, FIRST, OTHER = 4, 2, 1  # what a sentence counts in a text of several
DOUBT: Final = 3  # a single hint is not enough to leave the safe route
CHARS_PER_TOKEN: Final = 4
TOKENS_OVERHEAD: Final = 1_000
LONG: Final = 600  # characters: a long text is seldom an easy task

_UNKNOWN: Final = KINDS.index("unknown")
_ALL: Final = range(len(KINDS))
_CODE: Final = tuple(i for i, kind in enumerate(KINDS) if kind in CODE_KINDS)
_WHY: Final = {"haiku": "cheap haiku is enough", "sonnet": "worth sonnet"}
_LEVELS: Final = ("low", "medium", "high")
_START: Final = {"analysis": 2, "documentation": 0, "research": 0, "ui": 0}


class Delegator:
    """Decides routes. Made once, used for every task; holds no state."""

    def __init__(
        self, routes: Mapping[str, Route] = DEFAULT_ROUTES, rules: Sequence[Rule] = ()
    ) -> None:
        for kind in routes:
            if kind not in KINDS:
                raise ValueError(f"route for unknown kind {kind!r}; one of {', '.join(KINDS)}")
        self._routes = tuple({**DEFAULT_ROUTES, **routes}[kind] for kind in KINDS)
        self._named = tuple(
            (kind, route.agent, route.model)
            for kind, route in zip(KINDS, self._routes, strict=True)
        )
        self._rules = tuple((rule, compile_rule(rule)) for rule in rules)
        self._vocabulary = default_vocabulary()

    def delegate(self, text: str, *, kind: str | None = None) -> Delegation:
        """The route of a task. A `kind` the user has given wins over everything in the text."""
        scores, hits, stems = _weigh(text, self._vocabulary)
        if self._rules:
            hits = [*self._apply_rules(text, scores), *hits]
        totals = _totals(scores)
        order = sorted(_ALL, key=totals.__getitem__, reverse=True)
        if kind is not None and kind in KINDS:
            chosen = KINDS.index(kind)
            order.remove(chosen)
            order.insert(0, chosen)
            reason = f"you said it is {kind}"
        else:
            chosen = order[0]
            reason = f"reads as {KINDS[chosen]}: {_evidence(chosen, hits, text)}"
        route = self._routes[chosen]
        return Delegation(
            kind=KINDS[chosen],
            agent=route.agent,
            model=route.model,
            complexity=_complexity(KINDS[chosen], text, stems, self._vocabulary),
            estimated_tokens=len(text) // CHARS_PER_TOKEN + TOKENS_OVERHEAD,
            candidates=tuple([Candidate(*self._named[i], totals[i]) for i in order[:CANDIDATES]]),
            reason=f"{reason}; {_WHY.get(route.model, route.model)}",
        )

    def _apply_rules(self, text: str, scores: list[int]) -> list[Hit]:
        hits: list[Hit] = []
        for rule, pattern in self._rules:
            if pattern.search(text, 0, READ_AT_MOST):
                kind, weight = KINDS.index(rule.kind), rule.weight * ASK
                scores[kind] += weight
                shown = rule.pattern if rule.pattern.isprintable() else repr(rule.pattern)
                hits.append((-1, f"your rule {shown}", ((kind, weight),)))
        return hits


def _weigh(text: str, vocabulary: Vocabulary) -> tuple[list[int], list[Hit], list[str]]:
    """The evidence for each kind, what it consists of, and the words of the text."""
    scores = [0] * len(KINDS)
    texts = sentences(text)
    if len(texts) == 1:
        only = read(texts[0], vocabulary)
        hits = gather(only, vocabulary)
        _add(hits, 1, scores)
        return scores, hits, only.stems
    parts = [read(part, vocabulary) for part in texts]
    gathered = [gather(part, vocabulary) for part in parts]
    ask = _ask(parts, gathered)
    every = list(gathered[ask])  # a reason quotes the request first
    for number, hits in enumerate(gathered):
        _add(hits, ASK if number == ask else OTHER if number else FIRST, scores)
        if number != ask:
            every += hits
    return scores, every, [stem for part in parts for stem in part.stems]


def _add(hits: list[Hit], times: int, scores: list[int]) -> None:
    for _, _, feature in hits:
        for kind, weight in feature:
            scores[kind] += weight * times


def _ask(parts: list[Sentence], gathered: list[list[Hit]]) -> int:
    """Which sentence asks for something: the first that tells to do it, else the first question."""
    asked = -1
    for number, (part, hits) in enumerate(zip(parts, gathered, strict=True)):
        if part.question:
            asked = number if asked < 0 else asked
        elif part.request or _begins_with_request(part, hits):
            return number
    return max(asked, 0)


def _begins_with_request(part: Sentence, hits: list[Hit]) -> bool:
    """Does it begin with a verb we know, or with several words which mean one ("go through")?"""
    if part.lead < len(part.words) and part.words[part.lead].lead:
        return True
    return any(at == part.lead and " " in words for at, words, _ in hits)


def _totals(scores: list[int]) -> list[int]:
    """Half of what speaks for one kind of programming speaks for the others too."""
    family = 0
    for i in _CODE:
        family += scores[i]
    totals = [score + score for score in scores]
    for i in _CODE:
        others = family - scores[i]
        if others > 0:
            totals[i] += others
    if totals[_UNKNOWN] < DOUBT:
        totals[_UNKNOWN] = DOUBT
    return totals


def _evidence(chosen: int, hits: list[Hit], text: str) -> str:
    """The words which decided it, in the order of the text."""
    of_kind: dict[str, tuple[int, int]] = {}
    for place, words, feature in hits:
        for kind, weight in feature:
            if kind == chosen and weight > 0:
                before = of_kind.get(words)
                of_kind[words] = (before[0], before[1] + weight) if before else (place, weight)
    if not of_kind:
        start = " ".join(re.findall(r"\w+", text[:80])[:6])
        return f'nothing in "{start}" tells more' if start else "there are no words in it"
    best = list(of_kind)
    if len(best) > 1:
        best = sorted(best, key=lambda words: (-of_kind[words][1], of_kind[words][0]))[:QUOTED]
        best.sort(key=of_kind.__getitem__)
    return '"' + " … ".join([words[:QUOTED_CHARS] for words in best]) + '"'


def _complexity(kind: str, text: str, stems: list[str], vocabulary: Vocabulary) -> str:
    """Easy or hard, by kind, by length and by the words which usually mean trouble."""
    hardness = vocabulary.complexity
    level = _START.get(kind, 1) + (len(text) > LONG)
    marked = 0
    for stem in stems:
        marked += hardness.get(stem, 0)
    level += (marked > 0) - (marked < 0)
    return _LEVELS[max(0, min(2, level))]
