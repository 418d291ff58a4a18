"""What the delegator was taught, and how routes fare."""

from __future__ import annotations

import msgspec


class Overlay(msgspec.Struct, frozen=True, gc=False):
    """Weights on top of the shipped ones: features of texts, so they stand among the words of the
    learning they come from, at ``place`` on the log ("": nothing was learnt)."""

    shipped: str = ""
    place: str = ""
    rows: int = 0


class Taught(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where an example stands: its words stay on the log, at ``place``, the ``number``-th of the
    event; or they are those of ``task``."""

    kind: str
    place: str
    number: int = 0
    task: str = ""


class Routed(msgspec.Struct, array_like=True, gc=False):
    """How attempts of one kind fared on one model. ``micros``: from dispatch to end."""

    attempts: int = 0
    completed: int = 0
    tokens: int = 0
    nanos: int = 0
    micros: int = 0
    lost: int = 0  # tasks that failed on it for good
    escalated: int = 0  # tasks that were tried on a more capable model afterwards
    rescued: int = 0  # tasks that it completed after a cheaper model had failed
