"""One intake entry on its way: what the handlers need to judge it, and who handles which. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from events.commands import Command
from events.envelope import Event, Payload, Reported, encode
from events.words import TextMark, mark_of
from projections.records import Outcome, TaskRecord
from projections.state import State
from services.decider import Defaults, IntakeEntry, Known, Rejection
from services.intake.schema import Rejected, unknown_task

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Case(msgspec.Struct):
    """See the module. ``secret`` keys the marks of words."""

    state: State
    now: int
    entry: IntakeEntry
    defaults: Defaults
    known: Known
    main_intake: str
    secret: bytes
    raw: bytes = b""  # its data as JSON

    @property
    def intake_name(self) -> str:
        """The name of an agent's own intake stream, "" for the shared one."""
        return self.entry.intake[len(self.main_intake) + 1 :]

    def event(self, payload: Payload) -> Event:
        """``payload`` as an event that came through this intake stream."""
        return self._made(payload, encode(payload, self.secret))

    def reported(
        self, payload: Payload, command: Command, reported: Reported | None = None
    ) -> Event:
        """The same with the writer's own words: the private fields of his command, and what he
        told beside the fields that asb knows. ``reported`` are the numbers he told."""
        words: dict[str, msgspec.Raw] = {}
        others: dict[str, msgspec.Raw] = {}
        fields = _fields.decode(self.raw)
        for name, value in () if fields.keys() <= command.public else fields.items():
            if name in command.public or name in payload.private:
                continue
            (words if name in command.private else others)[name] = value
        return self._made(payload, encode(payload, self.secret, words, others, reported))

    def _made(self, payload: Payload, raw: bytes) -> Event:
        e = self.entry
        return Event(payload, source=e.intake, origin=f"{e.intake} {e.id}", raw=raw)

    def known_task(self, task: str) -> TaskRecord | Outcome:
        """The record of a task, as `State.record_of`. Raises Rejected where there is none."""
        record = self.state.record_of(task)
        if record is None:
            raise Rejected(unknown_task(task))
        return record

    def mark(self, text: str) -> TextMark:
        """The mark that ``text`` has on this bus."""
        return mark_of(text, self.secret)

    def check_speaks_for(self, worker: str) -> None:
        """An agent's own intake stream speaks for its worker alone; the shared one makes a claim.
        Raises Rejected."""
        if self.intake_name and worker and self.intake_name != worker:
            raise Rejected(f"the intake of {self.intake_name} may not speak for worker {worker!r}")

    def check_shared(self, what: str) -> None:
        """Whoever has an intake of his own is no operator. Raises Rejected."""
        if self.intake_name:
            raise Rejected(f"{what} through the shared intake only")


C = TypeVar("C", bound=Command)
Decisions: TypeAlias = Iterable[Event | Rejection]


class Handler(NamedTuple):
    """Who handles commands of one type, and what reads them."""

    handle: Callable[[Case, Any], Decisions]
    decoder: msgspec.json.Decoder[Any]


HANDLERS: dict[str, Handler] = {}


def takes(
    *commands: type[C],
) -> Callable[[Callable[[Case, C], Decisions]], Callable[[Case, C], Decisions]]:
    """Decorator: this function takes commands of these types in: events, or a rejection (Rejected
    is raised where there is nothing else to say)."""

    def register(handle: Callable[[Case, C], Decisions]) -> Callable[[Case, C], Decisions]:
        for command in commands:
            HANDLERS[command.type] = Handler(handle, msgspec.json.Decoder(command))
        return handle

    return register
