"""Accounts that their providers refuse go on by themselves when their time is over. PURE."""

from __future__ import annotations

import zlib

from events.account import AccountReleased
from projections.records import ProviderAccount
from projections.state import State
from services.decider import Decisions, decided

BY = "dispatcher"
EMITS = frozenset({AccountReleased})
JITTER_MAX = 15_000_000  # µs


def decide(state: State, now: int) -> Decisions:
    """Each account once, a moment after its reset: not all accounts of a provider together."""
    for name in sorted(state.accounts):
        known = state.accounts[name]
        if known.limited and now >= goes_on_at(known):
            yield decided(AccountReleased(name), BY)


def goes_on_at(known: ProviderAccount) -> int:
    """When its workers get tasks again, µs: up to a quarter minute and a tenth of the wait later,
    by a hash, so that every reader knows the same."""
    wait = max(0, known.until - known.since)
    longest = min(JITTER_MAX, wait // 10) + 1
    return known.until + zlib.crc32(f"{known.name} {known.place}".encode()) % longest
