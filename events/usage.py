"""Tokens and money spent, and progress told, outside the ends of attempts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from events.document import Totals
from events.envelope import Payload, wire
from events.task import Charge
from events.words import NO_MARK, PRIVATE, Label, Phrase, Text, TextMark


@wire("usage.recorded")
class UsageRecorded(Payload):
    """Usage of a running attempt, or of work asb did not dispatch (no task).

    ``unknown_task``: the result of an attempt whose task the log does not know (its submission was
    torn off); ``session`` is the one that reported it. Its usage counts as foreign work, once.
    """

    agent: Label
    charged: Charge
    model: Label = ""
    task: Label = ""
    attempt: int = 0
    meter: Label = ""
    session: Label = ""
    unknown_task: bool = False


CORRECTIONS = ("set", "accept", "drop")


@wire("usage.corrected")
class UsageCorrected(Payload):
    """What an attempt was charged is changed: ``charged`` is the (possibly negative) difference.

    Without ``action`` an actual replaces an estimate. With one, an operator corrects an attempt
    that has ended, or a report of foreign work (``report``: the log id of its event): ``set`` to
    another figure, ``accept`` or ``drop`` what is disputed. One correction is one event for each
    window and model that it changes.
    """

    agent: Label
    charged: Charge
    task: Label = ""
    attempt: int = 0
    action: Label = ""
    report: Label = ""
    reason: Text = ""


@wire("usage.compared")
class UsageCompared(Payload):
    """Another meter (``against``) told ``other_tokens`` counted tokens of an attempt for which
    ``meter`` told ``tokens``; nothing is charged for it. ``alert``: they are further apart than
    they should be.
    """

    agent: Label
    task: Label
    attempt: int
    meter: Label
    tokens: int
    against: Label
    other_tokens: int
    alert: bool = False

    @property
    def difference(self) -> int:
        """How many tokens more the other meter tells."""
        return self.other_tokens - self.tokens


NO_DOCUMENT = msgspec.Raw()


class DocumentMarks(msgspec.Struct, frozen=True, gc=False):
    """The marks of a document's words that its fold reads."""

    document: TextMark = NO_MARK


@wire("progress.updated")
class ProgressUpdated(Payload):
    """A progress document, kept as the agent wrote it, and what we understood of it.

    ``attempt`` is the one it belongs to, 0 for work asb did not dispatch. ``totals`` are running
    totals; ``charged`` is what they add. ``flag`` says what is odd about them; where a better meter
    (``against``) speaks for the attempt, ``difference`` is how many tokens more the document tells.
    ``completes``: it is the first that calls this work done, which asb did not give out: it counts
    among the completed tasks of its agent.
    """

    agent: Label
    task: Label
    document: Annotated[msgspec.Raw, PRIVATE] = NO_DOCUMENT
    charged: Charge | None = None
    attempt: int = 0
    status: Label = ""
    percent: int | None = None
    totals: Totals | None = None
    flag: Phrase = ""  # public: names of asb's own table and figures, no text of the writer
    against: Label = ""
    difference: int = 0
    completes: bool = False
    marks: DocumentMarks = DocumentMarks()


@wire("hold.refused")
class HoldRefused(Payload):
    """A running attempt wants more than it holds and the budgets refuse it; said once, and once
    again after each extension.

    ``action`` is what the policy asks of the worker: ``warn``, ``pause`` or ``cancel``.
    """

    task: Label
    attempt: int
    session: Label
    worker: Label
    action: Label
    reason: Phrase


@wire("hold.extended")
class HoldExtended(Payload):
    """A running attempt holds more, admitted under the same check."""

    task: Label
    attempt: int
    tokens: int
    nanos: int
