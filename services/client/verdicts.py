"""What the engine says to submissions that only it can refuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.client.bus import Bus
from services.client.follow import Answers, repeats, taken_as
from services.client.submissions import Submission

VERDICT_S = 1.5  # how long it is asked


class Verdicts:
    """What only the engine can refuse: an unknown --after, an id with other content."""

    def __init__(self, bus: Bus, sent: Sequence[Submission]) -> None:
        self._answers = Answers(bus)
        self._secret = bus.secret
        self._same = repeats(bus, [self._taken_as(x) for x in sent if x.id])

    def _taken_as(self, submission: Submission) -> tuple[str, str]:
        return taken_as(submission.id, submission.data, self._secret)

    def expect(self, entry: str, submission: Submission) -> None:
        """It was sent, as this entry."""
        # Of a repeat nothing is said.
        if not submission.id or self._taken_as(submission) not in self._same:
            self._answers.expect(entry, submission.task or entry)

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Task and reason of what was refused, within ``VERDICT_S``."""
        return self._answers.refusals(VERDICT_S)


def hint(error: str) -> str:
    """What to do about a submission that was refused for this."""
    if "takes the model" in error:
        return "leave out --model for the route's own, or name one of these"
    if "other content" in error:
        return "another --id makes it another task"
    return "correct it and submit it again; `asb deadletter` keeps what was refused"
