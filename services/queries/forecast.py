"""What comes if it goes on like this, as plain data. PURE."""

from __future__ import annotations

from typing import Any

import msgspec

from projections import forecast, views
from projections.state import State
from services.queries.figures import savings


def forecast_view(state: State, now: int) -> dict[str, Any]:
    """``asb metrics --forecast --json``."""
    day = forecast.scenario(state)
    return {
        "as_of": state.meta.log_id,
        "at": views.iso(now),
        "rate": _plain(forecast.rate(state, "global", now)),
        "limits": [
            {**_plain(r), "at": views.iso(r.at), "resets_at": views.iso(r.resets_at)}
            for r in forecast.reaches(state, now)
        ],
        "projected": {
            window: _plain(forecast.projection(state, window, now)) for window in ("day", "month")
        },
        "savings": savings(state),
        "estimates": [_plain(e) for e in forecast.errors(state)],
        "capacity": [_plain(w) for w in forecast.capacity(state)],
        "scenario": None if day is None else {**_plain(day), "month_nanos": MONTH_DAYS * day.nanos},
    }


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


MONTH_DAYS = 30
