"""How long the delegator takes for a text, once its words are known."""

from __future__ import annotations

import time

from services.delegator.classify import Delegator
from services.delegator.rows import JUDGE, rows_of
from tests.bench.ground import Ground, load_now
from tests.bench.measures import Figure, Plan, Spread

TITLE_WORDS = range(9, 12)
SENTENCES = 6
ROUNDS = 20  # a repeat is the fastest of them


def delegate(_ground: Ground, plan: Plan) -> list[Figure]:
    """Titles of ten words, and texts of six sentences; none of them was ever learnt from."""
    texts = [row.text for row in rows_of(JUDGE)]
    titles = [text for text in texts if len(text.split()) in TITLE_WORDS and text.isascii()]
    stops = [text.rstrip(".") + "." for text in texts if text.isascii()]
    long = [" ".join(stops[at : at + SENTENCES]) for at in range(0, 120, SENTENCES)]
    return [
        _figure("delegate: ten words", titles, 30, plan.repeats),
        _figure("delegate: six sentences", long, 150, plan.repeats),
    ]


def _figure(name: str, texts: list[str], aim: int, repeats: int) -> Figure:
    delegator = Delegator()
    values = [min(_micros(delegator, texts) for _ in range(ROUNDS)) for _ in range(repeats)]
    words = sum(len(text.split()) for text in texts) / len(texts)
    notes = f"{len(texts)} texts of {words:.0f} words"
    return Figure(
        name, "µs", Spread.of(values), aim, f"≤ {aim} µs", False, notes=notes, load=load_now()
    )


def _micros(delegator: Delegator, texts: list[str]) -> float:
    began = time.perf_counter()
    for text in texts:
        delegator.delegate(text)
    return (time.perf_counter() - began) * 1e6 / len(texts)
