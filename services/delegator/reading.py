"""How a text is taken apart: sentences, words, and where in the sentence each word stands."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from services.delegator.vocabulary import (
    NO_WORD,
    PUNCTUATION,
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

_TOKEN: Final = re.compile(
    r"[^\W_]+(?:['’][^\W_]+)*|[\[\]():?;,&，：；（）【】「」]|(?<=\s)[-–—|]+(?=\s)"
)
# Small words inside a compound, which end no phrase there: "end-to-end".
_LINKER: Final = re.compile(r"(?<=\w)-(?:to|in|of|the|and|on|up|by|for|a|as)-(?=\w)")
_HUMP: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SENTENCE_END: Final = re.compile(
    r"(?<=[.!?;])(?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)[\s\"')]+(?=\S)"
    r"|\s*[\r\n]+\s*"
    r"|(?<=[。？！])",
    re.IGNORECASE,
)
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


class Sentence(NamedTuple):
    """One sentence, its words looked up."""

    tokens: list[str]  # as they stand in the text
    stems: list[str]
    words: list[Word]
    tags: int  # so many tokens at the start are tags: "[Docs]", "fix(modal):"
    lead: int  # where the request begins
    head: int  # the noun its first phrase is about; -1 without one
    question: str  # its question mark, if it has one and does not merely request politely
    request: bool  # somebody is politely told to do something
    run_on: str  # the text itself where words are not parted by spaces, else ""


def sentences(text: str) -> list[str]:
    """The sentences at the beginning of the text, tags and lists included as they stand."""
    text = text[:READ_AT_MOST]
    if _MORE.search(text) is None:  # nearly every title
        return [text]
    parts = [part for part in _SENTENCE_END.split(text) if part and not part.isspace()]
    if len(parts) > 1:  # in a longer text, "…, and mention it in the docs" is an aside
        parts = [clause for part in parts for clause in _CLAUSE_END.split(part)]
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
    tokens: list[str] = _TOKEN.findall(text)
    stems = fold("\n".join(tokens)).split("\n") if tokens else []
    words = _look_up(tokens, stems, vocabulary)
    question = "?" if "?" in text else "" if text.isascii() else _other_mark(text)
    tags = _tags(stems, words)
    lead = _lead(stems, tags, bool(question), vocabulary)
    if run_on and is_run_on(run_on[:1]):
        lead = len(stems)  # the first Latin word of such a text is just a name in it
    request = lead > tags and not vocabulary.request.isdisjoint(stems[tags:lead])
    if request:  # "could you please …?"
        question = ""
    elif run_on:
        request = any(word in run_on for word in vocabulary.request)
    head = -1 if run_on else _head(stems, words, lead, vocabulary)
    return Sentence(tokens, stems, words, tags, lead, head, question, request, run_on)


def _other_mark(text: str) -> str:
    return next((mark for mark in _OTHER_QUESTION_MARKS if mark in text), "")


def _look_up(tokens: list[str], stems: list[str], vocabulary: Vocabulary) -> list[Word]:
    """What is known of each word. Puts its plain form into `stems`, and takes CamelCase apart."""
    known = vocabulary.words
    words: list[Word] = []
    names: list[int] = []
    for at, word in enumerate(map(known.get, tuple(stems))):
        if word is None:
            word = _unknown(stems[at], vocabulary)
            if word is NO_WORD and not tokens[at].islower() and not tokens[at].istitle():
                names.append(at)
        if word.stem:
            stems[at] = word.stem
        words.append(word)
    for at in reversed(names):
        pieces: list[str] = _HUMP.findall(tokens[at])
        if len(pieces) > 1:
            lowered = [piece.lower() for piece in pieces]
            tokens[at : at + 1] = pieces
            stems[at : at + 1] = lowered
            words[at : at + 1] = [known.get(piece, NO_WORD) for piece in lowered]
    return words


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
            asks = words[at].lead and not words[at].tag and i > at + 1  # "Add this: that"
            return at if asks else i + 1
    return at


def _lead(stems: list[str], tags: int, question: bool, vocabulary: Vocabulary) -> int:
    """The first word which is not a greeting, an article or a politeness."""
    filler = vocabulary.filler
    last = len(stems) - 1
    at = tags
    if at <= last and stems[at] in vocabulary.aside and "," in stems[at:last]:
        at = stems.index(",", at) + 1
    while at < last:
        stem = stems[at]
        if stem in vocabulary.polite and stems[at + 1] == "you":
            at += 2
        elif question and stem in vocabulary.aux:
            break
        elif stem in PUNCTUATION or stem in filler or stem.isdigit():
            at += 1
        else:
            break
    return min(at, last) if last >= 0 else 0


def _head(stems: list[str], words: list[Word], lead: int, vocabulary: Vocabulary) -> int:
    """The last word before the first preposition, verb or mark: what the first phrase is about."""
    stop = vocabulary.stop
    end = lead
    count = len(stems)
    while end < count and stems[end] not in stop and stems[end] not in PUNCTUATION:
        end += 1
    end -= 1
    while end > lead and (stems[end].isdigit() or (not words[end].stem and len(stems[end]) < 2)):
        end -= 1
    return end if end >= lead else -1
