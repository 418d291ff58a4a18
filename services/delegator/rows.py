"""The labelled rows that the weights are learnt from, and the words they are read with.

A file has a header and the columns kind, language, text. The label is the deliverable: what does
the person want handed over at the end? ``GIVEN`` files judge and train; ``OWN`` rows only train,
since whoever wrote them knew the weak spots; ``JUDGE`` never trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources
from typing import Final, NamedTuple

from events.task import KINDS
from services.delegator.features import features
from services.delegator.learn import Row
from services.delegator.sentences import Words
from services.delegator.vocabulary import default_vocabulary

GIVEN: Final = ("train.tsv", "train-2.tsv")
OWN: Final = ("own.tsv", "examples.tsv")
JUDGE: Final = "dev.tsv"
# What judges may not change unnoticed: the beginning of each file's SHA-256.
DIGESTS: Final = {
    "train.tsv": "c96ee137e5ef2590",
    "train-2.tsv": "d3d0c27249c0fb4d",
    "dev.tsv": "dd1edc142fba88b8",
}
COLUMNS: Final = "kind\tlanguage\ttext"


class Labelled(NamedTuple):
    """One row: what kind of work the text asks for."""

    kind: str
    language: str
    text: str


def content(name: str) -> bytes:
    """A file of rows as it ships."""
    return (resources.files("services.delegator.training") / name).read_bytes()


def digest(name: str) -> str:
    """The beginning of its SHA-256."""
    return hashlib.sha256(content(name)).hexdigest()[:16]


def rows_of(name: str) -> list[Labelled]:
    """The rows of a shipped file."""
    return parse(name, content(name).decode())


def parse(name: str, text: str) -> list[Labelled]:
    """The rows of a file's text. ValueError names the line that is wrong."""
    rows: list[Labelled] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if number == 1:
            if line.strip() != COLUMNS:
                raise ValueError(f"{name}: line 1 must be the columns kind, language, text")
        elif line.strip():
            fields = line.split("\t")
            if len(fields) != 3 or not fields[2].strip():
                raise ValueError(f"{name}: line {number} is not kind, language and text")
            if fields[0] not in KINDS:
                raise ValueError(f"{name}: line {number} has the unknown kind {fields[0]!r}")
            rows.append(Labelled(*fields))
    return rows


def training_rows() -> list[Labelled]:
    """Everything the shipped weights are learnt from, in a fixed order."""
    return [row for name in (*GIVEN, *OWN) for row in rows_of(name)]


def counted(rows: Iterable[Labelled | tuple[str, str]]) -> list[Row]:
    """Rows (or kind and text) in the form that is learnt from."""
    words = Words(default_vocabulary())
    return [(features(row[-1], words), KINDS.index(row[0])) for row in rows]
