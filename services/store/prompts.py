"""Words that are needed beside the state, which keeps only where they lie on the log: the prompts
of tasks on their way to a worker, and what the delegator was taught."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from events.envelope import Event, words_of
from events.task import TaskSubmitted
from projections.state import State
from services.store.log import Log

BYTES_MAX = 64_000_000
FETCH_COUNT = 100


class Texts(dict[str, str]):
    """Task id → prompt, bounded; what is missing is fetched from the log."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0
        self.overlay: tuple[str, Mapping[str, str]] = ("", {})  # log id of a learning, its weights

    def __setitem__(self, task: str, text: str) -> None:
        self._size += len(text) - len(self.get(task, ""))
        super().__setitem__(task, text)
        while self._size > BYTES_MAX:
            self.forget(next(iter(self)))

    def forget(self, task: str) -> None:
        text = self.pop(task, None)
        if text is not None:
            self._size -= len(text)

    def saw(self, event: Event) -> None:
        """Keep the prompt of a submission that somebody else appended."""
        if type(event.data) is TaskSubmitted:
            self[event.data.task] = words_of(event).get("text", "")

    def missing(self, state: State) -> bool:
        """Whether the next delegations need what is not here."""
        return state.meta.overlay.place != self.overlay[0] or bool(self._places(state))

    def _places(self, state: State) -> dict[str, str]:
        return {
            task.id: task.log_id
            for task_id in islice(state.indexes.undelegated, FETCH_COUNT)
            if task_id not in self and (task := state.tasks.get(task_id)) is not None
        }

    async def fetch(self, log: Log, state: State) -> None:
        """Fetch what the next delegations need."""
        place = state.meta.overlay.place
        if place != self.overlay[0]:
            words = await log.words_at(place) if place else {}
            self.overlay = place, words.get("overlay", {})
        places = self._places(state)
        texts = await log.texts(places) if places else {}
        for task in places:
            self[task] = texts.get(task, "")  # a lost prompt must not hold up the queue
