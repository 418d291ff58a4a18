"""Which accounts their providers refuse, and until when."""

from __future__ import annotations

from events.account import AccountLimited, AccountReleased
from events.envelope import Event
from projections.records import ProviderAccount, Worker
from projections.state import State, folds

ACCOUNTS_MAX = 1_000  # further ones are not remembered, and so never pause


def account_of(worker: Worker) -> str:
    """The account that ``worker`` is charged on: where it names none, it is one by itself."""
    return worker.account or worker.name


def is_limited(state: State, worker: Worker) -> bool:
    """Whether its account's provider refuses it for now."""
    known = state.accounts.get(account_of(worker)) if state.accounts else None
    return known is not None and known.limited


@folds(AccountLimited)
def limited(state: State, event: Event[AccountLimited]) -> None:
    payload = event.data
    known = state.accounts.get(payload.account)
    if known is None:
        if len(state.accounts) >= ACCOUNTS_MAX:
            return
        known = ProviderAccount(payload.account)
        state.journal.put(state.accounts, payload.account, known)
    state.journal.touch(known)
    known.since = known.since if known.limited else event.at
    known.limited, known.until = True, payload.until
    known.refusals, known.reset_named = payload.refusals, payload.reset_named
    known.place = event.log_id


@folds(AccountReleased)
def released(state: State, event: Event[AccountReleased]) -> None:
    known = state.accounts.get(event.data.account)
    if known is not None:
        state.journal.touch(known)
        known.limited = False


def worked(state: State, worker: str) -> None:
    """Something was completed by ``worker``: what its account was refused before is over."""
    if not state.accounts or worker not in state.workers:
        return
    known = state.accounts.get(account_of(state.workers[worker]))
    if known is not None and known.refusals and not known.limited:
        state.journal.touch(known)
        known.refusals = 0


def stepped(state: State, by: int) -> None:
    """The clock stepped: a back-off moves along, a reset that a provider named does not."""
    for known in state.accounts.values():
        if known.limited and not known.reset_named:
            state.journal.touch(known)
            known.until += by
