"""Events of tasks as spans: each task a trace, with a span for every decision and attempt. PURE.

``task`` lasts from its submission to its end, ``decision`` from when it could be given out to its
dispatch, ``attempt`` from there to the attempt's end. Nothing that people or agents wrote is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from events.envelope import Event
from events.money import NANOS_PER_DOLLAR
from events.task import (
    AttemptEnd,
    Charge,
    TaskCompleted,
    TaskDelegated,
    TaskDispatched,
    TaskRequeued,
    TaskSubmitted,
    add_figures,
)
from events.trace import span_id, trace_id
from events.usage import UsageRecorded
from projections.records import RUNNING, TaskRecord
from projections.state import State

Attributes = dict[str, str | int | float]


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of a task's life; times are µs. ``parent`` is b"" for the task itself; ``error``
    says how it failed, "" where it did not."""

    trace: bytes
    id: bytes
    parent: bytes
    name: str
    began: int
    ended: int
    attributes: Attributes
    error: str = ""


class Journey(msgspec.Struct):
    """What is known of an open task. ``ready_at``: since when it could be given out, or since when
    its attempt runs. ``used``: the attempt's charges so far."""

    task: str
    submitted_at: int
    ready_at: int
    priority: str
    project: str = ""
    kind: str = ""
    attempt: int = 0
    running: bool = False
    worker: str = ""
    agent: str = ""
    model: str = ""
    used: Charge = msgspec.field(default_factory=Charge)

    @classmethod
    def of(cls, task: TaskRecord) -> Journey:
        """That of a task which was open before its events were followed."""
        running = task.status in RUNNING
        ready_at = task.dispatched_at if running else max(task.submitted_at, task.dispatched_at)
        used = Charge()
        if running and task.used is not None:
            add_figures(used, task.used)
        return cls(
            task.id,
            task.submitted_at,
            ready_at,
            task.priority_name,
            task.project,
            task.kind,
            task.attempt,
            running,
            task.worker,
            task.run_agent,
            task.run_model,
            used,
        )

    def dispatched(self, data: TaskDispatched, at: int) -> None:
        """An attempt begins."""
        self.attempt, self.running, self.ready_at, self.used = data.attempt, True, at, Charge()
        self.worker, self.agent, self.model = data.worker, data.agent, data.model


class Journeys:
    """The open tasks of a bus, and the spans that its events bring to an end."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._open: dict[str, Journey] = {}

    def restored(self, state: State) -> None:
        """The open tasks are those of ``state``: what ended meanwhile is passed over."""
        self._open = {task.id: Journey.of(task) for task in state.tasks.values()}

    def spans(self, events: Iterable[Event]) -> list[Stretch]:
        """What has ended with ``events``, which follow those that were taken before."""
        return [span for event in events for span in self._take(event)]

    def _take(self, event: Event) -> Iterator[Stretch]:
        data = event.data
        if isinstance(data, TaskSubmitted):
            self._open[data.task] = Journey(
                data.task, event.at, event.at, data.priority, data.project or "", data.kind or ""
            )
        journey = self._open.get(getattr(data, "task", ""))
        if journey is None:
            return
        if isinstance(data, TaskDelegated):
            journey.kind = data.kind
        elif isinstance(data, TaskDispatched):
            began = journey.ready_at
            journey.dispatched(data, event.at)
            yield self._decision(journey, began, data)
        elif isinstance(data, UsageRecorded) and data.attempt == journey.attempt:
            add_figures(journey.used, data.charged)
        elif isinstance(data, AttemptEnd) and data.attempt == journey.attempt and not data.stale:
            yield from self._ended(journey, data, event.at)

    def _ended(self, journey: Journey, data: AttemptEnd, at: int) -> Iterator[Stretch]:
        outcome = data.type.removeprefix("task.")
        error = "" if isinstance(data, TaskCompleted) else outcome
        if journey.running:
            if data.charged is not None:
                add_figures(journey.used, data.charged)
            yield self._attempt(journey, at, outcome, error)
        journey.running, journey.ready_at = False, at
        if isinstance(data, TaskRequeued) or getattr(data, "retry_at", 0):  # it is tried again
            return
        del self._open[journey.task]
        yield self._whole(journey, at, outcome, error)

    def _decision(self, journey: Journey, began: int, data: TaskDispatched) -> Stretch:
        held: Attributes = {
            "asb.hold.tokens": data.hold_tokens,
            "asb.hold.usd": data.hold_nanos / NANOS_PER_DOLLAR,
        }
        return self._part("decision", journey, began, journey.ready_at, held)

    def _attempt(self, journey: Journey, ended: int, outcome: str, error: str) -> Stretch:
        used = journey.used
        cached = used.cache_read_tokens + used.cache_write_tokens
        outcomes: Attributes = {
            "asb.outcome": outcome,
            "asb.counted_tokens": used.tokens,
            "asb.cost.usd": used.nanos / NANOS_PER_DOLLAR,
            "gen_ai.usage.input_tokens": used.input_tokens + cached,
            "gen_ai.usage.output_tokens": used.output_tokens,
        }
        return self._part("attempt", journey, journey.ready_at, ended, outcomes, error)

    def _part(
        self, name: str, journey: Journey, began: int, ended: int, more: Attributes, error: str = ""
    ) -> Stretch:
        attributes: Attributes = {
            "asb.attempt": journey.attempt,
            "asb.worker": journey.worker,
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": journey.agent,
            "gen_ai.request.model": journey.model,
            **more,
        }
        return self._span(name, journey, (began, ended), attributes, error)

    def _whole(self, journey: Journey, ended: int, outcome: str, error: str) -> Stretch:
        attributes: Attributes = {
            "asb.namespace": self._namespace,
            "asb.outcome": outcome,
            "asb.attempts": journey.attempt,
            "asb.priority": journey.priority,
            "asb.project": journey.project,
        }
        return self._span("task", journey, (journey.submitted_at, ended), attributes, error)

    def _span(
        self,
        name: str,
        journey: Journey,
        times: tuple[int, int],
        more: Attributes,
        error: str,
    ) -> Stretch:
        task, is_part = journey.task, name != "task"
        return Stretch(
            trace_id(self._namespace, task),
            span_id(self._namespace, task, name, journey.attempt if is_part else 0),
            span_id(self._namespace, task, "task") if is_part else b"",
            name,
            *times,
            {"asb.task": task, "asb.kind": journey.kind, **more},
            error,
        )
