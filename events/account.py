"""A provider's limit: an account that is refused for a while."""

from __future__ import annotations

from events.envelope import Payload, wire
from events.words import Label, Text


@wire("account.limited")
class AccountLimited(Payload):
    """The provider of ``account`` refuses it: its workers get nothing new until ``until`` (µs).

    ``reset_named``: the provider named that moment; else it is a back-off, the ``refusals``-th in a
    row. ``task`` and ``worker`` say who was refused.
    """

    account: Label
    until: int
    refusals: int = 1
    reset_named: bool = False
    worker: Label = ""
    task: Label = ""
    evidence: Text = ""


@wire("account.released")
class AccountReleased(Payload):
    """The workers of ``account`` get tasks again, by themselves or by an operator's word."""

    account: Label
    by_hand: bool = False
    reason: Text = ""
