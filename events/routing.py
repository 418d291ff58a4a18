"""What the delegator was taught, and when it sends a failed task to a more capable model."""

from __future__ import annotations

import msgspec

from events.envelope import Payload, wire


class Example(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A text of which somebody said what kind of work it asks for.

    ``text`` is private (words). A correction names a ``task`` instead: its text is the task's own
    and stands nowhere else, so whoever forgets the task forgets the example.
    """

    kind: str
    text: str = ""
    task: str = ""


@wire("delegator.learnt")
class DelegatorLearnt(Payload):
    """From here on ``overlay`` (feature -> points by kind, as the shipped file has them) is added
    to the shipped weights; it takes the place of the one before.

    ``shipped`` names the weights it was learnt on top of, ``after`` the learning it knew of (its
    log id; "" for none), ``rows`` how many examples it comes from. ``examples`` are new ones,
    ``forgotten`` the ids of those whose words are gone.
    """

    overlay: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    shipped: str = ""
    after: str = ""
    rows: int = 0
    examples: tuple[Example, ...] = ()
    forgotten: tuple[str, ...] = ()
    reason: str = ""


@wire("task.escalated")
class TaskEscalated(Payload):
    """A task failed on a cheap model for the last time; it is tried once more on ``model``."""

    task: str
    attempt: int
    agent: str
    model: str
    reason: str
