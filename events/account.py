"""A provider's limit: an account that is refused for a while."""

from __future__ import annotations

from events.envelope import Payload, wire


@wire("account.limited")
class AccountLimited(Payload):
    """The provider of ``account`` refuses it: its workers get nothing new until ``until`` (µs).

    ``reset_told``: the provider named that moment; else it is a back-off, the ``refusals``-th in a
    row. ``task`` and ``worker`` say who was refused.
    """

    account: str
    until: int
    refusals: int = 1
    reset_told: bool = False
    worker: str = ""
    task: str = ""
    evidence: str = ""  # private (words): it quotes the agent


@wire("account.released")
class AccountReleased(Payload):
    """The workers of ``account`` get tasks again; ``reason`` is private: words of an operator."""

    account: str
    by_hand: bool = False
    reason: str = ""
