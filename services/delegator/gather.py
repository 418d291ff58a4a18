"""What one sentence says about its kind: every word and phrase by the place it stands in."""

from __future__ import annotations

from typing import Final

from events.task import KINDS
from services.delegator.reading import Sentence
from services.delegator.vocabulary import Feature, Phrase, Vocabulary

Hit = tuple[int, str, Feature]  # where it stands, the words, what they say

RESEARCH: Final = KINDS.index("research")
QUESTION_MARK: Final[Feature] = ((RESEARCH, 5),)
ASKING_VERB: Final[Feature] = ((RESEARCH, 5),)  # "Is …?", "Can I …?"


def gather(sentence: Sentence, vocabulary: Vocabulary) -> list[Hit]:
    """All there is to say for and against each kind."""
    hits: list[Hit] = []
    tokens, stems, words, tags, lead, _, question, _, run_on = sentence
    phrases = vocabulary.phrases
    for at, word in enumerate(words):
        if at < tags and word.tag:
            hits.append((at, tokens[at], word.tag))
        elif word.any:
            hits.append((at, tokens[at], word.any))
        if (starting := phrases.get(stems[at])) is not None and at + 1 < len(stems):
            for phrase in starting.get(stems[at + 1], ()):
                _match(phrase, at, sentence, hits)
    if lead < len(words):
        _add_places(sentence, hits)
    if question:
        _ask(sentence, vocabulary, hits)
    if run_on:
        hits += _find_run_on(run_on, len(words), vocabulary)
    return hits


def _add_places(sentence: Sentence, hits: list[Hit]) -> None:
    tokens, _, words, _, lead, head, *_ = sentence
    if words[lead].lead:
        hits.append((lead, tokens[lead], words[lead].lead))
    if head >= 0 and words[head].head:
        hits.append((head, tokens[head], words[head].head))


def _find_run_on(text: str, after: int, vocabulary: Vocabulary) -> list[Hit]:
    features = vocabulary.run_on_features
    return [
        (after + found.start(), found.group(), features[found.group()])
        for found in vocabulary.run_on.finditer(text)
    ]


def _match(phrase: Phrase, at: int, sentence: Sentence, hits: list[Hit]) -> None:
    """Add a phrase if all of it stands here, in a place where it counts."""
    start, end = at + 2, at + 2 + len(phrase.rest)
    if sentence.stems[start:end] == phrase.rest and (
        phrase.place == "any" or _stands(phrase.place, at, end, sentence)
    ):
        hits.append((at, " ".join(sentence.tokens[at:end]), phrase.feature))


def _stands(place: str, at: int, end: int, sentence: Sentence) -> bool:
    """Does a phrase which counts only in one place stand there?"""
    if place == "lead":
        return at == sentence.lead
    if place == "head":
        return end - 1 == sentence.head
    return at < sentence.tags


def _ask(sentence: Sentence, vocabulary: Vocabulary, hits: list[Hit]) -> None:
    hits.append((len(sentence.words), sentence.question, QUESTION_MARK))
    lead = sentence.lead
    if lead < len(sentence.stems) and sentence.stems[lead] in vocabulary.aux:
        hits.append((lead, sentence.tokens[lead], ASKING_VERB))
