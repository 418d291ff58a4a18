"""Whatever a fold reads besides facts: limits, prices, weights. It stands on the log too."""

from __future__ import annotations

import msgspec

from events.envelope import Payload, wire
from events.money import Price


class Limit(msgspec.Struct, frozen=True, gc=False, order=True):
    """``amount`` tokens, nano-dollars or tasks per window of a scope.

    ``scope`` is ``global``, a kind (``worker``: each worker) or one of a kind (``worker:w1``, which
    takes the place of the kind's limit of the same unit and window). ``window`` is ``hour``,
    ``day``, ``week``, ``month`` or rolling (``5h``, ``90m``; up to 24 h).
    """

    scope: str
    unit: str
    window: str
    amount: int


class AlertBudget(msgspec.Struct, frozen=True, gc=False, order=True):
    """Warns at ``threshold_percent`` of ``amount`` used; never gates."""

    unit: str
    window: str
    amount: int
    threshold_percent: int = 80


@wire("policy.changed")
class PolicyChanged(Payload):
    """The whole policy from here on. ``version`` of the price book counts its changes."""

    limits: tuple[Limit, ...] = ()
    prices: dict[str, Price] = msgspec.field(default_factory=dict[str, Price])
    alert_budgets: tuple[AlertBudget, ...] = ()
    book: int = 1
    cache_read_weight_percent: int = 0
    timezone: str = "UTC"
    critical_overdraft: bool = False
    reason: str = ""


@wire("alert.raised")
class AlertRaised(Payload):
    """A limit or alert budget reached a level, said once per window instance and level.

    ``usage`` and ``budget`` are in the unit's integers; ``instance`` is the window's start, µs.
    """

    kind: str
    scope: str
    unit: str
    window: str
    instance: int
    level: str
    usage: int
    budget: int


@wire("report.issued")
class ReportIssued(Payload):
    """The report of a day, in the configured zone; a late fact makes a new ``version``."""

    date: str
    version: int = 1
    report: dict[str, object] = msgspec.field(default_factory=dict[str, object])
