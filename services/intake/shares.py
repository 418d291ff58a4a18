"""Shares of a whole that several buses divide: what one bus's engine holds a change of its own
against. That it never has more than others gave it follows from totals that only rise (ADR 23).
PURE."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from events.commands.budgets import ShareChange
from events.policy import AMOUNT_MAX, Limit, PolicyChanged, Share, check_limit
from projections import budgets
from projections.shares import SCOPE, share_of
from projections.state import State
from services.intake.schema import NAME, Rejected

BUSES_MAX = 1_000


def with_share(policy: PolicyChanged, change: ShareChange, state: State, now: int) -> PolicyChanged:
    """``policy`` with this bus's share changed, and its limit with it. It stays as it is before
    ``not_before``, when windows here may still count what was used elsewhere of what is taken, and
    while the clock is behind the log, when they do not count what was used here since. Raises
    Rejected."""
    _check(change)
    before = share_of(policy, SCOPE, change.unit, change.window)
    if before is not None and (before.bus, before.home) != (change.bus, change.home):
        raise Rejected(
            f"{change.unit}/{change.window} here is the share of {before.bus}, of a whole at "
            f"{before.home}; not of {change.bus}, of one at {change.home}"
        )
    if now < max(change.not_before, state.meta.latest):
        return policy
    committed = budgets.used(state, SCOPE, change.window, now).of(change.unit)
    committed += budgets.held(state, SCOPE, change.unit)
    share = _changed(before, change, committed, now)
    if len(share.given | share.taken) > BUSES_MAX:
        raise Rejected(f"more than {BUSES_MAX:,} buses cannot divide a limit")
    limit = Limit(SCOPE, share.unit, share.window, max(0, share.balance))
    name = (SCOPE, share.unit, share.window)
    limits = [x for x in policy.limits if (x.scope, x.unit, x.window) != name]
    shares = [x for x in policy.shares if (x.unit, x.window) != name[1:]]
    if not (change.leaves and share.balance == 0 and share.bus != share.home):
        shares.append(share)  # else the limit of 0 is this bus's own from here on
    return replace(policy, limits=(*limits, limit), shares=tuple(shares))


def _changed(before: Share | None, change: ShareChange, committed: int, now: int) -> Share:
    share = before or Share(change.unit, change.window, change.bus, change.home, change.whole)
    share = replace(
        share, given=_risen(share.given, change.gave), taken=_risen(share.taken, change.take)
    )
    whole = change.whole
    if share.bus == share.home:
        whole = max(whole, min(share.whole, share.whole - share.balance + committed))
    share = replace(share, whole=whole)
    for bus, total in sorted(change.give.items()):
        more = total - share.given.get(bus, 0)
        part = min(more, share.balance - committed)
        if part > 0:
            given = {**share.given, bus: share.given.get(bus, 0) + part}
            share = replace(share, given=given, given_at={**share.given_at, bus: now})
    return share


def _risen(before: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    risen = {**before, **{bus: max(n, before.get(bus, 0)) for bus, n in others.items()}}
    return {bus: total for bus, total in sorted(risen.items()) if total}


def check_by_hand(policy: PolicyChanged, scope: str, unit: str, window: str) -> None:
    """A share is changed by its service alone: by hand the sum would not hold. Raises Rejected."""
    share = share_of(policy, scope, unit, window)
    if share is not None:
        raise Rejected(
            f"{unit}/{window} of {scope} is the share of {share.bus} in what several buses divide: "
            "`asb service shares` moves it, [[shares]] says the whole, and who is `leaving`"
        )


def _check(change: ShareChange) -> None:
    try:
        check_limit(SCOPE, change.unit, change.window)
    except ValueError as error:
        raise Rejected(str(error)) from error
    totals = (change.give, change.gave, change.take)
    for amount in (change.whole, *(n for names in totals for n in names.values())):
        if not 0 <= amount <= AMOUNT_MAX:
            raise Rejected(f"amount {amount} is out of range")
    for name in (change.bus, change.home, *(name for names in totals for name in names)):
        if not NAME.match(name):
            raise Rejected(f"{name[:100]!r} is no name of a bus")
    if any(change.bus in names for names in totals):
        raise Rejected(f"{change.bus} gives itself nothing")
