"""Steps of the server's clock: told once, timers move along, nothing is forgotten for them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.clock import ClockStepped
from events.envelope import text_of
from events.usage import UsageRecorded
from projections import budgets, clock, windows
from services.decider import Inputs
from services.engine.clock_steps import decide
from tests.budget.ground import Rivals, audit_of
from tests.examples import DAY, HOUR, MINUTE, NOON, SECOND, charge, limit, policy, usage_recorded
from tests.given import Bus, Given, replayed
from tests.given import given as facts
from tests.strategies import examples

STEPS = (26 * HOUR, -26 * HOUR, 70 * DAY, -70 * DAY, -20 * MINUTE, 20 * MINUTE, -2 * HOUR)


def spend(bus: Bus, tokens: int) -> None:
    bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=tokens)
    bus.run()


# -- the event ---------------------------------------------------------------------------------


def test_a_step_is_told_once_by_whoever_measured_it() -> None:
    case = facts(policy())
    noticed = Inputs(step=(26 * HOUR, NOON + 26 * HOUR))
    case.when(decide, noticed, at=NOON + 26 * HOUR).then(ClockStepped(26 * HOUR, NOON + 26 * HOUR))
    other = Inputs(step=(26 * HOUR + SECOND, NOON + 26 * HOUR + SECOND))
    case.when(decide, other, at=NOON + 26 * HOUR + 90 * SECOND).then()


def test_a_second_step_of_the_same_size_is_another_one() -> None:
    case = facts(policy())
    for n in (1, 2):
        at = NOON + n * 20 * MINUTE
        case.when(decide, Inputs(step=(20 * MINUTE, at)), at=at).then(ClockStepped(20 * MINUTE, at))


def test_whoever_was_not_there_sees_a_step_back_by_the_log() -> None:
    case = facts(policy(), at=NOON)
    case.when(decide, at=NOON - HOUR).then(ClockStepped(-HOUR, NOON - HOUR))
    case.when(decide, at=NOON - HOUR + SECOND).then()


def test_time_that_passed_while_nobody_was_there_is_no_step() -> None:
    facts(policy()).when(decide, at=NOON + 40 * DAY).then()


def test_a_slewed_clock_is_no_step() -> None:
    case = facts(policy()).when(decide, Inputs(step=(3 * SECOND, NOON)), at=NOON + 3 * SECOND)
    case.then()


# -- timers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", STEPS)
def test_a_task_in_backoff_goes_on_when_its_time_is_over(by: int) -> None:
    bus = Bus(policy())
    bus.join("w1")
    task = bus.submit()
    bus.run()
    bus.report("task.started", task)
    bus.report("task.failed", task, error="x")
    bus.run()
    assert bus.state.tasks[task].status == "backoff"
    bus.step(by)
    bus.run()
    bus.wait(4)
    assert bus.state.tasks[task].status == "backoff"
    bus.wait(1.1)
    assert bus.state.tasks[task].attempt == 2


@pytest.mark.parametrize("by", STEPS)
def test_a_running_task_has_the_time_it_was_given(by: int) -> None:
    bus = Bus(policy())
    bus.join("w1")
    task = bus.submit(timeout_s=600, max_attempts=1)
    bus.run()
    bus.report("task.started", task)
    bus.run()
    bus.step(by)
    bus.wait(600)
    assert bus.of("worker.lost") == []
    assert bus.state.tasks[task].status == "started"
    bus.wait(61)  # its worker ends it itself; a minute later nobody waits for that any more
    assert bus.state.outcomes[task].status == "failed"


@pytest.mark.parametrize("by", STEPS)
def test_who_waited_longer_stays_in_front(by: int) -> None:
    bus = Bus(policy())
    first = bus.submit()
    bus.run()
    bus.step(by)
    bus.wait(1)
    second = bus.submit()
    bus.run()
    bus.join("w1", capacity=1)
    bus.run()
    assert bus.state.tasks[first].session
    assert not bus.state.tasks[second].session


@pytest.mark.parametrize("by", STEPS)
def test_a_step_loses_no_worker(by: int) -> None:
    bus = Bus(policy())
    bus.join("w1")
    bus.run()
    bus.step(by)
    for _ in range(10):
        bus.wait(30)
    assert bus.of("worker.lost") == []


def test_two_engines_tell_of_a_step_once() -> None:
    bus = Rivals(policy(), engines=2)
    bus.join("w1")
    tasks = [bus.submit() for _ in range(3)]
    bus.run()
    bus.step(-20 * MINUTE)
    bus.run()
    bus.wait(1)
    assert [d.by for d in bus.of("clock.stepped")] == [-20 * MINUTE]
    assert len({state.digest() for state in bus.states}) == 1
    assert all(task in bus.state.tasks for task in tasks)


def test_a_turn_with_a_step_in_it_that_is_undone_leaves_no_trace() -> None:
    bus = Bus(policy())
    bus.join("w1", capacity=2)
    for n in range(4):
        bus.submit(f"fix {n}")
    bus.run()
    before = bus.state.digest()
    bus.step(26 * HOUR)
    bus.decide()
    bus.undo()
    assert bus.state.digest() == before


# -- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["hour", "day", "week", "month", "5h", "24h"])
@pytest.mark.parametrize("there", [26 * HOUR, 70 * DAY, -26 * HOUR, -70 * DAY])
def test_a_step_there_and_back_forgets_nothing(window: str, there: int) -> None:
    bus = Bus(policy(limit("global", "tokens", window, 10**6)))
    spend(bus, 100)
    for by in (there, -there):
        bus.step(by)
        bus.wait(5)
        spend(bus, 10)
    audit, used = audit_of(bus.log), budgets.used(bus.state, "global", window, bus.now).tokens
    assert used >= 110  # a week or month may hold what was used meanwhile
    assert used == audit.ledger.standing("global", "tokens", window, bus.now)[0]
    assert audit.findings == []


def test_a_clock_26_hours_back_finds_what_was_used_by_then() -> None:
    bus = Bus(policy(limit("global", "tokens", "24h", 10**6)))
    for _ in range(70 * 2):
        spend(bus, 1)
        bus.wait(1800)
    bus.step(-26 * HOUR)
    bus.wait(1)
    audit = audit_of(bus.log)
    used = budgets.used(bus.state, "global", "24h", bus.now).tokens
    assert used == audit.ledger.standing("global", "tokens", "24h", bus.now)[0] == 48


def test_pruning_waits_for_time_without_a_jump() -> None:
    case = Given().given(policy())
    case.given(_use(), at=NOON)
    case.given(_use(), at=NOON + 400 * DAY)  # a long silence, or a step nobody saw
    assert len(case.state.scopes["global"].hours) == 2
    at, end = NOON + 400 * DAY, NOON + (400 + windows.HOURS_KEPT // 24 + 1) * DAY
    while at < end:
        at += HOUR
        case.given(_use(), at=at)
    found = case.state.scopes["global"]
    assert min(found.hours) > NOON // HOUR
    assert len(found.hours) <= windows.HOURS_KEPT + 26
    assert len(found.minutes) <= windows.MINUTES_KEPT // 60 + 2


def test_a_confirmed_clock_forgets_at_once_and_settles_the_doubt() -> None:
    bus = Bus(policy(limit("global", "tokens", "day", 10**6)))
    spend(bus, 1)
    bus.step(200 * DAY)
    bus.run()
    spend(bus, 1)
    assert clock.doubted(bus.state)
    assert len(bus.state.scopes["global"].hours) == 2
    bus.send("clock.confirmed", reason="set by hand")
    bus.run()
    [confirmed] = [event for event in bus.events if event.type == "clock.confirmed"]
    assert text_of(confirmed, "reason") == "set by hand"
    assert not clock.doubted(bus.state)
    assert len(bus.state.scopes["global"].hours) == 1


def test_only_the_operators_intake_confirms_a_clock() -> None:
    bus = Bus(policy())
    bus.send("clock.confirmed", intake="asb:intake:ada")
    bus.run()
    assert bus.of("clock.confirmed") == []
    assert "shared intake only" in bus.refused[0].error


def test_a_small_step_is_no_doubt() -> None:
    bus = Bus(policy())
    bus.run()
    bus.step(-20 * MINUTE)
    bus.run()
    assert [d.by for d in bus.of("clock.stepped")] == [-20 * MINUTE]
    assert not clock.doubted(bus.state)


def _use() -> UsageRecorded:
    return usage_recorded("", charged=charge(1, 0), attempt=0)


# -- days of steps -----------------------------------------------------------------------------

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.sampled_from(STEPS) | st.integers(-80 * DAY, 80 * DAY)),
        st.tuples(st.just("wait"), st.integers(1, 600)),
        st.tuples(st.just("submit"), st.integers(50, 400)),
        st.tuples(st.just("use"), st.integers(1, 300)),
        st.tuples(st.just("end"), st.integers(1, 500)),
    ),
    min_size=1,
    max_size=40,
)
WINDOWS = ("hour", "day", "week", "month", "5h", "24h")


def play(bus: Bus, what: str, amount: int) -> None:
    if what == "step":
        bus.step(amount)
    elif what == "wait":
        bus.now += amount * SECOND
    elif what == "submit":
        bus.submit(estimate_tokens=amount)
    elif what == "use":
        spend(bus, amount)
    elif running := [t.id for t in bus.state.tasks.values() if t.session]:
        bus.report("task.completed", running[0], usage={"input_tokens": amount})
    bus.run()


def test_no_limit_is_overshot_by_any_steps_of_the_clock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The audit forgets nothing and shares nothing with the folds."""
    seen: Counter[str] = Counter()

    @examples(60, proving=3_000)
    @given(st.sampled_from(WINDOWS), MOVES)
    def days(window: str, moves: list[tuple[str, int]]) -> None:
        bus = Bus(policy(limit("global", "tokens", window, 2_000)))
        bus.join("w1", capacity=3)
        for _ in range(3):
            bus.submit(estimate_tokens=300)
        bus.run()
        for what, amount in moves:
            play(bus, what, amount)
            used = audit_of(bus.log).ledger.standing("global", "tokens", window, bus.now)[0]
            assert budgets.used(bus.state, "global", window, bus.now).tokens == used
        audit = audit_of(bus.log)
        assert audit.findings == []
        assert replayed(bus.log).digest() == bus.state.digest()
        assert bus.of("worker.lost") == []
        seen.update(event.data.type for event in bus.events)
        seen["days"] += 1

    days()
    with capsys.disabled():
        wanted = ("days", "clock.stepped", "task.dispatched", "task.completed")
        print("\n  " + ", ".join(f"{seen[name]:,} {name}" for name in wanted), end="")  # noqa: T201
    assert seen["clock.stepped"] > 3  # drawn at random: some 40 are usual
    assert seen["task.dispatched"] > 20


def test_the_audit_finds_a_dispatch_that_a_forgotten_window_let_through() -> None:
    """As it was before: the buckets of the present hour are gone after a step there and back."""
    bus = Bus(policy(limit("global", "tokens", "24h", 1_000)))
    bus.join("w1")
    spend(bus, 900)
    for by in (26 * HOUR, -26 * HOUR):
        bus.step(by)
        bus.wait(1)
    bus.submit(estimate_tokens=500)
    bus.run()
    assert bus.of("task.dispatched") == []
    bus.state.scopes["global"].minutes.clear()
    bus.state.sums.clear()
    bus.submit(estimate_tokens=500)
    bus.run()
    assert len(bus.of("task.dispatched")) == 1
    assert [finding.rule for finding in audit_of(bus.log).findings] == ["limit"]
