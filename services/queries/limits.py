"""Limits, and how full each is, as plain data. PURE."""

from __future__ import annotations

from typing import Any

import msgspec

from events.policy import SCOPE_KINDS, UNITS, Limit
from projections import budgets, views
from projections.shares import share_of_limit
from projections.state import State


def limits_view(state: State, now: int) -> dict[str, Any]:
    """``asb limits --json``: each limit with the windows it bounds."""
    rows = budgets.window_rows(state, now)
    return {
        "as_of": state.meta.log_id,
        "at": views.iso(now),
        "limits": [
            {
                **msgspec.to_builtins(limit),
                **_share(state, limit),
                "windows": [
                    {**row, "resets_at": views.iso(row["resets_at"])}
                    for row in limit_rows(limit, rows, state)
                ],
            }
            for limit in sorted(state.policy.limits)
        ],
        "alert_budgets": [
            {
                **msgspec.to_builtins(x),
                "used": budgets.used(state, "global", x.window, now).of(x.unit),
            }
            for x in state.policy.alert_budgets
        ],
        "saving": msgspec.to_builtins(state.policy.saving),
        "guard": msgspec.to_builtins(state.policy.guard),
        "min_priority": state.policy.min_priority,
        "critical_overdraft": state.policy.critical_overdraft,
        "plausible_tokens": state.policy.plausible_tokens,
        "plausible_nanos": state.policy.plausible_nanos,
    }


def _share(state: State, limit: Limit) -> dict[str, Any]:
    share = share_of_limit(state.policy, limit)
    return {} if share is None else {"share": msgspec.to_builtins(share)}


def limit_rows(limit: Limit, rows: list[dict[str, Any]], state: State) -> list[dict[str, Any]]:
    """The windows that this very limit bounds: one of its own takes the place of its kind's."""
    return [
        row
        for row in rows
        if (row["unit"], row["window"]) == (limit.unit, limit.window)
        and limit in budgets.limits_for(state, row["scope"])
        and row["scope"].partition(":")[0] == limit.scope.partition(":")[0]
    ]


def limit_order(limit: Limit) -> tuple[int, str, int, str]:
    kinds = SCOPE_KINDS
    kind = limit.scope.partition(":")[0]
    return kinds.index(kind), limit.scope, UNITS.index(limit.unit), limit.window
