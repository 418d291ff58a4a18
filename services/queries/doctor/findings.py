"""How a check of ``asb doctor`` is written: a function from a look to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from projections.state import State
from services.client.bus import Bus
from services.runtime.errors import AsbError, CommandRefused
from services.store.health import FactRow, ServerFacts


class Look:
    """One look at a bus: how to ask it, what its server says of itself, server time in µs."""

    def __init__(self, bus: Bus, facts: ServerFacts) -> None:
        self.bus, self.facts = bus, facts
        self.now = bus.now()
        self._state: State | None = None
        self._failure: AsbError | CommandRefused | None = None

    @property
    def state(self) -> State:
        """The state as hosts have it. Raises LogError where the log cannot be folded."""
        if self._failure is not None:
            raise self._failure
        if self._state is None:
            try:
                self._state = self.bus.state()
            except (AsbError, CommandRefused) as error:
                self._failure = error
                raise
        return self._state


Check: TypeAlias = Callable[[Look], Iterable[FactRow]]


def rows(look: Look, checks: Sequence[tuple[str, Check]]) -> Iterator[FactRow]:
    """What every check finds. A failure that several run into is told once, by the first."""
    reported: set[int] = set()
    for name, check in checks:
        try:
            yield from check(look)
        except (AsbError, CommandRefused) as error:
            if id(error) not in reported:
                reported.add(id(error))
                yield failure(name, error)


def failure(name: str, error: Exception) -> FactRow:
    """The row of a check that could not be made."""
    hint = getattr(error, "hint", "") or "Redis refused a command: is a key of another type?"
    return (name, str(error).splitlines()[0], "bad", hint)
