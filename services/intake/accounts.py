"""A provider refuses an account: its workers pause, and what was refused goes back. PURE.

Until when is what the provider said, within bounds; where it said nothing, a back-off that doubles
with each refusal in a row. An operator may release an account earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from events.account import AccountLimited, AccountReleased
from events.commands.operators import ReleaseAccount
from events.envelope import Event
from projections.accounts import account_of
from projections.records import TaskRecord
from services.intake import schema
from services.intake.case import Case, takes
from services.intake.schema import Rejected

SECOND = 1_000_000
UNTIL_MAX = 8 * 24 * 3600 * SECOND  # a weekly window and a day
BACKOFF, BACKOFF_MAX = 60 * SECOND, 3600 * SECOND
EVIDENCE_CHARACTERS = 500


class LimitReport(msgspec.Struct, gc=False):
    """``limit`` in a report of a failure. ``until`` in µs, 0: not told."""

    account: str = ""
    until: int = 0
    evidence: str = ""


def read_limit(value: Any) -> LimitReport | None:
    """What a report says of a limit; a text or a number there is evidence enough."""
    if not value:
        return None
    try:
        limit = msgspec.convert(value, LimitReport, strict=False)
    except msgspec.ValidationError:
        words = cast("object", value)
        limit = LimitReport(evidence=str(words) if not isinstance(words, bool) else "")
    schema.check_name(limit.account or None, "account", schema.LABEL)
    return limit


def refused(case: Case, task: TaskRecord, limit: LimitReport) -> tuple[str, Iterable[Event]]:
    """The account, and what is said of it: nothing where it pauses as long already."""
    worker = case.state.workers.get(task.worker)
    account = limit.account or (account_of(worker) if worker is not None else task.worker)
    known = case.state.accounts.get(account)
    refusals = known.refusals if known is not None else 0
    if known is not None and known.limited:
        refusals = max(1, refusals)  # one of those that were under way when it paused
    else:
        refusals += 1
    named = limit.until > case.now
    until = case.now + min(BACKOFF << min(refusals - 1, 20), BACKOFF_MAX)
    if named:
        until = min(limit.until, case.now + UNTIL_MAX)
    if known is not None and known.limited and (until <= known.until or not named):
        return account, ()
    payload = AccountLimited(
        account,
        until,
        refusals,
        named,
        task.worker,
        task.id,
        limit.evidence[:EVIDENCE_CHARACTERS],
    )
    event = case.event(payload)
    event.id = f"{case.entry.id}.limited"
    return account, (event,)


@takes(ReleaseAccount)
def released(case: Case, command: ReleaseAccount) -> Iterable[Event]:
    """An operator lets an account go on. Like the policy it is changed from the shared intake."""
    case.check_shared("accounts are released")
    known = case.state.accounts.get(command.account)
    if known is None or not known.limited:
        raise Rejected(f"account {command.account[:80]!r} is not limited")
    yield case.reported(AccountReleased(command.account, True, command.reason[:500]), command)
