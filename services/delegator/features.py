"""What a text says, as features that can be counted: the reference that learning counts with.

`classify.py` adds up the weights of the same features without ever naming them; a test holds the
two together. A feature's name tells its family (`FAMILIES`), so that a file of weights can be read:

    audit     a word                        ~audit   the beginning of a longer word
    don't fix two words in a row            ^ fix    the first word of a sentence, or after a mark
    @ui5      the lexicon says 5 for ui (@> where a request begins, @: in a tag, @_ by a phrase,
              @字 in a script without spaces)
    ?         it asks                       字表     one or two characters of such a script
    *         every text
"""

from __future__ import annotations

import re
from typing import Final

from events.task import KINDS
from services.delegator.sentences import KnownWord, Sentence, Words, read, sentences
from services.delegator.vocabulary import Feature, Phrase, Vocabulary

PREFIX: Final = 5  # characters of a beginning
# English, German, French and Spanish words that count in pairs, and by themselves say nothing.
_SMALL_WORDS: Final = """
the a an of and in on to for with at by it its is are be as that this these those from or
der die das und le la les de des el los y e o
"""
SMALL: Final = frozenset(_SMALL_WORDS.split())
_RUN: Final = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

ALWAYS, QUESTION = "*", "?"
FAMILIES: Final = {
    "word": "words",
    "beginning": "beginnings of words",
    "pair": "two words in a row",
    "lexicon": "the lexicon's hits",
    "question": "question marks",
    "run-on": "characters of scripts without spaces",
}
_BY_MARK: Final = {
    "~": "beginning",
    "@": "lexicon",
    "?": "question",
    "字": "run-on",
    "*": "always",
}


def family(name: str) -> str:
    """The family of a feature: a key of `FAMILIES`, or "always"."""
    return "pair" if " " in name else _BY_MARK.get(name[0], "word")


def features(text: str, words: Words) -> dict[str, int]:
    """Every feature of a text and how often it counts: a word once in each role, however often it
    stands there; what the lexicon says once for each of these words, and for each phrase."""
    counts: dict[str, int] = {ALWAYS: 1}
    roles: dict[str, list[str]] = {}
    for part in sentences(text):
        sentence = read(part, words)
        _add_roles(sentence, roles)
        for _, _, feature in phrases_of(sentence):
            _add(counts, lexical("@_", feature))
        if sentence.run_on:
            roles.update((name, [name]) for name in of_run_on(sentence.run_on))
            for _, feature in run_on_hits(sentence.run_on, words.vocabulary):
                _add(counts, lexical("@字", feature))
    for names in roles.values():
        _add(counts, names)
    return counts


def _add(counts: dict[str, int], names: list[str]) -> None:
    for name in names:
        counts[name] = counts.get(name, 0) + 1


def lexical(place: str, feature: Feature) -> list[str]:
    """What the lexicon says in a place, as names of features."""
    return [f"{place}{KINDS[kind]}{weight}" for kind, weight in feature]


def of_word(known: KnownWord) -> list[str]:
    """What a word says wherever it stands."""
    stem = known.stem
    names = [] if stem in SMALL else [stem]
    if len(stem) > PREFIX:
        names.append("~" + stem[:PREFIX])
    return names + lexical("@", known.word.any)


def of_lead(known: KnownWord) -> list[str]:
    """What the lexicon says more of it where a request begins."""
    return lexical("@>", known.word.lead)


def of_tag(known: KnownWord) -> list[str]:
    """What the lexicon says more of it in a tag."""
    return lexical("@:", known.word.tag)


def _add_roles(sentence: Sentence, roles: dict[str, list[str]]) -> None:
    """Put the words of a sentence into ``roles``: a role and its word -> what that says."""
    before = "^"
    for known in sentence.known:
        if known.mark:
            before = "^"
            continue
        pair = f"{before} {known.stem}"
        before = known.stem
        roles[pair] = [pair]
        roles.setdefault(known.stem, of_word(known))
    for known in sentence.known[: sentence.tags]:
        if not known.mark:
            roles.setdefault(":" + known.stem, of_tag(known))
    if sentence.lead < len(sentence.known) and not sentence.known[sentence.lead].mark:
        known = sentence.known[sentence.lead]
        roles.setdefault(">" + known.stem, of_lead(known))
    if sentence.question:
        roles[QUESTION] = [QUESTION]


def phrases_of(sentence: Sentence) -> list[tuple[int, int, Feature]]:
    """The lexicon's phrases in a sentence: where each begins and ends, and what it says."""
    hits: list[tuple[int, int, Feature]] = []
    for at, known in enumerate(sentence.known):
        if known.phrases is not None:
            hits += phrases_at(at, sentence)
    return hits


def phrases_at(at: int, sentence: Sentence) -> list[tuple[int, int, Feature]]:
    """Those that begin with one word of it."""
    hits: list[tuple[int, int, Feature]] = []
    known = sentence.known
    starting = known[at].phrases
    if starting is not None and at + 1 < len(known):
        for phrase in starting.get(known[at + 1].stem, ()):
            end = at + 2 + len(phrase.rest)
            if _stands(phrase, at, end, sentence):
                hits.append((at, end, phrase.feature))
    return hits


def _stands(phrase: Phrase, at: int, end: int, sentence: Sentence) -> bool:
    """Does all of a phrase stand here, in a place where it counts?"""
    if [known.stem for known in sentence.known[at + 2 : end]] != phrase.rest:
        return False
    if phrase.place == "lead":
        return at == sentence.lead
    return phrase.place == "any" or at < sentence.tags


def of_run_on(text: str) -> list[str]:
    """Its characters, each by itself and with the next one; in order, each once."""
    names: dict[str, None] = {}
    for run in _RUN.findall(text):
        for at in range(len(run)):
            names["字" + run[at]] = None
            if at + 1 < len(run):
                names["字" + run[at : at + 2]] = None
    return list(names)


def run_on_hits(text: str, vocabulary: Vocabulary) -> list[tuple[str, Feature]]:
    """The lexicon's words in such a text, the longest first."""
    hits = vocabulary.run_on_features
    return [(hit.group(), hits[hit.group()]) for hit in vocabulary.run_on.finditer(text)]
