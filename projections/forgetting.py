"""Which tasks are forgotten, and how far their words were taken out."""

from __future__ import annotations

from events.envelope import Event
from events.log import START, WordsRemoved, after, is_id, parse_id
from events.task import TaskForgotten
from projections.state import State, folds

FORGOTTEN_KEPT = 100_000  # ids; what arrives for one that was forgotten before these is kept
SLACK = 10_000  # the oldest go so many at a time


@folds(TaskForgotten)
def forgotten(state: State, event: Event[TaskForgotten]) -> None:
    journal = state.journal
    journal.put(state.forgotten, event.data.task, event.log_id)
    state.meta.forgotten_id = event.log_id
    if len(state.forgotten) > FORGOTTEN_KEPT + SLACK:
        by_place = sorted(state.forgotten, key=lambda task: parse_id(state.forgotten[task]))
        for task in by_place[:-FORGOTTEN_KEPT]:
            journal.drop(state.forgotten, task)


@folds(WordsRemoved)
def removed(state: State, event: Event[WordsRemoved]) -> None:
    meta, payload = state.meta, event.data
    if is_id(payload.until) and after(payload.until, meta.words_removed or START):
        meta.words_removed = payload.until
    meta.words_before = max(meta.words_before, payload.before)


def is_due(state: State) -> bool:
    """Whether words of forgotten tasks are still to be taken out."""
    return after(state.meta.forgotten_id or START, state.meta.words_removed or START)


def is_gone(state: State, task: str, ended_at: int) -> bool:
    """Whether the words of a task that ended then are gone, or to go."""
    return task in state.forgotten or ended_at < state.meta.words_before
