"""Whatever a fold reads besides facts: limits, prices, weights. It stands on the log too."""

from __future__ import annotations

from typing import Annotated

import msgspec

from events.envelope import Payload, wire
from events.money import Price
from events.words import PUBLIC, Label, Text


class Limit(msgspec.Struct, frozen=True, gc=False, order=True):
    """``amount`` tokens, nano-dollars or tasks per window of a scope.

    ``scope`` is ``global``, a kind (``worker``: each worker) or one of a kind (``worker:w1``, which
    takes the place of the kind's limit of the same unit and window). ``window`` is ``hour``,
    ``day``, ``week``, ``month`` or rolling (``5h``, ``90m``; up to 24 h).
    """

    scope: Label
    unit: Label
    window: Label
    amount: int


class AlertBudget(msgspec.Struct, frozen=True, gc=False, order=True):
    """Warns at ``threshold_percent`` of ``amount`` used; never gates."""

    unit: Label
    window: Label
    amount: int
    threshold_percent: int = 80


class Saving(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """When to prefer the cheap ``model``: ``off``, ``always``, or from a level of the global scope
    on (``WARNING``, ``SOFT``, ``HARD``, ``CRITICAL``), for tasks of ``kinds`` whose model the user
    did not ask for."""

    start: Label = "off"
    model: Label = "haiku"
    kinds: tuple[Label, ...] = ("ui", "documentation", "research", "testing", "automation")


class Guard(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What happens when a running attempt uses more than it holds.

    The hold is raised by ``step_percent`` of the first hold at a time, each under the check of
    admission; once that is refused ``action`` follows: ``warn``, ``pause`` or ``cancel``.
    """

    step_percent: int = 50
    action: Label = "warn"


class Learning(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How estimates learn: from ``min_samples`` settled attempts of a kind and model on, the
    ``percentile`` of what they used; at most ``share_percent`` of any limit they touch."""

    min_samples: int = 20
    percentile: int = 90
    share_percent: int = 50


@wire("policy.changed")
class PolicyChanged(Payload):
    """The whole policy from here on. ``book`` is the version of the price book.

    ``plausible_tokens`` (counted) and ``plausible_nanos`` bound what reports can charge one
    attempt, or one report of foreign work; what is reported beyond them is disputed.
    """

    limits: tuple[Limit, ...] = ()
    prices: dict[Label, Price] = msgspec.field(default_factory=dict[str, Price])
    alert_budgets: tuple[AlertBudget, ...] = ()
    book: int = 1
    cache_read_weight_percent: int = 0
    timezone: Label = "UTC"
    critical_overdraft: bool = False
    min_priority: Label = "low"
    saving: Saving = Saving()
    guard: Guard = Guard()
    learning: Learning = Learning()
    plausible_tokens: int = 2_000_000
    plausible_nanos: int = 20_000_000_000
    reason: Text = ""


@wire("alert.raised")
class AlertRaised(Payload):
    """A limit or alert budget reached a level, said once per window instance and level.

    ``usage`` and ``budget`` are in the unit's integers; ``instance`` is the window's start, µs.
    """

    kind: Label
    scope: Label
    unit: Label
    window: Label
    instance: int
    level: Label
    usage: int
    budget: int


@wire("report.issued")
class ReportIssued(Payload):
    """The report of a day, in the configured zone; a late fact makes a new ``version``."""

    date: Label
    version: int = 1
    report: Annotated[dict[str, object], PUBLIC] = msgspec.field(default_factory=dict[str, object])
