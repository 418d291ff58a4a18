"""That words were taken out of the streams is said once, by the host that did it. PURE."""

from __future__ import annotations

from events.log import START, WordsRemoved, after
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "forgetting"


def decide(state: State, _now: int, inputs: Inputs) -> Decisions:
    """What was done, unless the log says so or another host has done more."""
    done, meta = inputs.words_removed, state.meta
    if done is None:
        return
    carried_out = after(done.until or START, meta.words_removed or START)
    if carried_out or done.before > meta.words_before:
        yield decided(done, BY)


DECIDER = Decider(BY, decide, frozenset({WordsRemoved}))
