"""Events as the first version wrote them. These files are never changed: logs out there hold such
entries for ever, and today's code must read and fold each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from events.envelope import decode, known_types, words_of
from projections import fold
from projections.state import State
from tests.given import wire

FOLDER = Path(__file__).parent
SAMPLES = sorted(FOLDER.glob("*.v*.json"))


def entry(path: Path) -> list[Any]:
    """A sample as redis-py hands it over; its data is the bytes between the marks."""
    sample: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    log_id = sample.pop("entry")
    return [log_id.encode(), [part.encode() for pair in sample.items() for part in pair]]


def test_every_type_has_a_sample() -> None:
    assert {path.name.removesuffix(".v1.json") for path in SAMPLES} >= set(known_types())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_todays_code_reads_and_folds_it(path: Path) -> None:
    event = decode(entry(path))
    assert event.data.type == path.name.removesuffix(".v1.json")
    state = State()
    fold.apply(state, event)
    assert (state.meta.events, state.meta.unknown) == (1, 0)
    assert state.meta.log_id == event.log_id


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_nothing_it_says_is_lost(path: Path) -> None:
    """Every field of the sample is a field of today's payload, with the same value; its words are
    private fields of it."""
    event = decode(entry(path))
    words = words_of(event)
    assert set(words) <= set(event.data.private)
    old, new = json.loads(event.raw), json.loads(wire(event.data))
    old.pop("words", None)
    if "marks" not in new:  # read by no fold
        old.pop("marks", None)
    assert {name: new.get(name) for name in old} == old
