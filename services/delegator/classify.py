"""Which kind of work a task's text asks for, and so which agent and model get it.

Pure: no I/O but the reading of the shipped files, no clock, no chance. The same text gives the same
decision everywhere.

The text is read as a person skims it: its words, by themselves and in pairs, the word where each
request begins, tags, and what the lexicon of a dozen languages knows of them.
Each of these has learnt weights for and against each kind (`learn.py`, from `training/`); here they
are only added up. `features.py` names the same things one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Final

from events.task import KINDS, Candidate
from services.delegator import weights
from services.delegator.explain import Evidence, Verdict, reason_of
from services.delegator.features import (
    ALWAYS,
    QUESTION,
    lexical,
    of_lead,
    of_run_on,
    of_tag,
    of_word,
    phrases_at,
    run_on_hits,
)
from services.delegator.routes import (
    DEFAULT_ROUTES,
    Delegation,
    Route,
    Rule,
    compile_rule,
)
from services.delegator.sentences import READ_AT_MOST, KnownWord, Sentence, Words, read, sentences
from services.delegator.vocabulary import Feature, Vocabulary, default_vocabulary
from services.delegator.weights import MIDDLE

__all__ = ["DEFAULT_ROUTES", "KINDS", "Delegation", "Delegator", "Route", "Rule"]

CANDIDATES: Final = 3
RULE_POINTS: Final = 20  # of a rule's weight: 40 are 800 points, more than a text gathers
# Of texts by voices that had not been heard, 60 % of those under this margin were routed right, and
# 90 % of the others (`python -m services.delegator.validate`).
CLOSE_POINTS: Final = 20
FAINT_POINTS: Final = 50  # under this it is looked at whether anything speaks at all
UNSURE: Final = ("likelier", "cheap", "capable")
CHARS_PER_TOKEN: Final = 4
TOKENS_OVERHEAD: Final = 1_000
LONG: Final = 600  # characters: a long text is seldom an easy task

_UNKNOWN: Final = KINDS.index("unknown")
_ALL: Final = range(len(KINDS))
_LEVELS: Final = ("low", "medium", "high")
_START: Final = {"analysis": 2, "documentation": 0, "research": 0, "ui": 0}
_DEARNESS: Final = {"haiku": 1, "sonnet": 2, "opus": 3}

Dearness = Callable[[str], int | None]  # model -> how dear it is; None where nobody knows


class Delegator:
    """Decides routes. Made once, used for every task; holds no state but a memo of words.

    ``overlay`` holds weights in the form of the file, which are added to the shipped ones.
    ``when_unsure`` says which of several close candidates wins: the ``likelier`` one, the ``cheap``
    or the ``capable`` (dearer) one. ValueError for unknown kinds, bad rules and bad weights.
    """

    def __init__(
        self,
        routes: Mapping[str, Route] = DEFAULT_ROUTES,
        rules: Sequence[Rule] = (),
        *,
        overlay: Mapping[str, str] | None = None,
        when_unsure: str = "likelier",
    ) -> None:
        for kind in routes:
            if kind not in KINDS:
                raise ValueError(f"route for unknown kind {kind!r}; one of {', '.join(KINDS)}")
        if when_unsure not in UNSURE:
            raise ValueError(f"when_unsure {when_unsure!r} is not one of {', '.join(UNSURE)}")
        self._routes = tuple({**DEFAULT_ROUTES, **routes}[kind] for kind in KINDS)
        # By kind, the kinds that take the same route.
        self._same = tuple(
            frozenset(i for i, other in enumerate(self._routes) if other == route)
            for route in self._routes
        )
        self._named = tuple(
            (kind, route.agent, route.model)
            for kind, route in zip(KINDS, self._routes, strict=True)
        )
        self._rules = tuple((rule, compile_rule(rule)) for rule in rules)
        self._given = (routes, tuple(rules), when_unsure)
        self._when_unsure = when_unsure
        self._vocabulary = default_vocabulary()
        self._sums = _Sums(weights.merged(shipped_weights(), overlay or {}))
        self._words = _WeighedWords(self._vocabulary, self._sums)
        self.bias = self._sums[ALWAYS]  # what every text begins with

    def with_overlay(self, overlay: Mapping[str, str]) -> Delegator:
        """The same delegator with other weights on top of the shipped ones."""
        routes, rules, when_unsure = self._given
        return Delegator(routes, rules, overlay=overlay, when_unsure=when_unsure)

    def route(self, kind: str) -> tuple[str, str]:
        """Agent and model of a kind."""
        return self._named[KINDS.index(kind)][1:]

    def delegate(
        self, text: str, *, kind: str | None = None, dearness: Dearness = _DEARNESS.get
    ) -> Delegation:
        """The route of a task. A `kind` the user has given wins over everything in the text.

        ``dearness`` orders models where candidates are close and ``when_unsure`` asks for it.
        """
        evidence = self.evidence(text)
        if self._rules:
            self._apply_rules(text, evidence)
        scores = weights.lanes(self.bias + sum(evidence.values))
        order = sorted(_ALL, key=scores.__getitem__, reverse=True)
        given = kind is not None and kind in KINDS
        if given:
            order.insert(0, order.pop(order.index(KINDS.index(str(kind)))))
            verdict = Verdict(order)
        else:
            verdict = self._judge(evidence, order, scores, dearness)
        named = self._named[order[0]]
        return Delegation(
            kind=named[0],
            agent=named[1],
            model=named[2],
            complexity=_complexity(named[0], text, evidence.hard[0]),
            estimated_tokens=len(text) // CHARS_PER_TOKEN + TOKENS_OVERHEAD,
            candidates=tuple(
                [Candidate(*self._named[i], scores[i] - MIDDLE) for i in order[:CANDIDATES]]
            ),
            reason=reason_of(text, evidence, verdict, given, named[2]),
            margin=verdict.margin,
            close=verdict.rival >= 0,
        )

    def _judge(
        self, evidence: Evidence, order: list[int], scores: Sequence[int], dearness: Dearness
    ) -> Verdict:
        """How sure it is. Puts the winner first in ``order`` where that is not the likeliest."""
        if scores[order[0]] < MIDDLE + FAINT_POINTS and not evidence.speaks():
            order.insert(0, order.pop(order.index(_UNKNOWN)))
            return Verdict(order, speaks=False)
        likeliest, routes, likely = order[0], self._routes, self._same[order[0]]
        for rival in order:
            if rival not in likely:
                break
        else:
            return Verdict(order)  # all kinds have one route
        margin = scores[likeliest] - scores[rival]
        if margin >= CLOSE_POINTS:
            return Verdict(order, margin)
        if self._when_unsure != "likelier":
            near = [i for i in order if scores[likeliest] - scores[i] < CLOSE_POINTS]
            dear = {i: price for i in near if (price := dearness(routes[i].model)) is not None}
            if len(dear) == len(near):  # what nobody knows the price of cannot be compared
                pick = min if self._when_unsure == "cheap" else max
                order.insert(0, order.pop(order.index(pick(near, key=dear.__getitem__))))
        return Verdict(order, margin, rival, likeliest)

    def evidence(self, text: str) -> Evidence:
        """What each part of a text adds to the points of each kind."""
        evidence = Evidence([], [], [0])
        seen: set[str] = set()
        for part in sentences(text):
            self._read(read(part, self._words), evidence, seen)
        return evidence

    def _read(self, sentence: Sentence, evidence: Evidence, seen: set[str]) -> None:
        """Add up a sentence. What stands in ``seen`` was counted before, and counts once."""
        base = len(evidence.values)
        evidence.quotes.extend(sentence.tokens)
        for at in self._add_words(sentence.known, evidence, seen):
            self._add_phrases(sentence, at, base, evidence)
        _add_roles(sentence, base, evidence.values, seen)
        if sentence.question and QUESTION not in seen:
            seen.add(QUESTION)
            evidence.add(sentence.question, self._sums[QUESTION])
        if sentence.run_on:
            self._add_run_on(sentence.run_on, evidence, seen)

    def _add_words(self, known: list[KnownWord], evidence: Evidence, seen: set[str]) -> list[int]:
        """Words and pairs of them; returns the places where a phrase of the lexicon may begin."""
        sums = self._sums
        first = follows = sums.after.get("^")
        starts: list[int] = []
        values: list[int] = []
        before = "^"
        marked = 0
        begun: Mapping[str, object] | None = None  # what may follow in a phrase
        for word in known:
            stem = word.stem
            if begun is not None and stem in begun:
                starts.append(len(values) - 1)
            begun = word.phrases
            if word.mark:
                before, follows = "^", first
                values.append(0)
                continue
            marked += word.hard
            said = 0
            if stem not in seen:
                seen.add(stem)
                said = word.said
            if follows is not None and stem in follows:
                pair = f"{before} {stem}"
                if pair not in seen:
                    seen.add(pair)
                    said += sums[pair]
            before, follows = stem, word.after
            values.append(said)
        evidence.values.extend(values)
        evidence.hard[0] += marked
        return starts

    def _add_phrases(self, sentence: Sentence, at: int, base: int, evidence: Evidence) -> None:
        for _, end, feature in phrases_at(at, sentence):
            evidence.values[base + at] += self._sums.of_lexicon("@_", feature)
            quote = " ".join(sentence.tokens[at:end])
            if len(quote) > len(evidence.quotes[base + at]):
                evidence.quotes[base + at] = quote

    def _add_run_on(self, text: str, evidence: Evidence, seen: set[str]) -> None:
        for name in of_run_on(text):
            if name not in seen and name in self._sums.written:
                seen.add(name)
                evidence.add(name[1:], self._sums[name])
        for quote, feature in run_on_hits(text, self._vocabulary):
            evidence.add(quote, self._sums.of_lexicon("@字", feature))

    def _apply_rules(self, text: str, evidence: Evidence) -> None:
        for rule, pattern in self._rules:
            if pattern.search(text, 0, READ_AT_MOST):
                points = {KINDS.index(rule.kind): rule.weight * RULE_POINTS}
                shown = rule.pattern if rule.pattern.isprintable() else repr(rule.pattern)
                evidence.add(f"your rule {shown}", weights.pack(points))


def _add_roles(sentence: Sentence, base: int, values: list[int], seen: set[str]) -> None:
    """What words say more as a tag and as the beginning of a request."""
    _, known, tags, lead, _, _ = sentence
    for place in range(tags):
        if (name := ":" + known[place].stem) not in seen:
            seen.add(name)
            values[base + place] += known[place].tags
    if lead < len(known):
        word = known[lead]
        if (name := ">" + word.stem) not in seen:
            seen.add(name)
            values[base + lead] += word.begins


class _Sums(dict[str, int]):
    """Feature -> all its weights in one number, taken from the file when first asked for."""

    def __init__(self, written: dict[str, str]) -> None:
        super().__init__()
        self.written = written
        self.after: dict[str, dict[str, str]] = {}  # first word of a pair -> the second ones
        for name, points in written.items():
            if " " in name:
                before, _, stem = name.partition(" ")
                self.after.setdefault(before, {})[stem] = points
        self._of_lexicon: dict[tuple[str, int], tuple[Feature, int]] = {}

    def __missing__(self, name: str) -> int:
        written = self.written.get(name)
        if written is None:
            return 0
        self[name] = total = weights.pack(weights.parse(written))
        return total

    def total(self, names: Sequence[str]) -> int:
        """The sum of several features."""
        return sum(self[name] for name in names)

    def of_lexicon(self, place: str, feature: Feature) -> int:
        """What the lexicon's word says in a place; the vocabulary keeps ``feature`` alive."""
        key = (place, id(feature))
        known = self._of_lexicon.get(key)
        if known is None:
            known = self._of_lexicon[key] = (feature, self.total(lexical(place, feature)))
        return known[1]


class _WeighedWords(Words):
    """Words with what each says, wherever and however it stands, already added up."""

    def __init__(self, vocabulary: Vocabulary, sums: _Sums) -> None:
        super().__init__(vocabulary)
        self._sums = sums

    def weigh(self, known: KnownWord) -> None:
        if not known.mark:
            total = self._sums.total
            known.said, known.begins = total(of_word(known)), total(of_lead(known))
            known.tags = total(of_tag(known))
            known.after = self._sums.after.get(known.stem)


@functools.cache
def shipped_weights() -> dict[str, str]:
    """The weights that ship with the project: feature -> points as they are written."""
    file = resources.files("services.delegator") / "weights.txt"
    return weights.read(file.read_text("utf-8"))


def _complexity(kind: str, text: str, marked: int) -> str:
    """Easy or hard, by kind, by length and by the words which usually mean trouble."""
    level = _START.get(kind, 1) + (len(text) > LONG) + (marked > 0) - (marked < 0)
    return _LEVELS[max(0, min(2, level))]
