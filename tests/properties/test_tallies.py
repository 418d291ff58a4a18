"""What metrics read of the fold: counts that agree with the records, counters that never fall."""

from __future__ import annotations

from hypothesis import given

from events.policy import PolicyChanged
from projections import usage
from projections.queues import Standing
from projections.records import Returned
from projections.state import State
from projections.tallies import AMOUNTS, BUCKETS, bound_s, bucket
from tests.given import Bus, replayed
from tests.strategies import Player, Step, examples, policies, steps


def recounted(state: State) -> dict[tuple[str, int], int]:
    return Standing(state.tasks.values()).counts


def standing(state: State) -> dict[tuple[str, int], int]:
    return {key: n for key, n in state.indexes.standing.counts.items() if n}


def charged_so_far(state: State) -> Returned:
    """What was ever charged: the sums of the fold, and what was taken back of them."""
    total = usage.total(state.lifetime.values())
    back = state.tallies.returned.values()
    return Returned(*(getattr(total, n) + sum(getattr(r, n) for r in back) for n in AMOUNTS))


@examples(60)
@given(policies(), steps())
def test_counts_agree_with_the_records_after_every_turn_kept_or_undone(
    first: PolicyChanged, day: list[Step]
) -> None:
    bus = Bus(first)
    player = Player(bus)
    before = charged_so_far(bus.state)
    for step in day:
        player.play(step)
        bus.decide()
        bus.undo()
        assert standing(bus.state) == recounted(bus.state)
        bus.run()
        assert standing(bus.state) == recounted(bus.state)
        now = charged_so_far(bus.state)
        assert all(getattr(now, n) >= getattr(before, n) for n in AMOUNTS)
        before = now
    tallies = bus.state.tallies
    assert sum(tallies.events.values()) == bus.state.meta.events == len(bus.log)
    assert replayed(bus.log).tallies == tallies
    timed = {key: sum(h.counts.values()) for key, h in tallies.durations.items()}
    ended = {f"task {s}": getattr(bus.state.meta, s) for s in ("completed", "failed", "cancelled")}
    assert {key: timed.get(key, 0) for key in ended} == ended


def test_a_duration_lies_at_or_below_the_bound_of_its_bucket() -> None:
    for us in (0, 1, 9_999, 10_000, 10_001, 20_000, 20_001, 640_000, 3_600_000_000):
        index = bucket(us)
        assert us <= bound_s(index) * 1_000_000
        assert index == 0 or us > bound_s(index - 1) * 1_000_000
    assert bucket(10**15) == BUCKETS
