"""The lexicon: well-formed, and what a new word in it does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import services.delegator.lexicon as lexicon
from events.task import KINDS
from services.delegator.features import features
from services.delegator.sentences import Words
from services.delegator.vocabulary import PLACES, Vocabulary, build, fold

FILES = sorted(Path(str(lexicon.__file__)).parent.glob("*.toml"))
WEIGHTS = range(-15, 17)


def scores(text: str, vocabulary: Vocabulary) -> dict[str, int]:
    """What the lexicon says: its hits, each as often as it counts."""
    found: dict[str, int] = {}
    for name, count in features(text, Words(vocabulary)).items():
        hit = re.fullmatch(r"@[>:<_字]?([a-z]+)(-?\d+)", name)
        if hit:
            found[hit[1]] = found.get(hit[1], 0) + int(hit[2]) * count
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_well_formed(path: Path) -> None:
    language = tomllib.loads(path.read_text(encoding="utf-8"))
    for kind, places in language.items():
        if kind in {"grammar", "complexity"}:
            continue
        assert kind in KINDS
        for place, levels in places.items():
            assert place in PLACES
            items = [item for words in levels.values() for item in words.split()]
            doubles = {item for item in items if items.count(item) > 1}
            assert not doubles, f"[{kind}.{place}] has two weights for {doubles}"
            assert all(int(weight) in WEIGHTS and int(weight) for weight in levels)


def test_every_language_is_there() -> None:
    assert {path.stem for path in FILES} >= {
        *("english", "german", "french", "spanish_portuguese", "russian", "turkish"),
        *("chinese", "japanese", "korean"),
    }


def test_a_word_counts_where_it_is_said_to_count() -> None:
    words = build(
        [
            {
                "analysis": {
                    "any": {"2": "audit"},
                    "lead": {"9": "audit"},
                    "tag": {"4": "audit"},
                },
                "grammar": {"filler": "please the"},
            }
        ]
    )
    assert scores("Please audit the intake", words) == {"analysis": 2 + 9}
    assert scores("Paint the intake for the audit", words) == {"analysis": 2}
    assert scores("[audit] Paint the intake", words) == {"analysis": 2 + 4}
    assert scores("audit: Paint the intake", words) == {"analysis": 2 + 4}


def test_forms_phrases_and_beginnings() -> None:
    words = build([{"ui": {"any": {"1": "button", "2": "dark_mode", "4": "misalign* *flow"}}}])
    assert scores("Buttons", words) == {"ui": 1}
    assert scores("dark modes, dark-mode, DarkMode", words) == {"ui": 6}
    assert scores("mode dark", words) == {}
    assert scores("Misalignment", words) == {"ui": 4}
    assert scores("overflow", words) == {"ui": 4}


def test_a_word_is_kept_apart_from_what_it_looks_like() -> None:
    words = build([{"ui": {"any": {"5": "=spacing"}}, "coding": {"any": {"2": "space"}}}])
    assert scores("spacing", words) == {"ui": 5}
    assert scores("spaces", words) == {"coding": 2}


def test_scripts_without_spaces_are_searched_longest_first() -> None:
    words = build([{"ui": {"any": {"1": "按", "6": "按钮"}}, "api": {"any": {"3": "api"}}}])
    assert scores("修复按钮", words) == {"ui": 6}
    assert scores("按API按钮", words) == {"ui": 7, "api": 3}


def test_a_word_of_two_languages_has_the_stronger_weight() -> None:
    words = build([{"api": {"any": {"3": "token"}}}, {"api": {"any": {"7": "token"}}}])
    assert scores("token", words) == {"api": 7}


@pytest.mark.parametrize(
    ("language", "complaint"),
    [
        ({"cooking": {"any": {"1": "soup"}}}, "unknown kind 'cooking'"),
        ({"ui": {"anywhere": {"1": "button"}}}, r"\[ui.anywhere\]"),
        ({"ui": {"any": {"1": "bu*"}}}, "'bu\\*' is too short"),
    ],
)
def test_a_bad_lexicon_is_named(language: dict[str, dict[str, object]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build([language])


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("ÉTÉ", "ete"),
        ("Straße", "strasse"),
        ("İSTANBUL", "istanbul"),
        ("ışık", "isik"),
        ("Ёж", "еж"),
    ],
)
def test_accents_are_folded(written: str, folded: str) -> None:
    assert fold(written) == folded
