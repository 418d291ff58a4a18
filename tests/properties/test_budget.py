"""The whole engine against the reference model (T1, T3, T4 in memory): every number, every
dispatch, every head, after every step of a random day."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given

from events.policy import PolicyChanged
from projections import budgets
from tests.given import Bus, as_json
from tests.reference_model import Model
from tests.strategies import Player, Step, examples, policies, steps


def rows_of(bus: Bus) -> set[tuple[str, str, str, int, int, int, str]]:
    names = ("scope", "unit", "window", "used", "held", "limit", "level")
    rows = budgets.window_rows(bus.state, bus.now)
    return {(*(row[name] for name in names),) for row in rows}  # type: ignore[misc]


class Judged:
    """A bus whose log a model reads along."""

    def __init__(self, first: PolicyChanged) -> None:
        self.bus, self.model = Bus(first), Model()
        self.player = Player(self.bus)

    def step(self, step: Step) -> None:
        self.player.play(step)
        for event in self.bus.run():
            self.model.feed(event.data.type, event.at, as_json(event))
        assert rows_of(self.bus) == self.model.rows(self.bus.now)
        assert self.model.waiting_although_it_fits(self.bus.now) == []
        self._nothing_is_negative()

    def _nothing_is_negative(self) -> None:
        for key, scope in self.bus.state.scopes.items():
            held = (scope.held_tokens, scope.held_nanos, scope.held_tasks)
            assert min(held) >= 0, f"{key} holds {held}"
            for hour, bucket in scope.hours.items():
                sums = (bucket.tokens, bucket.nanos, bucket.tasks)
                assert min(sums) >= 0, f"{key} has used {sums} in hour {hour}"


def test_every_number_and_every_dispatch_is_what_the_model_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """T4. A run in which little happened has proved little, so what happened is counted."""
    seen: Counter[str] = Counter()

    @examples(300, proving=20_000)
    @given(policies(), steps())
    def days(first: PolicyChanged, day: list[Step]) -> None:
        judged = Judged(first)
        for worker in ("w1", "w2"):
            judged.step(("join", worker, 2, None, (), "", True))
        for step in day:
            judged.step(step)
        seen.update(event.data.type for event in judged.bus.events)
        seen["days"] += 1
        seen["steps judged"] += len(day)
        seen["left waiting"] += len(judged.model.heads())

    days()
    with capsys.disabled():
        wanted = ("days", "steps judged", "task.dispatched", "left waiting", "hold.extended")
        print("\n  " + ", ".join(f"{seen[name]:,} {name}" for name in wanted), end="")  # noqa: T201
    assert seen["task.dispatched"] > 100
    assert min(seen[x] for x in ("left waiting", "task.completed", "task.deferred")) > 10
    assert min(seen[x] for x in ("hold.extended", "task.requeued", "worker.lost")) > 0
