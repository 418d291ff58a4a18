"""How a text is taken apart: sentences, words, and where in the sentence each word stands."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from services.delegator.vocabulary import (
    SHORTEST_STEM,
    Vocabulary,
    Word,
    fold,
    is_run_on,
    without_run_on,
)

READ_AT_MOST: Final = 2_000  # characters; what a task is about stands at its beginning
MAX_SENTENCES: Final = 12
MAX_TAG_TOKENS: Final = 5

_TOKEN: Final = re.compile(
    r"[^\W_]+(?:['’][^\W_]+)*|[\[\]():?;,&，：；（）【】「」]|(?<=\s)[-–—|]+(?=\s)"
)
_LINKER: Final = re.compile(
    r"(?<=\w)-(?:to|in|of|the|and|on|up|by|for|a|as)-(?=\w)"
)  # "end-to-end"
_HUMP: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?;])[\s\"')]+(?=\S)|\s*[\r\n]+\s*|(?<=[。？！])")
_USER_STORY: Final = re.compile(
    r"^\W*as an? [^,]{1,60}?,? i(?:'d| would)? (?:want|need|like|can|should|am able|wish)(?: be)?"
    r"(?: able)?(?: to)?\b",
    re.IGNORECASE,
)
_OPENING: Final = frozenset("[(【（「")
_CLOSING: Final = frozenset("])】）」")
_QUESTION_MARKS: Final = frozenset("?？¿")
_PUNCTUATION: Final = frozenset("[]():?;,&，：；（）【】「」-–—|")
_COLONS: Final = frozenset(":：")
_DASHES: Final = frozenset("-–—|")
_NO_WORD: Final = Word("", (), (), (), ())


class Sentence(NamedTuple):
    """One sentence, its words looked up."""

    tokens: list[str]  # as they stand in the text
    stems: list[str]
    words: list[Word]
    tags: int  # so many tokens at the start are tags: "[Docs]", "fix(modal):"
    lead: int  # where the request begins
    head: int  # the noun its first phrase is about; -1 without one
    question: bool
    run_on: str  # the text itself where words are not parted by spaces, else ""


def sentences(text: str) -> list[str]:
    """The sentences at the beginning of the text, tags and lists included as they stand."""
    text = text[:READ_AT_MOST]
    if len(text) < 40 and text.isascii() and "\n" not in text:  # nearly every title
        return [text]
    parts = [part for part in _SENTENCE_END.split(text) if part and not part.isspace()]
    return parts[:MAX_SENTENCES] or [text]


def read(text: str, vocabulary: Vocabulary) -> Sentence:
    """Look up every word of a sentence and find the ones which carry the request."""
    if text[:8].lower().lstrip().startswith("as a"):
        text = _USER_STORY.sub("", text, count=1)
    if "-" in text:
        text = _LINKER.sub("-", text)
    run_on = ""
    if not text.isascii() and is_run_on(text):
        run_on = fold(text)
        text = without_run_on(text)
    tokens: list[str] = []
    stems: list[str] = []
    words: list[Word] = []
    known = vocabulary.words
    found: list[str] = _TOKEN.findall(text)
    for token in found:
        folded = token.lower() if token.isascii() else fold(token)
        word = known.get(folded)
        if word is None:
            if folded in _PUNCTUATION or folded.isdigit():
                word = _NO_WORD
            else:
                word = _unknown(token, folded, vocabulary)
                if word is None:  # a CamelCase name says what its parts say
                    for piece in _HUMP.findall(token):
                        word = known.get(piece.lower(), _NO_WORD)
                        tokens.append(piece)
                        stems.append(word.stem or piece.lower())
                        words.append(word)
                    continue
        tokens.append(token)
        stems.append(word.stem or folded)
        words.append(word)
    question = not _QUESTION_MARKS.isdisjoint(text)
    tags = _tags(stems, words)
    lead = _lead(stems, tags, question, vocabulary)
    head = -1 if run_on else _head(stems, words, lead, vocabulary)
    return Sentence(tokens, stems, words, tags, lead, head, question, run_on)


def _unknown(token: str, folded: str, vocabulary: Vocabulary) -> Word | None:
    """A word not in the vocabulary: its beginning may help. None for a CamelCase name."""
    stems = vocabulary.stems
    if "'" in folded:  # "l'affichage", "user's"
        before, _, after = folded.partition("'")
        return vocabulary.words.get(after if len(before) < len(after) else before) or (
            _unknown(after, after, vocabulary) if len(before) < len(after) else _NO_WORD
        )
    for length in range(min(len(folded), vocabulary.longest_stem), SHORTEST_STEM - 1, -1):
        word = stems.get(folded[:length])
        if word is not None:
            return word
    if not token.islower() and not token.istitle() and len(_HUMP.findall(token)) > 1:
        return None
    return _NO_WORD


def _tags(stems: list[str], words: list[Word]) -> int:
    """How many tokens at the start are tags, with their brackets and colons."""
    at = 0
    count = len(stems)
    while at < count and stems[at] in _OPENING:
        end = next((i for i in range(at, min(at + 10, count)) if stems[i] in _CLOSING), -1)
        if end < 0:
            break
        at = end + 1
    for i in range(at + 1, min(at + MAX_TAG_TOKENS + 1, count)):
        if stems[i] in _COLONS or (i == at + 1 and stems[i] in _DASHES):
            return i + 1
    return at


def _lead(stems: list[str], tags: int, question: bool, vocabulary: Vocabulary) -> int:
    """The first word which is not a greeting, an article or a politeness."""
    filler = vocabulary.filler
    last = len(stems) - 1
    at = tags
    while at < last:
        stem = stems[at]
        if stem in vocabulary.aux and (question or stems[at + 1] == "you"):
            if stems[at + 1] != "you":
                break  # "can we …?" asks, "can you …?" requests
            at += 2
        elif stem in _PUNCTUATION or stem in filler or stem.isdigit():
            at += 1
        else:
            break
    return min(at, last) if last >= 0 else 0


def _head(stems: list[str], words: list[Word], lead: int, vocabulary: Vocabulary) -> int:
    """The last word before the first preposition, verb or mark: what the first phrase is about."""
    stop = vocabulary.stop
    end = lead
    count = len(stems)
    while end < count and stems[end] not in stop and stems[end] not in _PUNCTUATION:
        end += 1
    end -= 1
    while end > lead and (stems[end].isdigit() or not words[end].stem and len(stems[end]) < 2):
        end -= 1
    return end if end >= lead else -1
