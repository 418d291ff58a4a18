"""One turn: the deciders, one after the other, each on the state so far. PURE.

The turn's events are folded as they are decided (``State.begin`` was called before), so the host
appends what is already part of its state; ``State.rollback`` undoes it when the append fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from events.envelope import Event, as_read, encode, without_secrets, without_words
from events.task import TaskDispatched, TaskSubmitted
from projections import fold
from projections.state import State
from services import letters
from services.decider import Decider, Inputs, IntakeEntry, Rejection, Taken, Unclean

EVENTS_MAX = 200  # a script that appends 1,000 stops Redis for 4 to 5 ms
EVENTS_AHEAD = 100  # while another is on its way: short turns overlap better
BYTES_MAX = 4_000_000
SEQUENCE_MAX = (1 << 64) - 1  # of the second half of a log id
ENTRIES_MAX = 1_000  # repeats and refusals cause no event, but take time


class Turn(msgspec.Struct):
    """What one turn decided. ``more``: it stopped at a bound, so another should follow at once.

    ``consumed`` is how many of the intake entries it took in.
    """

    now: int
    base: str  # the log's last id it was decided on
    events: list[Event] = []
    refused: list[Rejection] = []
    taken: list[Taken] = []
    unclean: dict[str, str] = {}  # intake -> the newest entry there that must not stay
    consumed: int = 0
    more: bool = False
    bytes: int = 0


class _Places:
    """Log ids for the events of a turn: after ``floor``, in the millisecond of ``now``."""

    def __init__(self, floor: str, now: int) -> None:
        ms, seq = floor.split("-")
        self._ms, self._seq = int(ms), int(seq)
        if now // 1000 > self._ms:
            self._ms, self._seq = now // 1000, -1

    def following(self) -> str:
        """The next log id; it is used up."""
        if self._seq >= SEQUENCE_MAX:
            self._ms, self._seq = self._ms + 1, -1
        self._seq += 1
        return f"{self._ms}-{self._seq}"

    def peek(self) -> str:
        """The log id that the next event will get."""
        if self._seq >= SEQUENCE_MAX:
            return f"{self._ms + 1}-0"
        return f"{self._ms}-{self._seq + 1}"


def run_turn(
    state: State,
    now: int,
    deciders: Sequence[Decider],
    inputs: Inputs,
    floor: str = "",
    events_max: int = EVENTS_MAX,
) -> Turn:
    """Let every decider speak, within the bounds of a turn. ``now`` is server time, µs. Events get
    ids after ``floor``, by default the last event folded."""
    turn = Turn(now, state.meta.log_id)
    state.price_lookup = inputs.price_lookup
    places = _Places(floor or turn.base, now)
    alone = not any(TaskDispatched in decider.emits for decider in deciders)
    inputs.entries = _as_room_allows(inputs.entries, turn, events_max, alone=alone)
    for decider in deciders:
        if not decider.entire and len(turn.events) >= events_max:
            turn.more = True
            continue
        for decision in decider.decide(state, now, inputs):
            if isinstance(decision, Event):
                if type(decision.data) is TaskSubmitted:
                    inputs.texts[decision.data.task] = decision.data.text
                _fold(state, turn, decision, places.following(), inputs.secret)
                if not decider.entire and len(turn.events) >= events_max:
                    turn.more = True
                    break
            elif isinstance(decision, Rejection):
                turn.refused.append(_as_kept(turn, decision))
            elif isinstance(decision, Unclean):
                turn.unclean[decision.intake] = decision.id
            else:
                turn.taken.append(replace(decision, place=places.peek()))
    return turn


def _as_room_allows(
    entries: Iterable[IntakeEntry], turn: Turn, events_max: int, *, alone: bool
) -> Iterator[IntakeEntry]:
    """Intake entries, while there is room for what each will cause in this turn: a submission its
    route and dispatch, a result the dispatch of another task."""
    weight = 0
    for entry in entries:
        before = len(turn.events)
        yield entry
        turn.consumed += 1
        said = len(turn.events) - before
        if not said and letters.may_hold(entry):
            turn.unclean[entry.intake] = entry.id  # nothing came of it, so nobody has looked
        submitted = said and type(turn.events[-1].data) is TaskSubmitted
        weight += said if alone else 3 if submitted else 2 * said
        if weight > events_max - 3 or turn.bytes >= BYTES_MAX or turn.consumed >= ENTRIES_MAX:
            turn.more = True
            return


def _mask(turn: Turn, event: Event) -> None:
    """No secret reaches the log, but for that of a prompt: its agent may need it."""
    submitted = type(event.data) is TaskSubmitted
    if submitted and event.raw.find(_ONLY_PROMPT) >= 0:
        return
    raw = without_secrets(event.raw, ("text",) if submitted else ())
    if raw is not event.raw:
        event.raw = raw
        intake, _, entry = event.origin.rpartition(" ")
        if intake:
            turn.unclean[intake] = entry


_ONLY_PROMPT = b'"words":{"text":'  # what a writer told besides would stand before it


def _as_kept(turn: Turn, letter: Rejection) -> Rejection:
    """A rejection without the secrets of its entry, which then leaves its intake soon."""
    kept = letters.masked(letter)
    if kept is not letter:
        turn.unclean[letter.entry.intake] = letter.entry.id
    return kept


def _fold(state: State, turn: Turn, event: Event, place: str, secret: bytes) -> None:
    event.at, event.log_id = turn.now, place
    if not event.id:
        event.id = place
    if not event.raw:
        event.raw = encode(event.data, secret)
    if state.forgotten and getattr(event.data, "task", "") in state.forgotten:
        event.raw = without_words(event.raw, turn.now)
    _mask(turn, event)
    turn.bytes += len(event.raw)
    fold.apply(state, as_read(event))
    turn.events.append(event)
