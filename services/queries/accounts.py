"""Accounts that providers have limited, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from events.envelope import text_of
from projections.accounts import account_of
from projections.format import span
from projections.records import ALIVE, ProviderAccount
from projections.state import State
from projections.views import iso
from services.client.bus import Bus
from services.dispatcher.accounts import goes_on_at
from services.queries.figures import natural


def limited(state: State) -> list[ProviderAccount]:
    """Those that are limited now, by name."""
    return [state.accounts[name] for name in sorted(state.accounts) if state.accounts[name].limited]


def account_text(known: ProviderAccount, now: int) -> str:
    """``claude@host: limited until 2026-11-26 19:00:00 UTC, in 2 h (its provider says so)``"""
    at = goes_on_at(known)
    when = f"in {span(at - now)}" if at > now else "in a moment"
    why = "its provider says so" if known.reset_named else "tried again then: no reset was told"
    until = iso(known.until)[:19].replace("T", " ")
    return f"{known.name}: limited until {until} UTC, {when} ({why})"


def evidence(bus: Bus, state: State) -> dict[str, str]:
    """What providers said, by the log id of the limit; what is gone from the log is left out."""
    events = bus.events_at([known.place for known in limited(state)])
    return {place: text_of(event, "evidence") for place, event in events.items()}


def accounts_view(state: State, now: int, evidence: Mapping[str, str]) -> dict[str, Any]:
    """``asb account --json``: every account of a living worker, and every limited one, with the
    ``evidence`` of its limit, by log id."""
    names = {account_of(w) for w in state.workers.values() if w.status == ALIVE}
    names |= {known.name for known in limited(state)}
    return {
        "as_of": state.meta.log_id,
        "at": iso(now),
        "accounts": [_row(state, name, evidence) for name in sorted(names, key=natural)],
    }


def _row(state: State, name: str, evidence: Mapping[str, str]) -> dict[str, Any]:
    known = state.accounts.get(name) or ProviderAccount(name)
    workers = [w for w in state.workers.values() if w.status == ALIVE and account_of(w) == name]
    return {
        "account": name,
        "limited": known.limited,
        "until": iso(known.until) if known.limited else None,
        "goes_on_at": iso(goes_on_at(known)) if known.limited else None,
        "reset_named": known.reset_named if known.limited else None,
        "evidence": evidence.get(known.place, "") if known.limited else "",
        "workers": sorted((w.name for w in workers), key=natural),
    }
