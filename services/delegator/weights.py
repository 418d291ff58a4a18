"""Weights: a readable, sorted text file, and eleven of them in one whole number.

All weights of a feature stand in one Python integer, `LANE` bits for each kind, so adding two
features up is one addition whatever the number of kinds. A negative weight borrows from the next
lane; `unpack` gives it back.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from events.task import KINDS

POINTS: Final = 100  # points in the lead that training asks of the right kind
LANE: Final = 32  # bits: sums up to two thousand million points
MASK: Final = (1 << LANE) - 1
MIDDLE: Final = 1 << (LANE - 1)
SHIFTS: Final = tuple(LANE * kind for kind in range(len(KINDS)))
ALL_MIDDLE: Final = sum(MIDDLE << shift for shift in SHIFTS)
_LANES: Final = struct.Struct(f"<{len(KINDS)}I")
LETTERS: Final = "abcdefghijk"
HEADER: Final = f"# {' '.join(map('='.join, zip(LETTERS, KINDS, strict=True)))}; 1/{POINTS} each"

Weights = dict[str, dict[int, int]]  # feature -> index of a kind in KINDS -> points


def pack(weights: Mapping[int, int]) -> int:
    """The weights of one feature in one number."""
    return sum(weight << SHIFTS[kind] for kind, weight in weights.items())


def unpack(total: int) -> list[int]:
    """The points of every kind, in the order of KINDS."""
    return [lane - MIDDLE for lane in lanes(total)]


def lanes(total: int) -> tuple[int, ...]:
    """The points of every kind plus MIDDLE: cheaper where only their order matters."""
    return _LANES.unpack((total + ALL_MIDDLE).to_bytes(_LANES.size, "little"))


def write(weights: Weights) -> str:
    """The file: a header, then one line a feature, sorted: name, tab, "a+12c-7"."""
    lines = [HEADER]
    for name in sorted(weights):
        points = "".join(f"{LETTERS[kind]}{n:+d}" for kind, n in sorted(weights[name].items()) if n)
        if points:
            lines.append(f"{name}\t{points}")
    return "\n".join(lines) + "\n"


def read(text: str) -> dict[str, str]:
    """Feature -> its points as they are written. ValueError for another list of kinds."""
    header, _, body = text.partition("\n")
    if header != HEADER:
        raise ValueError(f"these weights are for other kinds: {header[:200]!r}")
    # Taken apart when first asked for: of 30,000 features a text has a few dozen.
    return dict([line.split("\t") for line in body.splitlines()])


def parse(points: str) -> dict[int, int]:
    """ "a+12c-7" as weights. ValueError where it is not of that form."""
    weights: dict[int, int] = {}
    at = 0
    for end in range(1, len(points) + 1):
        if end == len(points) or points[end].isalpha():
            weights[LETTERS.index(points[at])] = int(points[at + 1 : end])
            at = end
    return weights


def merged(base: Mapping[str, str], overlay: Mapping[str, str]) -> dict[str, str]:
    """Two files' weights added up."""
    both = dict(base)
    for name, points in overlay.items():
        if name in both:
            both[name] = text_of(added(parse(both[name]), parse(points)))
        else:
            both[name] = points
    return both


def added(first: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """The sums of two features' weights."""
    return {kind: first.get(kind, 0) + other.get(kind, 0) for kind in {**first, **other}}


def text_of(weights: Mapping[int, int]) -> str:
    """The weights of one feature as the file has them."""
    return "".join(f"{LETTERS[kind]}{points:+d}" for kind, points in sorted(weights.items()))
