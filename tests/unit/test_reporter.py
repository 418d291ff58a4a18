"""Reports of days: when they are due, what they say, and what late facts change."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from events.task import Charge
from events.usage import UsageRecorded
from projections import report_views
from projections.reports import APART, QUIET
from projections.state import State, decode_state
from services.decider import Inputs
from services.reports.decide import decide
from tests import examples
from tests.examples import DAY, HOUR, MINUTE, NOON, SECOND
from tests.given import Given

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "UTC")


def spent(tokens: int = 100, nanos: int = 900_000, day_at: int = 0, **more: Any) -> UsageRecorded:
    charged = Charge(
        "claude", "sonnet", tokens=tokens, nanos=nanos, input_tokens=tokens, day_at=day_at
    )
    return UsageRecorded("claude", replace(charged, **more))


def micros(year: int, month: int, day: int, *time: int, zone: str = "UTC") -> int:
    moment = datetime(year, month, day, *time, tzinfo=ZoneInfo(zone))
    return int(moment.timestamp()) * SECOND


def bus(zone: str = "UTC", at: int = NOON) -> Given:
    return Given(at).given(examples.policy(timezone=zone))


def issued(case: Given) -> list[tuple[str, int, int]]:
    """Date, version and tokens of the reports decided last."""
    return [(d.date, d.version, d.report["total"]["tokens_used"]) for d in case.decided]


# -- when ----------------------------------------------------------------------------------------


def test_a_day_is_reported_once_when_it_is_over() -> None:
    case = bus().given(spent(), at=NOON)
    assert issued(case.when(decide, at=NOON + 12 * HOUR - 1)) == []
    assert issued(case.when(decide, at=NOON + 12 * HOUR)) == [("2026-11-22", 1, 100)]
    assert issued(case.when(decide, at=NOON + 12 * HOUR + SECOND)) == []


def test_a_bus_that_was_never_used_reports_nothing() -> None:
    assert issued(bus().when(decide, at=NOON + 40 * DAY)) == []


def test_days_on_which_the_engine_was_away_are_made_up_for_empty_ones_too() -> None:
    case = bus().given(spent(7), at=NOON)
    case.given(spent(9), at=NOON + 2 * DAY)
    case.when(decide, at=NOON + 3 * DAY)
    assert issued(case) == [("2026-11-22", 1, 7), ("2026-11-23", 1, 0), ("2026-11-24", 1, 9)]


def test_a_long_absence_is_made_up_for_as_far_as_days_are_kept() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + 3000 * DAY)
    assert len(issued(case)) == 400
    assert issued(case.when(decide)) == []


def test_late_facts_make_one_new_version_however_many_they_are() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    later = NOON + DAY + 2 * MINUTE
    for n in range(50):
        case.given(spent(1, day_at=NOON), at=later + n)
    assert issued(case.when(decide)) == []  # more may come with it
    assert issued(case.when(decide, at=later + QUIET)) == [("2026-11-22", 2, 150)]
    assert issued(case.when(decide, at=later + HOUR)) == []


def test_versions_of_a_day_are_a_minute_apart() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    first = case.now
    case.given(spent(1, day_at=NOON))
    assert issued(case.when(decide, at=first + 5 * SECOND)) == []
    assert issued(case.when(decide, at=first + APART)) == [("2026-11-22", 2, 101)]


def test_a_late_fact_of_a_day_before_the_first_report_is_reported_too() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    case.given(spent(5, day_at=NOON - DAY), at=NOON + DAY + HOUR)
    assert issued(case.when(decide, at=case.now + QUIET)) == [("2026-11-21", 1, 5)]


def test_facts_of_today_are_not_late() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    case.given(spent(), at=NOON + DAY + HOUR)
    assert issued(case.when(decide, at=NOON + DAY + 2 * HOUR)) == []


def test_a_turn_that_did_not_reach_the_log_is_decided_again() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    case.given(spent(1, day_at=NOON), at=NOON + DAY + HOUR)
    before = case.state.digest()
    case.state.begin()
    case.when(decide, at=case.now + QUIET)
    assert issued(case) == [("2026-11-22", 2, 101)]
    case.state.rollback()
    assert case.state.digest() == before
    assert issued(case.when(decide)) == [("2026-11-22", 2, 101)]


def test_a_restored_state_knows_what_is_due() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    case.given(spent(1, day_at=NOON), at=NOON + DAY + HOUR)
    case.state = decode_state(case.state.encode()) or State()
    assert issued(case.when(decide, at=case.now + QUIET)) == [("2026-11-22", 2, 101)]


def test_when_the_zone_changes_no_day_is_reported_before_it_is_over() -> None:
    case = bus("Pacific/Kiritimati").given(spent(), at=NOON)  # there it is the 23rd
    case.when(decide, at=NOON + DAY)
    assert issued(case) == [("2026-11-23", 1, 100)]
    case.given(examples.policy(timezone="UTC")).given(spent(3))  # and here the 23rd again
    assert issued(case.when(decide, at=NOON + DAY + HOUR)) == []
    assert issued(case.when(decide, at=NOON + DAY + 12 * HOUR)) == [("2026-11-23", 2, 103)]


def test_a_turn_without_anything_due_looks_at_no_days() -> None:
    case = bus().given(spent(), at=NOON).when(decide, at=NOON + DAY)
    today = case.state.today
    case.when(decide, at=NOON + DAY + HOUR)
    assert case.state.today is today
    assert list(decide(case.state, case.now, Inputs())) == []


# -- zones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("Asia/Kathmandu", (2026, 3, 29), 24),
        ("Pacific/Kiritimati", (2026, 10, 25), 24),
        ("America/Santiago", (2026, 9, 6), 23),  # midnight itself does not exist
    ],
)
def test_a_day_is_as_long_as_it_is_there(zone: str, day: tuple[int, int, int], hours: int) -> None:
    name = date(*day).isoformat()
    start = micros(*day, zone=zone)
    case = bus(zone, at=start - MINUTE)
    case.given(spent(1), at=start - 1)
    case.given(spent(10), at=start)
    case.given(spent(100), at=start + hours * HOUR - 1)
    case.given(spent(1000), at=start + hours * HOUR)
    case.when(decide, at=start + hours * HOUR)
    assert (name, 1, 110) in issued(case)
    assert name not in [found[0] for found in issued(case.when(decide))]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "around",
    [(2026, 2, 28), (2028, 2, 29), (2026, 3, 29), (2026, 10, 25), (2026, 11, 1), (2026, 12, 31)],
    ids=str,
)
def test_days_of_every_zone_add_up_to_what_utc_says(
    zone: str, around: tuple[int, int, int]
) -> None:
    """Every half hour of three days, across month ends, leap days and changed clocks."""
    begin = micros(*around) - DAY
    there, utc = bus(zone, at=begin), bus("UTC", at=begin)
    for n in range(144):
        for case in (there, utc):
            case.given(spent(1 << (n % 40), n), at=begin + n * 30 * MINUTE)
    end = begin + 6 * DAY
    sums: list[tuple[int, int]] = []
    for case in (there, utc):
        case.when(decide, at=end)
        reports = [d.report for d in case.decided]
        days = [r["date"] for r in reports]
        expected = [
            (date.fromisoformat(days[0]) + timedelta(n)).isoformat() for n in range(len(days))
        ]
        assert days == expected
        sums.append(
            (
                sum(r["total"]["tokens_used"] for r in reports),
                sum(r["total"]["cost_nanos"] for r in reports),
            )
        )
    assert sums[0] == sums[1]


# -- what ----------------------------------------------------------------------------------------


def seed_day() -> Given:
    """The day of the seed's example."""
    case = bus(at=micros(2025, 8, 29, 9))
    for agent, tasks, tokens, cents in (
        ("claude", 6, 45_000, 90),
        ("gemini", 5, 32_000, 64),
        ("codex", 4, 28_000, 56),
    ):
        for n in range(tasks):
            task = f"{agent}-{n}"
            part = tokens // tasks + (tokens % tasks if n == 0 else 0)
            money = cents * 10_000_000 // tasks + (cents * 10_000_000 % tasks if n == 0 else 0)
            charged = Charge(agent, "sonnet", "w1", "", "coding", tokens=part, nanos=money, tasks=1)
            case.given(
                examples.submitted(task),
                examples.delegated(task),
                examples.joined(),
                examples.dispatched(task, agent=agent),
                examples.completed(task, charged=charged),
            )
    return case.when(decide, at=micros(2025, 8, 30))


def test_a_report_has_the_seeds_exact_shape() -> None:
    [payload] = seed_day().decided
    report = payload.report
    seed_keys = ("tasks", "tokens", "cost")
    assert {
        "date": report["date"],
        "agents": {n: {k: a[k] for k in seed_keys} for n, a in report["agents"].items()},
        "total": {
            k: report["total"][k]
            for k in ("tasks_completed", "tokens_used", "cost", "avg_tokens_per_task")
        },
    } == {
        "date": "2025-08-29",
        "agents": {
            "claude": {"tasks": 6, "tokens": 45000, "cost": "$0.90"},
            "gemini": {"tasks": 5, "tokens": 32000, "cost": "$0.64"},
            "codex": {"tasks": 4, "tokens": 28000, "cost": "$0.56"},
        },
        "total": {
            "tasks_completed": 15,
            "tokens_used": 105000,
            "cost": "$2.10",
            "avg_tokens_per_task": 7000,
        },
    }
    assert report["total"]["cost_nanos"] == 2_100_000_000
    assert report["agents"]["claude"]["cost_nanos"] == 900_000_000


def test_agents_add_up_to_the_total_even_where_one_has_no_name() -> None:
    case = bus().given(spent(5, agent=""), spent(7, agent="codex"), at=NOON)
    [payload] = case.when(decide, at=NOON + DAY).decided
    assert {n: a["tokens"] for n, a in payload.report["agents"].items()} == {
        "codex": 7,
        report_views.UNNAMED: 5,
    }


def test_a_report_of_a_thousand_projects_stays_small_and_exact() -> None:
    case = bus()
    for n in range(1000):
        case.given(spent(n, project=f"p{n}"))
    [payload] = case.when(decide, at=NOON + DAY).decided
    projects = payload.report["projects"]
    assert len(projects) == report_views.NAMES_MAX
    assert sum(p["tokens"] for p in projects.values()) == 999 * 1000 // 2
    assert projects["p999"]["tokens"] == 999


def test_weeks_and_months_are_sums_of_days() -> None:
    case = bus(at=micros(2026, 1, 31, 12))
    case.given(spent(1), at=micros(2026, 1, 31, 12)).given(spent(2), at=micros(2026, 2, 1, 12))
    found = report_views.period_report(case.state, ["2026-01-31", "2026-02-01"], "2026-W05")
    assert found["date"] == "2026-W05"
    assert found["total"]["tokens_used"] == 3
    assert {day: sums["tokens"] for day, sums in found["days"].items()} == {
        "2026-01-31": 1,
        "2026-02-01": 2,
    }
