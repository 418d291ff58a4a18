"""Changes of policy, told as differences: two people changing it at once lose nothing. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from events.commands.budgets import ChangePolicy
from events.envelope import Event
from events.policy import AMOUNT_MAX, AlertBudget, PolicyChanged, check_limit, check_zone
from events.task import PRIORITIES
from projections import budgets
from services.intake import shares
from services.intake.case import Case, takes
from services.intake.schema import Rejected

LIMITS_MAX = 1_000
PLAUSIBLE_TOKENS_MAX = 10**12
PLAUSIBLE_NANOS_MAX = 10**15  # a million dollars
PRICE_MAX = 10**18  # a thousand million dollars per million tokens
_PLAIN = (
    "alert_budgets",
    "cache_read_weight_percent",
    "timezone",
    "critical_overdraft",
    "min_priority",
    "saving",
    "guard",
    "learning",
    "plausible_tokens",
    "plausible_nanos",
)


@takes(ChangePolicy)
def policy_changed(case: Case, command: ChangePolicy) -> Iterable[Event]:
    """The whole policy with this change in it, checked, from here on."""
    case.check_shared("policy is changed")
    before = case.state.policy
    policy = changed(before, command)
    if command.share is not UNSET:
        policy = shares.with_share(policy, command.share, case.state, case.now)
    problem = problem_of(policy)
    if problem:
        raise Rejected(problem)
    if command.share is UNSET or policy != replace(before, reason=policy.reason):
        yield case.event(policy)


def changed(policy: PolicyChanged, command: ChangePolicy) -> PolicyChanged:
    """``policy`` with the change ``command``."""
    limits = {(x.scope, x.unit, x.window): x for x in policy.limits}
    for name in (*command.set_limits, *command.remove_limits):
        shares.check_by_hand(policy, name.scope, name.unit, name.window)
    for name in command.remove_limits:
        key = (name.scope, name.unit, name.window)
        if key not in limits:
            raise Rejected(f"there is no limit on {name.unit}/{name.window} of {name.scope}")
        del limits[key]
    limits.update({(x.scope, x.unit, x.window): x for x in command.set_limits})
    prices = {
        m: p for m, p in policy.prices.items() if m not in command.remove_prices
    } | command.set_prices
    plain = {name: value for name in _PLAIN if (value := getattr(command, name)) is not UNSET}
    plain["alert_budgets"] = _budgets(plain.get("alert_budgets", policy.alert_budgets), command)
    return replace(
        policy,
        limits=tuple(limits.values()),
        prices=prices,
        book=policy.book + (prices != policy.prices),
        reason=command.reason[:500],
        **plain,
    )


def _budgets(before: tuple[AlertBudget, ...], command: ChangePolicy) -> tuple[AlertBudget, ...]:
    budgets_by_name = {(x.unit, x.window): x for x in before}
    for name in command.remove_alert_budgets:
        if budgets_by_name.pop((name.unit, name.window), None) is None:
            raise Rejected(f"there is no alert budget on {name.unit}/{name.window}")
    budgets_by_name.update({(x.unit, x.window): x for x in command.set_alert_budgets})
    return tuple(budgets_by_name.values())


def problem_of(policy: PolicyChanged) -> str:
    """What is wrong with a policy, "" when nothing is."""
    if policy.min_priority not in PRIORITIES:
        return f"min_priority {policy.min_priority!r} is not one of {', '.join(PRIORITIES)}"
    starts = ("off", "always", *budgets.LEVELS[1:])
    if policy.saving.start not in starts:
        return f"saving.start {policy.saving.start!r} is not one of {', '.join(starts)}"
    if policy.guard.action not in ("warn", "pause", "cancel"):
        return f"guard.action {policy.guard.action!r} is not one of warn, pause, cancel"
    ranges = (
        ("guard.step_percent", policy.guard.step_percent, 1, 1000),
        ("learning.min_samples", policy.learning.min_samples, 1, 1_000_000),
        ("learning.percentile", policy.learning.percentile, 1, 100),
        ("learning.share_percent", policy.learning.share_percent, 1, 100),
        ("cache_read_weight_percent", policy.cache_read_weight_percent, 0, 100),
        ("plausible_tokens", policy.plausible_tokens, 1, PLAUSIBLE_TOKENS_MAX),
        ("plausible_nanos", policy.plausible_nanos, 1, PLAUSIBLE_NANOS_MAX),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            return f"{name} must be from {low} to {high}, not {value}"
    for model, price in policy.prices.items():
        parts = (price.input, price.output, price.cache_read, price.cache_write)
        if not 0 <= min(parts) <= max(parts) <= PRICE_MAX:
            return f"the price of {model[:80]} must be from 0 to $1,000,000,000 per million tokens"
    try:
        _check_limits(policy)
        check_zone(policy.timezone)
    except ValueError as error:
        return str(error)
    return ""


def _check_limits(policy: PolicyChanged) -> None:
    if len(policy.limits) > LIMITS_MAX:
        raise ValueError(f"{len(policy.limits):,} limits; at most {LIMITS_MAX:,}")
    for limit in policy.limits:
        check_limit(limit.scope, limit.unit, limit.window)
    for budget in policy.alert_budgets:
        check_limit("global", budget.unit, budget.window)
        if not 1 <= budget.threshold_percent <= 1000:
            raise ValueError(
                f"threshold_percent must be from 1 to 1000, not {budget.threshold_percent}"
            )
    for amount in (x.amount for x in (*policy.limits, *policy.alert_budgets)):
        if not 0 <= amount <= AMOUNT_MAX:
            raise ValueError(f"amount {amount} is out of range")
