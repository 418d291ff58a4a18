"""What a bus starts with where its log is empty: the settings, as the log says such things."""

from __future__ import annotations

from events.money import Price, nanos_of
from events.policy import AlertBudget, Limit, PolicyChanged
from services.decider import Defaults
from services.runtime.settings import LimitSetting, PriceSetting, Settings
from services.runtime.settings_types import PolicySettings


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
        tuple(Limit(x.scope, x.unit, x.window, _amount(x)) for x in p.limits),
        policy_prices(p),
        tuple(
            AlertBudget(x.unit, x.window, _amount(x), x.threshold_percent) for x in p.alert_budgets
        ),
        cache_read_weight_percent=p.cache_read_weight_percent,
        timezone=p.timezone,
        critical_overdraft=p.critical_overdraft,
        plausible_tokens=p.plausible_tokens,
        plausible_nanos=nanos_of(p.plausible_dollars),
        reason="the settings of the first start",
    )


def policy_prices(settings: PolicySettings) -> dict[str, Price]:
    """The price book that settings would begin with."""
    return {model: price(x) for model, x in settings.prices.items()}


def _amount(limit: LimitSetting) -> int:
    return nanos_of(limit.amount) if limit.unit == "money" else int(limit.amount)


def price(setting: PriceSetting) -> Price:
    """A price as the fold uses it: nano-dollars per million tokens."""
    if setting.flat is not None:
        return Price.flat_per_1k(setting.flat)
    return Price(
        input=nanos_of(setting.input or 0),
        output=nanos_of(setting.output or 0),
        cache_read=nanos_of(setting.cache_read or 0),
        cache_write=nanos_of(setting.cache_write or 0),
    )
