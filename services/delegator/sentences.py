"""How a text is taken apart: sentences, words, and where in the sentence each word stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.delegator.vocabulary import (
    NO_WORD,
    PUNCTUATION,
    Phrase,
    Vocabulary,
    Word,
    beginning,
    fold,
    is_run_on,
    without_run_on,
)

READ_AT_MOST: Final = 2_000  # characters; what a task is about stands at its beginning
MAX_SENTENCES: Final = 12
MAX_TAG_TOKENS: Final = 5
WORDS_KEPT: Final = 20_000  # of a memo; then it begins anew

_TOKEN: Final = re.compile(
    r"[^\W_]+(?:['’][^\W_]+)*|[\[\]():?;,&，：；（）【】「」]|(?<=\s)[-–—|]+(?=\s)"
)
# Small words inside a compound, which end no phrase there: "end-to-end".
_LINKER: Final = re.compile(r"(?<=\w)-(?:to|in|of|the|and|on|up|by|for|a|as)-(?=\w)")
_HUMP: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HUMPED: Final = re.compile(r"[A-Za-z][A-Z]|[A-Z]\d")  # cheaper: may there be such a word at all?
# It begins with the mark itself: a pattern that looks back is tried at every letter.
_SENTENCE_END: Final = re.compile(r"[.!?;][\s\"')]+(?=\S)|[\r\n]+\s*|[。？！]")
_ABBREVIATIONS: Final = ("vs.", "e.g.", "i.e.", "etc.")
_CLAUSE_END: Final = re.compile(r",\s+(?=(?:and|then|but|also|or)\s)", re.IGNORECASE)
# Cheaper than splitting: is there a second sentence at all?
_MORE: Final = re.compile(r"[.!?;\n\r。？！][\s\"')\w]")
_USER_STORY: Final = re.compile(
    r"^\W*as an? [^,]{1,60}?,? i(?:'d| would)? (?:want|need|like|can|should|am able|wish)(?: be)?"
    r"(?: able)?(?: to)?\b",
    re.IGNORECASE,
)
_OPENING: Final = frozenset("[(【（「")
_CLOSING: Final = frozenset("])】）」")
_OTHER_QUESTION_MARKS: Final = "？¿؟"
_COLONS: Final = frozenset(":：")
_DASHES: Final = frozenset("-–—|")
_OF_TAGS: Final = _OPENING | _COLONS | _DASHES  # without one of these there is no tag


@dataclass(slots=True, eq=False)
class KnownWord:
    """A word as it is met in a text: its plain form, and what the lexicon says about it.

    The whole numbers are sums of weights (see `weights.py`) where somebody put them in: what the
    word says wherever it stands, as the word where a sentence's request begins, and as a tag.
    """

    stem: str
    mark: bool  # punctuation
    said: int
    phrases: dict[str, tuple[Phrase, ...]] | None  # of the lexicon, that begin with it
    hard: int  # does it usually mean trouble (1) or little work (-1)?
    word: Word
    begins: int = 0
    tags: int = 0
    after: Mapping[str, str] | None = None  # words that say more right after it


class Words(dict[str, KnownWord]):
    """Folded word -> what is known of it, found once and remembered; bounded."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def __missing__(self, folded: str) -> KnownWord:
        if len(self) >= WORDS_KEPT:
            self.clear()
        vocabulary = self.vocabulary
        word = vocabulary.words.get(folded)
        if word is None:
            word = _unknown(folded, vocabulary)
        stem = word.stem or ("0" if folded.isdigit() else folded)  # one number is like another
        mark = folded in PUNCTUATION
        phrases, hard = vocabulary.phrases.get(stem), vocabulary.complexity.get(stem, 0)
        self[folded] = known = KnownWord(stem, mark, 0, phrases, hard, word)
        self.weigh(known)
        return known

    def weigh(self, known: KnownWord) -> None:
        """A place to put weights in; without any, words are only read."""


class Sentence(NamedTuple):
    """One sentence, its words looked up."""

    tokens: list[str]  # as they stand in the text
    known: list[KnownWord]
    tags: int  # so many tokens at the start are tags: "[Docs]", "fix(modal):"
    lead: int  # where the request begins
    question: str  # its question mark, if it has one and does not merely request politely
    run_on: str  # the text itself where words are not parted by spaces, else ""


def sentences(text: str) -> list[str]:
    """The sentences at the beginning of the text, tags and lists included as they stand."""
    text = text[:READ_AT_MOST]
    if _MORE.search(text) is None:  # nearly every title
        return [text]
    parts: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        at = end.start() + 1
        if text[at - 1] != "." or not text[max(0, at - 4) : at].lower().endswith(_ABBREVIATIONS):
            parts.append(text[start : end.end()])
            start = end.end()
    parts = [part for part in (*parts, text[start:]) if not part.isspace() and part]
    if len(parts) > 1:  # in a longer text, "…, and mention it in the docs" is an aside
        parts = [clause for part in parts for clause in _CLAUSE_END.split(part)]
    return parts[:MAX_SENTENCES] or [text]


def read(text: str, words: Words) -> Sentence:
    """Look up every word of a sentence and find the ones which carry the request."""
    if "s a" in text[:8] and text[:8].lower().lstrip().startswith("as a"):
        text = _USER_STORY.sub("", text, count=1)
    if "-" in text:
        text = _LINKER.sub("-", text)
    plain = text.isascii()
    run_on = ""
    if not plain and is_run_on(text):
        run_on = fold(text)
        text = without_run_on(text)
    tokens: list[str] = _TOKEN.findall(text)
    known = list(map(words.__getitem__, fold("\n".join(tokens)).split("\n"))) if tokens else []
    if _HUMPED.search(text) is not None:
        _part_humps(tokens, known, words)
    vocabulary = words.vocabulary
    question = "?" if "?" in text else "" if plain else _other_mark(run_on or text)
    tags = 0 if _OF_TAGS.isdisjoint(tokens) else _tags(known)
    lead = _lead(known, tags, bool(question), vocabulary)
    if run_on and is_run_on(run_on[:1]):
        lead = len(known)  # the first Latin word of such a text is just a name in it
    if question and lead > tags and _is_request(known, tags, lead, vocabulary):
        question = ""  # "could you please …?"
    return Sentence(tokens, known, tags, lead, question, run_on)


def _is_request(known: list[KnownWord], tags: int, lead: int, vocabulary: Vocabulary) -> bool:
    return any(known[at].stem in vocabulary.request for at in range(tags, lead))


def _other_mark(text: str) -> str:
    return next((mark for mark in _OTHER_QUESTION_MARKS if mark in text), "")


def _part_humps(tokens: list[str], known: list[KnownWord], words: Words) -> None:
    """Take the CamelCase words apart that nobody knows as they are."""
    for at in range(len(tokens) - 1, -1, -1):
        token = tokens[at]
        if known[at].word is NO_WORD and not token.islower() and not token.istitle():
            pieces: list[str] = _HUMP.findall(token)
            if len(pieces) > 1:
                tokens[at : at + 1] = pieces
                known[at : at + 1] = [words[piece.lower()] for piece in pieces]


def _unknown(folded: str, vocabulary: Vocabulary) -> Word:
    """A word which is not in the vocabulary may begin or end as one, or have one beside a '."""
    word = beginning(folded, vocabulary.stems)
    if word is not NO_WORD:
        return word
    if "'" in folded:  # "l'affichage", "user's"
        before, _, after = folded.partition("'")
        longer = max(after.replace("'", ""), before, key=len)
        return vocabulary.words.get(longer) or _unknown(longer, vocabulary)
    if folded.endswith(vocabulary.endings):
        return next(
            word
            for start in range(len(folded))
            if (word := vocabulary.by_ending.get(folded[start:])) is not None
        )
    return NO_WORD


def _tags(known: list[KnownWord]) -> int:
    """How many tokens at the start are tags, with their brackets and colons."""
    at = 0
    count = len(known)
    while at < count and known[at].stem in _OPENING:
        end = next((i for i in range(at, min(at + 10, count)) if known[i].stem in _CLOSING), -1)
        if end < 0:
            break
        at = end + 1
    for place in range(at + 1, min(at + MAX_TAG_TOKENS + 1, count)):
        stem = known[place].stem
        if stem in _COLONS or (place == at + 1 and stem in _DASHES):
            word = known[at].word
            asks = word.lead and not word.tag and place > at + 1  # "Add this: that"
            return at if asks else place + 1
    return at


def _lead(known: list[KnownWord], tags: int, question: bool, vocabulary: Vocabulary) -> int:
    """The first word which is not a greeting, an article or a politeness."""
    filler = vocabulary.filler
    last = len(known) - 1
    at = tags
    if at <= last and known[at].stem in vocabulary.aside:
        comma = next((i for i in range(at, last) if known[i].stem == ","), -1)
        at = comma + 1 if comma >= 0 else at
    while at < last:
        stem = known[at].stem
        if stem in vocabulary.polite and known[at + 1].stem == "you":
            at += 2
        elif question and stem in vocabulary.aux:
            break
        elif known[at].mark or stem in filler or stem == "0":
            at += 1
        else:
            break
    return max(0, min(at, last))
