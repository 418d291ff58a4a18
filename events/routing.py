"""What the delegator was taught, and when it sends a failed task to a more capable model."""

from __future__ import annotations

from typing import Annotated

import msgspec

from events.envelope import Payload, wire
from events.words import PRIVATE, Label, Phrase, Text


class Example(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A text of which somebody said what kind of work it asks for.

    A correction names a ``task``: its text is the task's own and stands nowhere else, so whoever
    forgets the task forgets the example. Where it names none, its text stands among the ``texts``
    of its event, at the same place.
    """

    kind: Label
    task: Label = ""


@wire("delegator.learnt")
class DelegatorLearnt(Payload):
    """From here on ``overlay`` (feature -> points by kind, as the shipped file has them) is added
    to the shipped weights; it takes the place of the one before. Features are words of texts.

    ``shipped`` names the weights it was learnt on top of, ``after`` the learning it knew of (its
    log id; "" for none), ``rows`` how many examples it comes from. ``examples`` are new ones with
    their ``texts`` ("" of those that name a task), ``forgotten`` the ids of those whose words are
    gone.
    """

    overlay: Annotated[dict[str, str], PRIVATE] = msgspec.field(default_factory=dict[str, str])
    shipped: Label = ""
    after: Label = ""
    rows: int = 0
    examples: tuple[Example, ...] = ()
    texts: Annotated[tuple[str, ...], PRIVATE] = ()
    forgotten: tuple[Label, ...] = ()
    reason: Text = ""


@wire("task.escalated")
class TaskEscalated(Payload):
    """A task failed on a cheap model for the last time; it is tried once more on ``model``."""

    task: Label
    attempt: int
    agent: Label
    model: Label
    reason: Phrase
