"""Changes of the policy, and corrections of what was charged."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from events.commands.base import Command, command
from events.money import Price
from events.policy import AlertBudget, Guard, Learning, Limit, Saving
from events.words import PUBLIC, Label, Text


class LimitName(msgspec.Struct, frozen=True):
    """Which limit: its scope, unit and window."""

    scope: Label
    unit: Label
    window: Label


class BudgetName(msgspec.Struct, frozen=True):
    """Which alert budget: its unit and window."""

    unit: Label
    window: Label


class ShareChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of this bus's share of a ``whole`` (see `events.policy.Share`), all in totals of all
    time by the name of the other bus, so that telling it twice, late or in another order is safe.

    ``give``: what it shall have given, as far as its share is not used and held. ``gave``: what
    others have taken from it, as their logs say; where its own lacks that it was lost. ``take``:
    what others gave it, as their logs say, from ``not_before`` (server time, µs) on.
    ``leaves``: once it has nothing it is divided no more, and its limit is its own.
    """

    unit: Label
    window: Label
    bus: Label
    home: Label
    whole: int
    give: dict[Label, int] = msgspec.field(default_factory=dict[str, int])
    gave: dict[Label, int] = msgspec.field(default_factory=dict[str, int])
    take: dict[Label, int] = msgspec.field(default_factory=dict[str, int])
    not_before: int = 0
    leaves: bool = False


@command("policy.changed")
class ChangePolicy(Command, forbid_unknown_fields=True):
    """A change of the policy: what is left out stays as it is."""

    v: int = 1
    set_limits: tuple[Limit, ...] = ()
    remove_limits: tuple[LimitName, ...] = ()
    set_prices: dict[Label, Price] = msgspec.field(default_factory=dict[str, Price])
    remove_prices: tuple[Label, ...] = ()
    alert_budgets: tuple[AlertBudget, ...] | UnsetType = UNSET  # all of them
    set_alert_budgets: tuple[AlertBudget, ...] = ()
    remove_alert_budgets: tuple[BudgetName, ...] = ()
    cache_read_weight_percent: int | UnsetType = UNSET
    timezone: Label | UnsetType = UNSET
    critical_overdraft: bool | UnsetType = UNSET
    min_priority: Label | UnsetType = UNSET
    saving: Saving | UnsetType = UNSET
    guard: Guard | UnsetType = UNSET
    learning: Learning | UnsetType = UNSET
    plausible_tokens: int | UnsetType = UNSET
    plausible_nanos: int | UnsetType = UNSET
    share: ShareChange | UnsetType = UNSET
    reason: Text = ""


@command("usage.corrected")
class CorrectUsage(Command, forbid_unknown_fields=True):
    """An operator corrects what was charged: one of ``tokens``, ``accept`` and ``drop``.

    ``task`` is a task with its ``attempt``, or without one the log id of a foreign report.
    ``cost_usd`` is the money that belongs to ``tokens``, where that shall not follow from them.
    """

    task: Label
    reason: Text
    attempt: int = 0
    tokens: Annotated[Any, PUBLIC] = None  # numbers
    cost_usd: Annotated[Any, PUBLIC] = None
    accept: bool = False
    drop: bool = False
    v: int = 1
