"""A decision in words a person understands: what was read, which words decided it, how sure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from events.task import KINDS
from services.delegator.features import SMALL
from services.delegator.weights import MASK, MIDDLE, SHIFTS

QUOTED, QUOTED_CHARS = 3, 80  # words a reason names, and how much of each
_WHY: Final = {"haiku": "cheap haiku is enough", "sonnet": "worth sonnet"}


class Evidence(NamedTuple):
    """What the parts of a text add to the score of each kind, in the order of the text.

    ``values`` holds all kinds' points in one number a part (`weights.pack`), ``quotes`` how a
    person would quote the part; ``hard`` one sum: words that mean trouble less those of easy work.
    """

    values: list[int]
    quotes: list[str]
    hard: list[int]

    def speaks(self) -> bool:
        """Whether anything but numbers and small words says something."""
        parts = zip(self.values, self.quotes, strict=True)
        return any(
            value and not quote.isdigit() and quote.lower() not in SMALL for value, quote in parts
        )

    def add(self, quote: str, value: int) -> None:
        """One more part."""
        self.values.append(value)
        self.quotes.append(quote)


class Verdict(NamedTuple):
    """``order``: indexes of kinds, the chosen one first. ``margin``: points between the likeliest
    kind and the best one with another route, ``rival`` that one where they are close, else -1."""

    order: list[int]
    margin: int = 0
    rival: int = -1
    likeliest: int = 0
    speaks: bool = True


def reason_of(text: str, evidence: Evidence, verdict: Verdict, given: bool, model: str) -> str:
    """One sentence: what it reads as and why, how close it was, and what the model is for."""
    chosen = verdict.order[0]
    kind = KINDS[chosen]
    why = _WHY.get(model, model)
    if given:
        return f"you said it is {kind}; {why}"
    words = quoted(evidence, chosen, verdict.order[1]) if verdict.speaks else ""
    close = ""
    if verdict.rival >= 0:
        close = _close(verdict, chosen)
    return f"reads as {kind}: {words or _nothing(text)}{close}; {why}"


def _close(verdict: Verdict, chosen: int) -> str:
    if chosen == verdict.likeliest:
        return f"; close: {KINDS[verdict.rival]} is {verdict.margin} points behind"
    lead = KINDS[verdict.likeliest]
    return f"; close: {lead} was likelier, and when_unsure decided"


def _nothing(text: str) -> str:
    start = " ".join(re.findall(r"\w+", text[:80])[:6])
    return f'nothing in "{start}" tells more' if start else "there are no words in it"


def quoted(evidence: Evidence, chosen: int, second: int) -> str:
    """The parts which speak most for the chosen kind rather than the second, in the text's order;
    "" where none does."""
    first, other = SHIFTS[chosen], SHIFTS[second]
    gains: list[tuple[int, int]] = []
    for place, value in enumerate(evidence.values):
        if value:
            # Cheaper than `weights.unpack`; what a lane below borrowed is one point, and no matter.
            gain = ((value >> first & MASK) - (value >> other & MASK)) & MASK
            if 0 < gain < MIDDLE:
                gains.append((-gain, place))
    if not gains:
        return ""
    gains.sort()
    quotes = evidence.quotes
    telling: list[int] = []
    for _, place in gains:  # small words count, but explain nothing: they are named last
        if quotes[place].lower() not in SMALL:
            telling.append(place)
            if len(telling) == QUOTED:
                break
    places = telling or [place for _, place in gains[:QUOTED]]
    return '"' + " … ".join([quotes[place][:QUOTED_CHARS] for place in sorted(places)]) + '"'
