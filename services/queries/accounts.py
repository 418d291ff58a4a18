"""Accounts that providers have limited, as plain data. PURE."""

from __future__ import annotations

from typing import Any

from projections.accounts import account_of
from projections.format import span
from projections.records import ALIVE, ProviderAccount
from projections.state import State
from projections.views import iso
from services.dispatcher.accounts import goes_on_at
from services.queries.figures import natural


def limited(state: State) -> list[ProviderAccount]:
    """Those that are limited now, by name."""
    return [state.accounts[name] for name in sorted(state.accounts) if state.accounts[name].limited]


def account_text(known: ProviderAccount, now: int) -> str:
    """``claude@host: limited until 2026-11-26 19:00:00 UTC, in 2 h (its provider says so)``"""
    at = goes_on_at(known)
    when = f"in {span(at - now)}" if at > now else "in a moment"
    why = "its provider says so" if known.reset_told else "tried again then: no reset was told"
    until = iso(known.until)[:19].replace("T", " ")
    return f"{known.name}: limited until {until} UTC, {when} ({why})"


def accounts_view(state: State, now: int) -> dict[str, Any]:
    """``asb account --json``: every account of a living worker, and every limited one."""
    names = {account_of(w) for w in state.workers.values() if w.status == ALIVE}
    names |= {known.name for known in limited(state)}
    return {
        "as_of": state.meta.log_id,
        "at": iso(now),
        "accounts": [_row(state, name) for name in sorted(names, key=natural)],
    }


def _row(state: State, name: str) -> dict[str, Any]:
    known = state.accounts.get(name) or ProviderAccount(name)
    workers = [w for w in state.workers.values() if w.status == ALIVE and account_of(w) == name]
    return {
        "account": name,
        "limited": known.limited,
        "until": iso(known.until) if known.limited else None,
        "goes_on_at": iso(goes_on_at(known)) if known.limited else None,
        "reset_told": known.reset_told if known.limited else None,
        "refusals": known.refusals,
        "workers": sorted((w.name for w in workers), key=natural),
    }
