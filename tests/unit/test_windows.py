"""Windows are functions of time (T25, T27, T28): half-open, UTC, never reset by anybody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from events.envelope import Event
from events.policy import rolling_minutes
from projections import budgets, fold, windows
from projections.state import State
from tests import examples
from tests.examples import DAY, HOUR, MINUTE, NOON
from tests.given import Given, given
from tests.reference_model import moment, window

WINDOWS = ("hour", "day", "week", "month", "5h", "90m", "1m", "24h", "1440m")


def us(*parts: int) -> int:
    year, month, day, *rest = parts
    found = datetime(year, month, day, *rest, tzinfo=UTC)  # type: ignore[arg-type]
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def spent(case: Given, at: int, tokens: int) -> None:
    charged = examples.charge(tokens, tokens)
    event = Event(examples.usage_recorded("", charged=charged, attempt=0), at)
    event.log_id = f"{at // 1000}-0"
    fold.apply(case.state, event)


def used(state: State, name: str, at: int) -> int:
    return budgets.used(state, "global", name, at).tokens


@pytest.mark.parametrize(
    ("name", "at", "start", "end"),
    [
        ("hour", us(2026, 11, 22, 7, 59), us(2026, 11, 22, 7), us(2026, 11, 22, 8)),
        ("day", us(2026, 12, 31, 23, 59, 59), us(2026, 12, 31), us(2027, 1, 1)),
        ("week", us(2026, 11, 22, 23), us(2026, 11, 16), us(2026, 11, 23)),  # a Sunday
        ("week", us(2026, 11, 23), us(2026, 11, 23), us(2026, 11, 30)),  # a Monday
        ("week", us(2027, 1, 1), us(2026, 12, 28), us(2027, 1, 4)),
        ("month", us(2027, 1, 31, 12), us(2027, 1, 1), us(2027, 2, 1)),
        ("month", us(2027, 2, 28, 23, 59, 59), us(2027, 2, 1), us(2027, 3, 1)),
        ("month", us(2028, 2, 29), us(2028, 2, 1), us(2028, 3, 1)),
        ("month", us(2026, 12, 31, 23, 59, 59), us(2026, 12, 1), us(2027, 1, 1)),
        ("month", us(2100, 2, 28), us(2100, 2, 1), us(2100, 3, 1)),
        ("5h", us(2026, 11, 22, 7, 30, 20), us(2026, 11, 22, 2, 31), us(2026, 11, 22, 7, 31)),
        ("90m", us(2026, 11, 22, 0, 0), us(2026, 11, 21, 22, 31), us(2026, 11, 22, 0, 1)),
    ],
)
def test_windows_lie_where_the_calendar_says(name: str, at: int, start: int, end: int) -> None:
    assert windows.interval(name, at) == (start, end)


@for_all(st.sampled_from(WINDOWS), st.integers(us(1971, 1, 1), us(2110, 1, 1)))
def test_windows_are_those_of_the_reference_model(name: str, at: int) -> None:
    start, end = windows.interval(name, at)
    assert (moment(start), moment(end)) == window(name, moment(at))
    assert start <= at < end


@pytest.mark.parametrize("name", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("at", [us(2026, 11, 22, 7, 30), us(2028, 2, 29, 1), us(2026, 12, 31, 23)])
def test_a_booking_on_the_boundary_belongs_to_the_later_window(name: str, at: int) -> None:
    start, end = windows.interval(name, at)
    case = given()
    spent(case, end - 1, 10)
    assert used(case.state, name, end - 1) == 10  # and from here on the sum is kept
    spent(case, end, 3)
    assert (used(case.state, name, end - 1), used(case.state, name, end)) == (10, 3)
    assert windows.interval(name, end)[0] == end
    assert windows.interval(name, start - 1)[1] == start


def test_months_add_up_to_their_year() -> None:
    case = given()
    for month in range(1, 13):
        spent(case, us(2028, month, 1), month)
        spent(case, us(2028, month + 1, 1) - 1 if month < 12 else us(2029, 1, 1) - 1, 100)
        assert used(case.state, "month", us(2028, month, 15)) == 100 + month


def test_two_bursts_around_the_hour_both_count_in_a_rolling_window() -> None:
    """T27: a fixed hour sees one of them, a rolling hour sees both for its whole length."""
    case = given()
    edge = us(2026, 11, 22, 11)
    spent(case, edge - 1_000_000, 100)
    spent(case, edge + 1_000_000, 100)
    assert used(case.state, "hour", edge + 1_000_000) == 100
    for second in range(1, 3_600 - 60, 7):
        assert used(case.state, "60m", edge + second * 1_000_000) == 200
    assert used(case.state, "60m", edge + 59 * MINUTE) == 100
    assert used(case.state, "60m", edge + HOUR) == 0


def test_a_rolling_window_moves_by_the_minute() -> None:
    case = given()
    spent(case, NOON, 7)
    last = NOON + 5 * HOUR - 1
    assert used(case.state, "5h", last) == 7
    assert used(case.state, "5h", last + 1) == 0
    assert used(case.state, "90m", NOON + 90 * MINUTE - 1) == 7
    assert used(case.state, "90m", NOON + 90 * MINUTE) == 0


def test_nothing_is_counted_before_its_time_or_after() -> None:
    case = given()
    spent(case, NOON, 7)
    assert used(case.state, "hour", NOON - 1) == 0
    assert used(case.state, "hour", NOON + HOUR) == 0
    assert used(case.state, "day", NOON + HOUR) == 7


@for_all(
    st.lists(
        st.tuples(
            st.sampled_from((1, 30, 59, 60, 3_600, 7_000, 86_400, 2_600_000)),
            st.integers(0, 50),
            st.sampled_from(WINDOWS),
        ),
        max_size=25,
    )
)
def test_a_kept_sum_is_what_a_fresh_sum_would_be(day: list[tuple[int, int, str]]) -> None:
    """The cache over the buckets is kept up by every charge."""
    case = given()
    at = NOON
    for seconds, tokens, name in day:
        at += seconds * 1_000_000
        used(case.state, name, at)
        spent(case, at, tokens)
        for other in WINDOWS:
            kept = used(case.state, other, at)
            case.state.sums.pop("global")
            assert kept == used(case.state, other, at)


def test_a_late_booking_counts_in_its_own_window() -> None:
    case = given()
    used(case.state, "hour", NOON + HOUR)
    late = examples.charge(50, 50, window_at=NOON + 1)
    case.given(examples.usage_recorded("", charged=late, attempt=0), at=NOON + HOUR)
    assert used(case.state, "hour", NOON) == 50
    assert used(case.state, "hour", NOON + HOUR) == 0
    assert used(case.state, "day", NOON + HOUR) == 50


def test_buckets_no_window_can_reach_are_forgotten_and_no_others() -> None:
    case = given()
    for n in range(120 * 48):  # every half hour
        at = NOON + n * HOUR // 2
        spent(case, at, 1)
        found = case.state.scopes["global"]
        assert len(found.hours) <= windows.HOURS_KEPT + 1
        assert len(found.minutes) <= windows.MINUTES_KEPT // 30 + 2
        if n % 96:
            continue
        assert used(case.state, "24h", at) == min(n + 1, 48)
        start, _ = windows.interval("month", at)
        assert used(case.state, "month", at) == min(n, (at - start) * 2 // HOUR) + 1
    assert len(case.state.scopes["global"].hours) > 100 * 24


def test_the_minute_of_a_day_ago_is_still_there_for_a_window_of_a_day() -> None:
    case = given()
    spent(case, NOON, 7)
    spent(case, NOON + DAY - MINUTE, 1)
    assert used(case.state, "24h", NOON + DAY - 1) == 8
    assert used(case.state, "24h", NOON + DAY) == 1


def test_a_step_back_of_the_clock_makes_no_window_negative() -> None:
    """T24: windows follow ``at``, whatever it does."""
    case = given()
    for at in (NOON, NOON - HOUR, NOON + HOUR, NOON + 40 * DAY, NOON):
        spent(case, at, 5)
        assert used(case.state, "hour", at) >= 5
    assert case.state.meta.clock == NOON + 40 * DAY


def test_reading_a_window_a_thousand_times_changes_nothing() -> None:
    """T28: no job resets anything, so nothing can be reset twice."""
    case = given()
    spent(case, NOON, 9)
    before = case.state.digest()
    for boundary in range(1_000):
        budgets.window_rows(case.state, NOON + boundary * HOUR)
    assert used(case.state, "hour", NOON) == 9
    assert case.state.digest() == before


@pytest.mark.parametrize("name", ["5 h", "0h", "25h", "1441m", "5d", "", "hours", "-5h", "5h\n"])
def test_a_window_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="window"):
        rolling_minutes(name)
