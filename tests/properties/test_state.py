"""What holds for every log and every interruption: batches, rollbacks, snapshots, repeats (T16,
T17 in memory). Behaviour counts as well as bytes: indexes are never encoded, only decisions show
them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from events.policy import PolicyChanged
from projections.state import State, decode_state
from services.decider import Taken
from tests.examples import DAY
from tests.given import Bus, replayed, wire_entry
from tests.strategies import Player, Step, examples, policies, steps


def played(first: PolicyChanged, day: list[Step], at: int | None = None) -> Bus:
    """A bus after a day."""
    bus = Bus(first)
    player = Player(bus)
    for step in day:
        player.play(step)
        bus.run()
    return bus


def decoded(state: State) -> State:
    found = decode_state(state.encode())
    assert found is not None
    return found


def said(bus: Bus) -> list[Any]:
    """What the engine says in one turn it does not keep: events as they would stand on the log."""
    turn = bus.decide()
    found: list[Any] = [wire_entry(event) for event in turn.events]
    found += [(refused.entry.id, refused.error) for refused in turn.refused]
    found += [mark for mark in turn.taken if isinstance(mark, Taken)]  # pyright: ignore
    bus.undo()
    return found


@examples(80)
@given(policies(), steps())
def test_replay_gives_the_state_that_was_live(first: PolicyChanged, day: list[Step]) -> None:
    bus = played(first, day)
    assert replayed(bus.log).digest() == bus.state.digest()


@examples(80)
@given(policies(), steps(), st.lists(st.integers(1, 40), min_size=1))
def test_batches_snapshots_and_restarts_change_nothing(
    first: PolicyChanged, day: list[Step], sizes: list[int]
) -> None:
    """Every batch begins with a state loaded from the snapshot of the one before."""
    bus = played(first, day)
    state, rest = State(), bus.log
    for size in sizes * len(rest):
        state = decoded(replayed(rest[:size], state))
        rest = rest[size:]
        if not rest:
            break
    assert state.digest() == bus.state.digest()
    assert decoded(state).encode() == bus.state.encode()


@examples(160)
@given(policies(), steps())
def test_a_turn_that_is_undone_leaves_no_trace(first: PolicyChanged, day: list[Step]) -> None:
    """Before each turn one is decided and undone: digest and decisions are those of before, and
    those of a state loaded from a snapshot (so the indexes came back too)."""
    bus = Bus(first)
    player = Player(bus)
    for step in day:
        player.play(step)
        before, first_words = bus.state.digest(), said(bus)
        assert bus.state.digest() == before
        assert said(bus) == first_words
        live, bus.state = bus.state, decoded(bus.state)
        bus.state.dirty_scopes = set(live.dirty_scopes)
        assert said(bus) == first_words
        bus.state = live
        bus.run()


@examples(120)
@given(policies(), steps(), steps(5, 20))
def test_a_restarted_engine_goes_on_as_the_old_one_would_have(
    first: PolicyChanged, day: list[Step], following: list[Step]
) -> None:
    """After a restart: what is loaded from a snapshot behaves as what was kept in memory, for the
    whole day that follows. (A restart looks at every level again, so alerts may come earlier.)"""
    one, other = played(first, day), played(first, day)
    other.state = decoded(other.state)
    players = Player(one), Player(other)
    for step in following:
        for player in players:
            player.play(step)
            player.bus.run()
        assert spoken(one) == spoken(other)
        one.state.dirty_scopes = set(one.state.scopes)
        other.state.dirty_scopes = set(other.state.scopes)


def spoken(bus: Bus) -> list[tuple[str, bytes]]:
    return [(e.data.type, e.raw) for e in bus.events if e.data.type != "alert.raised"]


@examples(80)
@given(policies(), steps())
def test_an_engine_that_crashes_at_every_turn_loses_and_repeats_nothing(
    first: PolicyChanged, day: list[Step]
) -> None:
    """Each turn is decided twice, the first time in vain; the log is that of a calm engine."""
    calm, shaken = Bus(first), Bus(first)
    for bus in (calm, shaken):
        player = Player(bus)
        for step in day:
            player.play(step)
            if bus is shaken:
                bus.decide()
                bus.undo()
            bus.run()
    assert shaken.log == calm.log
    assert shaken.state.digest() == calm.state.digest()


@examples(120)
@given(policies(), steps(), st.randoms(use_true_random=False))
def test_reports_told_again_and_out_of_order_count_once(
    first: PolicyChanged, day: list[Step], chance: Any
) -> None:
    """Everything workers ever told comes again, shuffled: no task ends twice, no attempt is
    dispatched twice, no use goes below zero."""
    bus = Bus(first)
    player = Player(bus)
    for step in day:
        player.play(step)
        bus.run()
        reported = [one for one in player.sent if one[0] in REPORTS]
        chance.shuffle(reported)
        for kind, data in reported[:10]:
            bus.send(kind, **data)
        bus.run()
    ends = Counter(
        (e.data.type, e.data.task)
        for e in bus.events
        if e.data.type in ("task.completed", "task.cancelled") and not e.data.stale
    )
    dispatches = Counter((d.task, d.attempt) for d in bus.of("task.dispatched"))
    assert not [one for one, times in (ends + dispatches).items() if times > 1]
    buckets = [b for s in bus.state.scopes.values() for b in s.hours.values()]
    assert all(min(b.tokens, b.nanos, b.tasks) >= 0 for b in buckets)
    cells = [
        *bus.state.lifetime.values(),
        *(c for d in bus.state.days.values() for c in d.values()),
    ]
    assert all(min(c.tokens, c.nanos) >= 0 for c in cells)


REPORTS = ("task.started", "task.completed", "task.failed", "task.cancelled")


@examples(120)
@given(policies(), steps())
def test_windows_totals_and_days_agree(first: PolicyChanged, day: list[Step]) -> None:
    """T38 in memory: what the events book is what windows, totals and report days hold."""
    bus = played(first, day)
    charged = [b for e in bus.events if (b := getattr(e.data, "charged", None)) is not None]
    everywhere = {(sum(b.tokens for b in charged), sum(b.nanos for b in charged))}
    hours = bus.state.scopes["global"].hours if "global" in bus.state.scopes else {}
    if bus.now - bus.events[0].at < 60 * DAY:  # hours which no window reaches are dropped later
        kept = hours.values()
        everywhere.add((sum(b.tokens for b in kept), sum(b.nanos for b in kept)))
    for cells in (
        [*bus.state.lifetime.values()],
        [c for d in bus.state.days.values() for c in d.values()],
    ):
        everywhere.add((sum(c.tokens for c in cells), sum(c.nanos for c in cells)))
    assert len(everywhere) == 1
