"""The words of `lexicon/*.toml` in the form the scorer looks them up: built once, only read."""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from importlib import resources
from typing import Final, NamedTuple

from events.task import KINDS

Feature = tuple[tuple[int, int], ...]  # (index of a kind in KINDS, weight), …
Stems = dict[str, tuple[tuple[str, "Word"], ...]]
Raw = dict[tuple[str, str], dict[int, int]]  # (place, item) -> kind index -> weight

GRAMMAR: Final = ("filler", "aux", "aside", "polite", "request")
PLACES: Final = ("any", "lead", "tag")
SHORTEST_STEM: Final = 3
PUNCTUATION: Final = frozenset("[]():?;,&，：；（）【】「」-–—|")  # the marks a reader goes by
_VOWELS: Final = frozenset("aeiou")
_RUN_ON: Final = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Word(NamedTuple):
    """What is known of one word, by the place it stands in."""

    stem: str
    any: Feature
    lead: Feature
    tag: Feature


NO_WORD: Final = Word("", (), (), ())


class Phrase(NamedTuple):
    """Words which mean more together; found by the stems of the first two."""

    rest: list[str]  # from the third on
    place: str
    feature: Feature


Phrases = dict[str, dict[str, tuple[Phrase, ...]]]


class Vocabulary(NamedTuple):
    words: dict[str, Word]  # every form of every word
    stems: Stems  # first letters -> beginnings: "misalign*"
    endings: tuple[str, ...]  # "*exception"
    by_ending: dict[str, Word]
    phrases: Phrases
    run_on: re.Pattern[str]  # what is looked for in scripts written without spaces
    run_on_features: dict[str, Feature]
    filler: frozenset[str]
    aux: frozenset[str]
    aside: frozenset[str]
    polite: frozenset[str]
    request: frozenset[str]
    complexity: dict[str, int]  # stem -> +1 for hard, -1 for easy


def fold(text: str) -> str:
    """Lower case, Latin letters without accents (people leave them out), other scripts kept."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    return _compose(lowered.translate(_FOLDING))


def _compose(text: str) -> str:
    return text.replace("\u0307", "")  # the dot that lower-casing a Turkish İ leaves behind


def _folding() -> dict[int, str]:
    table: dict[int, str] = {ord("ı"): "i", ord("ß"): "ss", ord("ø"): "o", ord("ł"): "l"}
    table |= {ord("œ"): "oe", ord("æ"): "ae", ord("đ"): "d", ord("ё"): "е", ord("’"): "'"}
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base.isascii() and base.isalpha():
            table.setdefault(code, base.lower())
    return table


_FOLDING: Final = _folding()


def is_run_on(text: str) -> bool:
    """Is some of it in a script whose words are not parted by spaces (Chinese, Japanese, …)?"""
    return _RUN_ON.search(text) is not None


def without_run_on(text: str) -> str:
    """The rest of such a text, whose words can be told apart."""
    return _RUN_ON.sub(" ", text)


@functools.cache
def default_vocabulary() -> Vocabulary:
    """All languages which ship with the project."""
    folder = resources.files("services.delegator.lexicon")
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return build([tomllib.loads((folder / name).read_text("utf-8")) for name in files])


def build(languages: list[dict[str, dict[str, object]]]) -> Vocabulary:
    """One vocabulary out of several languages' tables."""
    raw: Raw = {}
    grammar: dict[str, set[str]] = {name: set() for name in GRAMMAR}
    hard: dict[str, int] = {}
    exact: set[str] = set()  # "=spacing" is not a form of "space"
    for language in languages:
        for name, words in language.get("grammar", {}).items():
            grammar[name] |= set(fold(str(words)).split())
        for name, words in language.get("complexity", {}).items():
            hard |= dict.fromkeys(fold(str(words)).split(), 1 if name == "high" else -1)
        for place, kind, weight, written in _items(language):
            item = written.removeprefix("=")
            if item != written:
                exact.add(item)
            kinds = raw.setdefault((place, item), {})
            index = KINDS.index(kind)  # a word of two languages: the stronger opinion counts
            kinds[index] = max(kinds.get(index, weight), weight, key=abs)
    closed = exact.union(*grammar.values())
    canon = _canon([*(item for _, item in raw), *hard], closed)
    return Vocabulary(
        words=_words(raw, canon, stems := _stems(raw)),
        stems=stems,
        endings=tuple(endings := _endings(raw)),
        by_ending=endings,
        phrases=_phrases(raw, canon),
        run_on=_run_on_pattern(raw),
        run_on_features={
            item: _feature(kinds) for (_, item), kinds in raw.items() if is_run_on(item)
        },
        **{name: frozenset(words) for name, words in grammar.items()},
        complexity={_stem_of(item, canon): sign for item, sign in hard.items()},
    )


def _items(language: dict[str, dict[str, object]]) -> Iterator[tuple[str, str, int, str]]:
    for kind, places in language.items():
        if kind in {"grammar", "complexity"}:
            continue
        if kind not in KINDS:
            raise ValueError(f"lexicon: unknown kind {kind!r}")
        for place, levels in places.items():
            if place not in PLACES or not isinstance(levels, dict):
                raise ValueError(f"lexicon: [{kind}.{place}] is not one of {', '.join(PLACES)}")
            for weight, words in levels.items():  # type: ignore[reportUnknownVariableType]
                for item in fold(str(words)).split():  # type: ignore[reportUnknownArgumentType]
                    spaced = item.replace("_", " ") if is_run_on(item) else item
                    yield place, kind, int(str(weight)), spaced  # type: ignore[reportUnknownArgumentType]


def _canon(items: list[str], closed: set[str]) -> dict[str, str]:
    """Every form -> the word it is a form of. Short words first, so that "tests" is a "test"."""
    canon = {word: word for word in closed}
    plain = {part for item in items if "*" not in item for part in item.split("_")}
    for word in sorted(plain, key=lambda word: (len(word), word)):
        stem = canon.setdefault(word, word)
        if stem == word and word not in closed:
            for form in _forms(word):
                canon.setdefault(form, word)
    return canon


def _forms(word: str) -> Iterator[str]:
    """The regular English forms. They do no harm to other languages."""
    if len(word) < SHORTEST_STEM or not word.isascii():
        return
    base = word[:-1] if word[-1] == "e" else word
    yield word + "s"
    yield word + ("d" if word[-1] == "e" else "ed")
    yield base + "ing"
    if word[-1] == "y":
        yield from (word[:-1] + "ies", word[:-1] + "ied")
    if word.endswith(("s", "x", "ch", "sh", "z")):
        yield word + "es"
    if word[-1] not in "aeiouwxy" and word[-2] in _VOWELS and word[-3] not in _VOWELS:
        yield from (word + word[-1] + "ed", word + word[-1] + "ing")


def _stem_of(item: str, canon: dict[str, str]) -> str:
    return "_".join(canon.get(part, part) for part in item.split("_"))


def _feature(kinds: dict[int, int]) -> Feature:
    return tuple(sorted(kinds.items()))


def _words(raw: Raw, canon: dict[str, str], stems: Stems) -> dict[str, Word]:
    by_stem: dict[str, dict[str, dict[int, int]]] = {}
    for (place, item), kinds in raw.items():
        if "_" in item or "*" in item or is_run_on(item):
            continue
        known = by_stem.setdefault(canon[item], {}).setdefault(place, {})
        for kind, weight in kinds.items():
            known[kind] = max(known.get(kind, weight), weight, key=abs)
    made = {stem: _word(stem, places) for stem, places in by_stem.items()}
    marks = {mark: _word(mark, {}) for mark in PUNCTUATION}
    for stem in set(canon.values()) - set(made):  # known from a phrase only
        made[stem] = beginning(stem, stems)._replace(stem=stem)
    return marks | {form: made[stem] for form, stem in canon.items()}


def beginning(word: str, stems: Stems) -> Word:
    """What the longest known beginning of a word says."""
    for stem, meaning in stems.get(word[:SHORTEST_STEM], ()):
        if word.startswith(stem):
            return meaning
    return NO_WORD


def _endings(raw: Raw) -> dict[str, Word]:
    by_ending: dict[str, dict[str, dict[int, int]]] = {}
    for (place, item), kinds in raw.items():
        if item.startswith("*"):
            by_ending.setdefault(item[1:], {})[place] = kinds
    return {ending: _word(ending, by_ending[ending]) for ending in sorted(by_ending)}


def _stems(raw: Raw) -> Stems:
    by_stem: dict[str, dict[str, dict[int, int]]] = {}
    for (place, item), kinds in raw.items():
        if item.endswith("*") and not is_run_on(item):
            if len(item) <= SHORTEST_STEM:
                raise ValueError(f"lexicon: {item!r} is too short a beginning")
            by_stem.setdefault(item[:-1], {})[place] = kinds
    by_beginning: dict[str, list[tuple[str, Word]]] = {}
    for stem in sorted(by_stem, key=lambda stem: (-len(stem), stem)):
        by_beginning.setdefault(stem[:SHORTEST_STEM], []).append((stem, _word(stem, by_stem[stem])))
    return {start: tuple(stems) for start, stems in by_beginning.items()}


def _word(stem: str, places: dict[str, dict[int, int]]) -> Word:
    return Word(stem, *(_feature(places.get(place, {})) for place in PLACES))


def _phrases(raw: Raw, canon: dict[str, str]) -> Phrases:
    merged: dict[tuple[str, str], dict[int, int]] = {}
    for (place, item), kinds in raw.items():
        if "_" in item and not is_run_on(item):
            merged.setdefault((place, _stem_of(item, canon)), {}).update(kinds)
    phrases: Phrases = {}
    for (place, item), kinds in sorted(merged.items()):
        first, second, *rest = item.split("_")
        starting = phrases.setdefault(first, {})
        phrase = Phrase(rest, place, _feature(kinds))
        starting[second] = (*starting.get(second, ()), phrase)
    return phrases


def _run_on_pattern(raw: Raw) -> re.Pattern[str]:
    items = {item for _, item in raw if is_run_on(item)}
    longest_first = sorted(items, key=lambda item: (-len(item), item))
    return re.compile("|".join(re.escape(item) for item in longest_first) or r"(?!)")
