"""Which report of which day was issued last, and what came to its day afterwards."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec

from events.envelope import Event
from events.policy import ReportIssued
from projections.days import DAYS_KEPT, day_of
from projections.records import Issued
from projections.state import State, folds

SECOND = 1_000_000
QUIET = SECOND  # µs from the first late fact to a new version: what comes together goes together
APART = 60 * SECOND  # µs between two versions of one day


@folds(ReportIssued)
def issued(state: State, event: Event[ReportIssued]) -> None:
    payload = event.data
    if len(state.reports) >= DAYS_KEPT and payload.date not in state.reports:
        oldest = min(state.reports)
        state.journal.drop(state.reports, oldest)
    state.journal.put(state.reports, payload.date, Issued(payload.version, event.at, event.log_id))
    state.journal.touch(state.meta)
    state.meta.reported = max(state.meta.reported, payload.date)


def late(state: State, day: str, at: int) -> None:
    """A fact of ``day`` came at ``at``, µs: remember it if that day's report is out already."""
    known = state.reports.get(day) or Issued()
    if not known.late_at:
        state.journal.put(state.reports, day, msgspec.structs.replace(known, late_at=at))
    state.late_days[day] = None


def due_days(state: State, now: int) -> list[tuple[str, int]]:
    """The days whose report is due at ``now`` (µs), each with its next version, oldest first.

    Every day from the first with usage on gets one when it is over in the zone of the policy, an
    empty day too. A later fact makes a new version, a second after it and a minute after the
    version before at the earliest, so a burst of late facts is one version.
    """
    if not state.days:
        return []
    today = state.today
    if not today.start <= now < today.end:
        today = state.today = day_of(now, state.zone)
    days = _first_reports(state, today.date)
    for day in sorted(state.late_days):
        known = state.reports.get(day)
        if known is None or not known.late_at:
            state.late_days.pop(day)
        elif day < today.date and now >= max(known.late_at + QUIET, known.at + APART):
            days.append((day, known.version + 1))
    return days


def _first_reports(state: State, today: str) -> list[tuple[str, int]]:
    last = state.meta.reported
    first = following(last) if last else min(state.days)
    if first >= today:
        return []
    oldest = (date.fromisoformat(today) - timedelta(days=DAYS_KEPT)).isoformat()
    days: list[tuple[str, int]] = []
    day = max(first, oldest)
    while day < today:
        known = state.reports.get(day)
        days.append((day, known.version + 1 if known else 1))
        day = following(day)
    return days


def following(day: str) -> str:
    """The date after ``day``."""
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
