"""Whatever a fold reads besides facts: limits, prices, weights. It stands on the log too."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from events.envelope import Payload, wire
from events.money import Price
from events.words import PUBLIC, Label, Text

UNITS = ("tokens", "money", "tasks")
SCOPE_KINDS = ("global", "worker", "agent", "model", "project")
CALENDAR_WINDOWS = ("hour", "day", "week", "month")
AMOUNT_MAX = 10**18
_ROLLING = re.compile(r"([1-9]\d{0,3})([hm])\Z")


@lru_cache(maxsize=256)
def rolling_minutes(window: str) -> int:
    """Length of a rolling window in minutes, 0 for a calendar one. ValueError for neither."""
    if window in CALENDAR_WINDOWS:
        return 0
    match = _ROLLING.match(window)
    minutes = int(match[1]) * (60 if match[2] == "h" else 1) if match else 0
    if not 0 < minutes <= 24 * 60:
        raise ValueError(
            f"window {window!r}: allowed are {', '.join(CALENDAR_WINDOWS)}, "
            "or a rolling one up to 24 hours such as 5h or 90m"
        )
    return minutes


def check_limit(scope: str, unit: str, window: str) -> None:
    """Raises ValueError where this cannot be limited; says what is allowed."""
    kind, colon, name = scope.partition(":")
    named = bool(name) and name.isprintable() and kind != "global"
    if kind not in SCOPE_KINDS or (colon and not named):
        raise ValueError(
            f"scope {scope!r}: allowed are {', '.join(SCOPE_KINDS)}, "
            "or one of them by name, such as worker:w1"
        )
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r}: allowed are {', '.join(UNITS)}")
    rolling_minutes(window)


def check_zone(name: str) -> None:
    """Raises ValueError where ``name`` is no time zone that this machine knows."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:  # unknown, a folder of zones, a path
        raise ValueError(
            f"timezone {name!r}: expected the name of one, such as UTC or Europe/Berlin"
        ) from error


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


class Share(msgspec.Struct, frozen=True):
    """The limit on ``global`` of this unit and window is this bus's share of a ``whole``.

    ``bus`` is its name among those that divide it, ``home`` the one whose log keeps the whole.
    ``given`` and ``taken`` are what it ever gave to each other bus, and took from it, in all: they
    never fall, so whoever tells them late or twice changes nothing. ``given_at``: the server time
    here when it last gave to each, µs; nobody takes that at an earlier time.
    """

    unit: Label
    window: Label
    bus: Label
    home: Label
    whole: int
    given: dict[Label, int] = msgspec.field(default_factory=dict[str, int])
    taken: dict[Label, int] = msgspec.field(default_factory=dict[str, int])
    given_at: dict[Label, int] = msgspec.field(default_factory=dict[str, int])

    @property
    def balance(self) -> int:
        """What it has: the limit's amount. Below zero where its log lost what it gave."""
        whole = self.whole if self.bus == self.home else 0
        return whole + sum(self.taken.values()) - sum(self.given.values())


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
    ``shares`` says which limits are parts of a whole that several buses divide.
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
    shares: tuple[Share, ...] = ()
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
