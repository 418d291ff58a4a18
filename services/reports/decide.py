"""Reports: the report of each day, once that day is over. PURE."""

from __future__ import annotations

from events.policy import ReportIssued
from projections import reports
from projections.report_views import day_report
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "reports"


def decide(state: State, now: int, _inputs: Inputs) -> Decisions:
    """Reports that are due: of days that are over, and anew of days to which something came.

    An engine that rests decides every second, so a report is at most that late on an idle bus.
    """
    for day, version in reports.due_days(state, now):
        yield decided(ReportIssued(day, version, day_report(state, day, version)), BY)


DECIDER = Decider(BY, decide, frozenset({ReportIssued}))
