"""What a bus starts with where its log is empty: the settings, as the log says such things."""

from __future__ import annotations

from events.money import Price, exact
from events.policy import AlertBudget, Limit, PolicyChanged
from services.decider import Defaults
from services.runtime.settings_types import PolicySettings, Settings


def defaults(settings: Settings) -> Defaults:
    """What a submission gets where it does not say."""
    t = settings.tasks
    return Defaults(
        t.timeout_s,
        t.max_attempts,
        t.backoff_s,
        t.backoff_max_s,
        t.lease_s,
        t.text_max_bytes,
        t.result_max_bytes,
        settings.delegator.capable_model if settings.delegator.escalate else "",
        settings.privacy.prompts == "refuse",
    )


def policy(settings: Settings) -> PolicyChanged:
    """The policy with which an empty log begins, by a config file."""
    p = settings.policy
    return PolicyChanged(
        tuple(Limit(x.scope, x.unit, x.window, x.exact_amount) for x in p.limits),
        policy_prices(p),
        tuple(
            AlertBudget(x.unit, x.window, x.exact_amount, x.threshold_percent)
            for x in p.alert_budgets
        ),
        cache_read_weight_percent=p.cache_read_weight_percent,
        timezone=p.timezone,
        critical_overdraft=p.critical_overdraft,
        plausible_tokens=p.plausible_tokens,
        plausible_nanos=exact(p.plausible_dollars),
        reason="the settings of the first start",
    )


def policy_prices(settings: PolicySettings) -> dict[str, Price]:
    """The price book that settings would begin with."""
    return {model: setting.price for model, setting in settings.prices.items()}
