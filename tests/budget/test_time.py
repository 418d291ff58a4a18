"""T19, T20, T24 to T28: what time does to windows, and what it must not do."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.task import Charge
from events.usage import UsageRecorded
from projections import budgets, usage, windows
from services.audit import ledger
from tests.budget.ground import Rivals, audit_of, often, say
from tests.examples import DAY, HOUR, NOON, SECOND, limit, policy
from tests.given import Bus, Given
from tests.given import given as facts
from tests.strategies import examples


def _at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def _use(bus: Bus, tokens: int, **more: Any) -> None:
    bus.send("usage.recorded", agent="codex", input_tokens=tokens, model="sonnet", **more)
    bus.run()


def _in_window(bus: Bus, window: str, at: int | None = None) -> int:
    return budgets.used(bus.state, "global", window, bus.now if at is None else at).tokens


def _booked(tokens: int, day_at: int = 0) -> UsageRecorded:
    return UsageRecorded("codex", Charge("codex", "sonnet", tokens=tokens, day_at=day_at))


# -- T25: the calendar -------------------------------------------------------------------------


@examples(300)
@given(
    st.sampled_from(["hour", "day", "week", "month", "5h", "90m", "24h", "1m"]),
    st.integers(0, 4_102_444_800 * SECOND),
)
def test_every_window_is_where_a_calendar_says(window: str, at: int) -> None:
    found = windows.interval(window, at)
    assert found == ledger.window(window, at)
    assert found[0] <= at < found[1]


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("2026-01-31T23:59:59.999999", "2026-02-01T00:00:00"),
        ("2027-02-28T23:59:59.999999", "2027-03-01T00:00:00"),
        ("2028-02-28T23:59:59.999999", "2028-02-29T00:00:00"),
        ("2028-02-29T23:59:59.999999", "2028-03-01T00:00:00"),
        ("2026-12-31T23:59:59.999999", "2027-01-01T00:00:00"),
    ],
)
def test_an_event_on_a_boundary_belongs_to_the_later_day(last: str, first: str) -> None:
    held = facts().given(_booked(1), at=_at(last)).given(_booked(2), at=_at(first))
    day = [budgets.used(held.state, "global", "day", _at(x)).tokens for x in (last, first)]
    assert day == [1, 2]
    same_month = first[8:10] != "01"
    month = budgets.used(held.state, "global", "month", _at(first)).tokens
    assert month == (3 if same_month else 2)


def test_the_months_of_a_year_add_up_to_it() -> None:
    chance = random.Random(25)
    held = Given(at=_at("2028-01-01"))
    by_month = [0] * 12
    for month in range(12):
        for _ in range(20):
            text = f"2028-{month + 1:02d}-{chance.randrange(1, 29):02d}T{chance.randrange(24):02d}"
            tokens = chance.randrange(1_000)
            held.given(_booked(tokens), at=_at(text + ":00:00"))
            by_month[month] += tokens
        # Two months of hours are kept, so each is asked for while it is the present one.
        end = _at(f"2028-{month + 1:02d}-28T23:59:59")
        assert budgets.used(held.state, "global", "month", end).tokens == by_month[month]
    assert usage.total(held.state.lifetime.values()).tokens == sum(by_month)


# -- T26: report days in other zones -----------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2027-03-28", 23),
        ("Europe/Berlin", "2027-10-31", 25),
        ("America/New_York", "2027-03-14", 23),
        ("America/New_York", "2027-11-07", 25),
        ("Asia/Kathmandu", "2027-03-28", 24),
        ("Pacific/Kiritimati", "2027-10-31", 24),
    ],
)
def test_report_days_follow_the_zone_and_windows_do_not(zone: str, day: str, hours: int) -> None:
    start = int(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp())
    held = Given(at=(start - 5 * 3_600) * SECOND).given(policy(timezone=zone))
    for n in range(-4, 32):  # one token an hour, a minute after it began
        held.given(_booked(1), at=(start + n * 3_600 + 60) * SECOND)
    state = held.state
    assert usage.total(state.days[day].values()).tokens == hours
    assert sum(usage.total(d.values()).tokens for d in state.days.values()) == 36
    plain = Given(at=(start - 5 * 3_600) * SECOND).given(policy())
    for n in range(-4, 32):
        plain.given(_booked(1), at=(start + n * 3_600 + 60) * SECOND)
    now = (start + 12 * 3_600) * SECOND
    for window in ("hour", "day", "week", "month", "5h"):
        one, other = (budgets.used(s, "global", window, now) for s in (state, plain.state))
        assert (one.tokens, one.start, one.end) == (other.tokens, other.start, other.end)


# -- T19, T20: late and corrected --------------------------------------------------------------


def test_a_late_fact_counts_in_the_report_of_its_day_and_in_the_present_window() -> None:
    """T19 as it applies here: windows follow the log's own time, so nobody evades a limit by a
    date; only reports know the writer's. No past admission is looked at again."""
    held = facts().given(_booked(100, day_at=NOON - 2 * DAY), at=NOON)
    assert budgets.used(held.state, "global", "hour", NOON).tokens == 100
    assert budgets.used(held.state, "global", "day", NOON - 2 * DAY).tokens == 0
    assert {d: usage.total(c.values()).tokens for d, c in held.state.days.items()} == {
        "2026-11-20": 100
    }


def test_a_correction_goes_into_the_window_of_what_it_corrects() -> None:
    """T20: the estimate of eleven o'clock is corrected at one; nothing becomes negative."""
    bus = Bus(policy(limit("global", "tokens", "day", 100_000)), at=NOON - HOUR)
    bus.join("w1")
    task = bus.submit(estimate_tokens=1_000, max_attempts=1, timeout_s=60)
    bus.run()
    bus.report("task.started", task)
    bus.wait(130)
    assert _in_window(bus, "hour") == 1_000
    bus.now = NOON + HOUR
    record = bus.state.outcomes[task]
    reported: dict[str, Any] = {"task": task, "attempt": record.attempt, "session": record.session}
    bus.send("task.failed", **reported, usage={"input_tokens": 400})
    bus.run()
    assert _in_window(bus, "hour") == 0
    assert _in_window(bus, "hour", NOON - HOUR) == 400
    assert _in_window(bus, "day") == 400
    for scope in bus.state.scopes.values():
        assert all(b.tokens >= 0 and b.nanos >= 0 for b in scope.hours.values())
    assert audit_of(bus.log).findings == []


# -- T24: the clock jumps ----------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-HOUR, HOUR, 40 * DAY, -40 * DAY])
def test_a_clock_that_jumps_loses_no_use_and_ends_no_hold_twice(jump: int) -> None:
    bus = Bus(policy(limit("global", "tokens", "month", 10**9)))
    bus.join("w1", capacity=50)
    total = 0
    for n in range(20):
        task = bus.submit(max_attempts=2)
        bus.run()
        if n == 10:
            bus.now += jump
            bus.run()
        if task in bus.state.tasks and bus.state.tasks[task].session:
            bus.report("task.completed", task, usage={"input_tokens": 100})
            bus.run()
        _use(bus, 10)
        bus.now += SECOND
    hours = bus.state.scopes["global"].hours.values()
    total = usage.total(bus.state.lifetime.values()).tokens
    assert sum(b.tokens for b in hours) == total
    assert min(b.tokens for b in hours) >= 0
    audit = audit_of(bus.log)
    assert audit.findings == []
    assert audit.total[0] == total
    ids = [tuple(map(int, e.log_id.split("-"))) for e in bus.events]
    assert ids == sorted(set(ids))  # ids rise though the clock falls


# -- T27: at the edge of two windows -----------------------------------------------------------


def test_a_fixed_window_allows_twice_its_limit_across_its_edge_and_a_rolling_one_does_not() -> None:
    """As documented: a calendar hour bounds each hour, so two limits may pass within a minute of
    its edge. A rolling ``60m`` ends with the present minute: in any sixty minutes there is never
    more than the limit and what one minute had, here the one that is just leaving it."""
    passed: dict[str, int] = {}
    for window in ("hour", "60m"):
        bus = Bus(policy(limit("global", "tokens", window, 1_000)), at=NOON - SECOND)
        bus.join("w1", capacity=100)
        bus.run()
        for moment in (NOON - SECOND, NOON + SECOND, NOON + 58 * 60 * SECOND):
            bus.now = moment
            for n in range(10):
                bus.submit(f"fix {n}", priority="critical", estimate_tokens=100)
            bus.run()
            for task in [t.id for t in bus.state.tasks.values() if t.session]:
                bus.report("task.completed", task, usage={"input_tokens": 100})
            bus.run()
        passed[window] = usage.total(bus.state.lifetime.values()).tokens
        assert audit_of(bus.log).findings == []
    assert passed == {"hour": 2_000, "60m": 1_000}


# -- T28: boundaries with two of everything ----------------------------------------------------


def test_a_thousand_boundaries_with_two_engines_erase_nothing_and_count_nothing_twice() -> None:
    """There is no job that resets anything: a window is a sum over what is kept."""
    hours = often(60, 1_000)
    bus = Rivals(policy(limit("global", "tokens", "hour", 1_000)), engines=2, seed=28)
    for n in range(hours):
        bus.now = NOON + n * HOUR - SECOND
        _use(bus, 400)
        bus.now = NOON + n * HOUR
        assert _in_window(bus, "hour") == 0
        _use(bus, 450)
        assert _in_window(bus, "hour") == 450
    assert usage.total(bus.state.lifetime.values()).tokens == 850 * hours
    said = [a.instance for a in bus.of("alert.raised")]
    assert len(said) == len(set(said)) == hours - 1  # 850 of 1,000 in each whole hour
    assert len({state.digest() for state in bus.states}) == 1
    say(f"boundaries: {hours}, {bus.conflicts} conflicts")
    assert bus.conflicts > 0
    assert audit_of(bus.log).findings == []
