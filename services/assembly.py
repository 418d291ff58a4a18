"""Which services there are, and how a host is put together from any set of them."""

from __future__ import annotations

from collections.abc import Sequence

from events.keys import Keys
from events.money import Price, nanos_of
from events.policy import AlertBudget, Limit, PolicyChanged
from projections import views
from services import clock_steps, continuity, eviction
from services.decider import Decide, Defaults, Inputs
from services.delegator import decide as delegator
from services.delegator.classify import DEFAULT_ROUTES, Delegator, Route, Rule
from services.dispatcher import decide as dispatcher
from services.engine.host import Host
from services.inbox.projector import Inboxes, InboxTrimmer
from services.intake import decide as intake
from services.names import DECIDERS, PROJECTORS, SERVICES
from services.progress.projector import Documents
from services.progress.watch import ProgressWatch
from services.projector import Projector
from services.reports import decide as reporter
from services.reports.projector import DailyReports
from services.runtime import prices
from services.runtime.settings import LimitSetting, PriceSetting, Settings
from services.runtime.settings_types import PolicySettings
from services.snapshots.projector import Snapshots
from services.store.client import Client
from services.store.dead_letters import DeadLetters
from services.store.heartbeat import Heartbeat
from services.store.prompts import Texts
from services.store.views import Views
from services.throttle import decide as throttle
from services.throttle.projector import Alerts, Hook
from services.usage.projector import UsageFeed

__all__ = [
    "DECIDERS",
    "PROJECTORS",
    "SERVICES",
    "defaults",
    "host",
    "policy",
    "policy_prices",
    "price",
]


def host(client: Client, settings: Settings, services: Sequence[str] = SERVICES) -> Host:
    """A host for ``services``; the deciders among them form one engine."""
    keys = Keys(settings.namespace)
    texts = Texts()
    deciders = _deciders(settings, services)
    inputs = Inputs(
        defaults=defaults(settings),
        main_intake=keys.main_intake,
        initial_policy=policy(settings) if deciders else None,
        price_lookup=prices.lookup,
    )
    projectors = _projectors(client, keys, texts, services, settings)
    heartbeat = Heartbeat(client, keys, services)
    if "snapshot" in services:
        snapshots = Snapshots(client, keys, settings.snapshots.every_events)
        projectors.append(snapshots)
        heartbeat.add("snapshot", snapshots.figures)
    if "alerts" in services:
        projectors += [Hook(client, keys, one) for one in settings.alerts.hooks]
    made = Host(client, keys, deciders, projectors, inputs, texts, heartbeat)
    made.letters = DeadLetters(client, keys, settings.deadletters)
    return made


def _deciders(settings: Settings, services: Sequence[str]) -> list[tuple[str, Decide]]:
    every: dict[str, Decide] = {
        "intake": intake.decide,
        "delegator": delegator.decider(delegator_of(settings)),
        "dispatcher": dispatcher.decide,
        "throttle": throttle.decide,
        "reporter": reporter.decide,
    }
    chosen = [(name, every[name]) for name in DECIDERS if name in services]
    # Whoever decides first on an empty log seeds it with the policy, and says what became of it.
    first = [
        ("policy", throttle.seed),
        ("continuity", continuity.decide),
        ("clock", clock_steps.decide),
        ("eviction", eviction.decide),
    ]
    return [*first, *chosen] if chosen else []


def _projectors(
    client: Client, keys: Keys, texts: Texts, services: Sequence[str], settings: Settings
) -> list[Projector]:
    found: list[Projector] = []
    if "inbox" in services:
        found += [Inboxes(client, keys, texts), InboxTrimmer(client, keys)]
    if "views" in services:
        found.append(
            Views(
                client,
                {
                    keys.throttle: lambda state: views.throttle_view(state, state.meta.at),
                    keys.token_usage: views.token_usage_view,
                },
            )
        )
    if "progress" in services:
        documents = Documents(client, keys, settings.tasks.result_max_bytes)
        found += [documents, *ProgressWatch(client, keys, documents).loops()]
    if "alerts" in services:
        found.append(Alerts(client, keys))
    if "usage" in services:
        found.append(UsageFeed(client, keys))
    if "reports" in services:
        found.append(DailyReports(client, keys))
    return found


def delegator_of(settings: Settings) -> Delegator:
    """The delegator with the routes and rules of ``settings``, and what it ships with."""
    routes = dict(DEFAULT_ROUTES)
    routes.update({kind: Route(r.agent, r.model) for kind, r in settings.delegator.routes.items()})
    rules = [Rule(r.kind, r.pattern, r.weight) for r in settings.delegator.rules]
    return Delegator(routes, rules, when_unsure=settings.delegator.when_unsure)


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
    )


def policy(settings: Settings) -> PolicyChanged:
    """The policy a config file would seed an empty log with."""
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
