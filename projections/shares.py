"""Shares: limits that are one bus's part of a whole which several buses divide (ADR 23)."""

from __future__ import annotations

from events.policy import Limit, PolicyChanged, Share

SCOPE = "global"  # what is divided is what all of a bus may use


def share_of(policy: PolicyChanged, scope: str, unit: str, window: str) -> Share | None:
    """The share that a limit is; None for one of this bus alone."""
    if scope != SCOPE:
        return None
    shares = policy.shares
    return next((x for x in shares if (x.unit, x.window) == (unit, window)), None)


def share_of_limit(policy: PolicyChanged, limit: Limit) -> Share | None:
    """The share that ``limit`` is; None for one of this bus alone."""
    return share_of(policy, limit.scope, limit.unit, limit.window)


def reach(policy: PolicyChanged, limit: Limit) -> int:
    """What a limit may grow to without anybody's word: a share to its whole."""
    share = share_of_limit(policy, limit)
    return limit.amount if share is None else max(limit.amount, share.whole)
