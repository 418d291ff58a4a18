"""What can be set, with its type, its range, its default and its meaning.

`services.runtime.settings` reads the values from file, environment and command line into these.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from events.money import Price, exact
from events.policy import check_limit
from services.runtime.settings_around import (
    ArchiveSettings,
    MetricsSettings,
    PrivacySettings,
    Section,
    TelemetrySettings,
    TracesSettings,
    WebSettings,
)
from services.runtime.settings_shares import ShareSetting

Unit = Literal["tokens", "money", "tasks"]
Origin = Literal["default", "file", "environment", "command line"]

_Seconds = Annotated[int, Meta(ge=1, le=30 * 86400)]
_Bytes = Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)]


class LimitSetting(Section, frozen=True, kw_only=True):
    """At most ``amount`` (tokens, tasks or dollars) in each ``window`` of ``scope``."""

    scope: str
    unit: Unit
    window: str
    amount: Decimal

    def __post_init__(self) -> None:
        check_limit(self.scope, self.unit, self.window)
        _ = self.exact_amount

    @property
    def exact_amount(self) -> int:
        """Tokens, tasks or nano-dollars, as the log says it. Raises ValueError if there is none."""
        return exact(self.amount, 9 if self.unit == "money" else 0)

    def __str__(self) -> str:
        amount = f"${self.amount}" if self.unit == "money" else f"{self.amount} {self.unit}"
        return f"{self.scope} {amount}/{self.window}"


class AlertBudgetSetting(LimitSetting, frozen=True, kw_only=True):
    """A budget that warns from ``threshold_percent`` of ``amount`` on, and never refuses a task."""

    threshold_percent: Annotated[int, Meta(ge=1, le=1000)] = 80

    def __str__(self) -> str:
        return f"{super().__str__()} at {self.threshold_percent} %"


class PriceSetting(Section, frozen=True, kw_only=True):
    """A model's price, as `events.money.Price.typed` takes it."""

    flat: Decimal | None = None
    input: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None

    def __post_init__(self) -> None:
        _ = self.price

    @property
    def price(self) -> Price:
        """The price as the log says it. Raises ValueError where this is none."""
        return Price.typed(self.flat, self.input, self.output, self.cache_read, self.cache_write)

    def __str__(self) -> str:
        if self.flat is not None:
            return f"${self.flat} per 1K"
        return f"${self.input} in, ${self.output} out per 1M"


class RouteSetting(Section, frozen=True, kw_only=True):
    """Where the delegator sends tasks of one kind."""

    agent: Annotated[str, Meta(min_length=1)]
    model: Annotated[str, Meta(min_length=1)]

    def __str__(self) -> str:
        return f"{self.agent}/{self.model}"


class RuleSetting(Section, frozen=True, kw_only=True):
    """``pattern`` in a task's text speaks for ``kind`` with ``weight`` (negative: against it)."""

    kind: Annotated[str, Meta(min_length=1)]
    pattern: Annotated[str, Meta(min_length=1)]
    weight: Annotated[int, Meta(ge=-1000, le=1000)] = 50

    def __str__(self) -> str:
        return f"{self.kind} {self.weight:+d} {self.pattern!r}"


class EmbeddedSettings(Section, frozen=True, kw_only=True):
    port: Annotated[
        int,
        Meta(
            ge=1, le=65535, description="port the embedded Redis takes on 127.0.0.1 if it is free"
        ),
    ] = 6379
    appendfsync: Annotated[
        Literal["always", "everysec", "no"],
        Meta(description="when the embedded Redis forces the log to disk"),
    ] = "always"
    server: Annotated[
        str | None,
        Meta(
            description="program of the embedded Redis or Valkey, a path or a name on PATH; "
            "without one, the best there is"
        ),
    ] = None


class TaskSettings(Section, frozen=True, kw_only=True):
    lease_s: Annotated[_Seconds, Meta(description="a worker silent for this long is lost")] = 60
    heartbeat_s: Annotated[_Seconds, Meta(description="how often a worker gives its heartbeat")] = (
        15
    )
    timeout_s: Annotated[_Seconds, Meta(description="longest run of one attempt")] = 7200
    max_attempts: Annotated[
        int, Meta(ge=1, le=1000, description="attempts before a task has failed for good")
    ] = 3
    backoff_s: Annotated[
        int,
        Meta(ge=0, le=86400, description="wait before the second attempt; doubles with each one"),
    ] = 5
    backoff_max_s: Annotated[
        int, Meta(ge=0, le=86400, description="longest wait between attempts")
    ] = 300
    worktree: Annotated[
        bool, Meta(description="an agent does each task in a git worktree of its own")
    ] = False
    text_max_bytes: Annotated[_Bytes, Meta(description="longest task text, in UTF-8")] = 262_144
    result_max_bytes: Annotated[_Bytes, Meta(description="longest result kept, in UTF-8")] = 65_536


def _limit(scope: str, unit: Unit, window: str, amount: int) -> LimitSetting:
    return LimitSetting(scope=scope, unit=unit, window=window, amount=Decimal(amount))


DEFAULT_LIMITS = (
    _limit("worker", "tokens", "hour", 100_000),
    _limit("worker", "tokens", "day", 1_000_000),
    _limit("global", "tokens", "hour", 500_000),
    _limit("global", "tokens", "day", 5_000_000),
    _limit("global", "money", "hour", 5),
    _limit("global", "money", "day", 50),
    _limit("global", "money", "month", 1000),
)


def _alert(unit: Unit, window: str, amount: int, threshold_percent: int) -> AlertBudgetSetting:
    return AlertBudgetSetting(
        scope="global",
        unit=unit,
        window=window,
        amount=Decimal(amount),
        threshold_percent=threshold_percent,
    )


DEFAULT_ALERT_BUDGETS = (
    _alert("tokens", "day", 150_000, 80),
    _alert("tokens", "week", 1_000_000, 80),
    _alert("money", "day", 10, 100),
)


def _default_prices() -> dict[str, PriceSetting]:
    return {
        "haiku": PriceSetting(flat=Decimal("0.00025")),
        "sonnet": PriceSetting(flat=Decimal("0.003")),
    }


class PolicySettings(Section, frozen=True, kw_only=True):
    """What fills an empty log. Later the log's own policy counts; `asb` says where they differ."""

    limits: Annotated[
        tuple[LimitSetting, ...], Meta(description="what may be used; replaces the default limits")
    ] = DEFAULT_LIMITS
    prices: Annotated[
        dict[str, PriceSetting], Meta(description="price per model; adds to the default prices")
    ] = field(default_factory=_default_prices)
    cache_read_weight_percent: Annotated[
        int,
        Meta(
            ge=0, le=100, description="share of cache-read tokens that counts against token limits"
        ),
    ] = 0
    timezone: Annotated[str, Meta(description="zone of the daily report's day, an IANA name")] = (
        "UTC"
    )
    critical_overdraft: Annotated[
        bool, Meta(description="critical tasks are admitted beyond every limit")
    ] = False
    alert_budgets: Annotated[
        tuple[AlertBudgetSetting, ...],
        Meta(description="budgets that warn and never refuse; replaces the default ones"),
    ] = DEFAULT_ALERT_BUDGETS

    plausible_tokens: Annotated[
        int,
        Meta(
            ge=1,
            le=10**12,
            description="counted tokens that reports can charge one attempt; the rest is disputed",
        ),
    ] = 2_000_000
    plausible_dollars: Annotated[
        Decimal, Meta(description="dollars that reports can charge one attempt, likewise")
    ] = Decimal(20)


class DelegatorSettings(Section, frozen=True, kw_only=True):
    routes: Annotated[
        dict[str, RouteSetting],
        Meta(description="agent and model per kind of task; adds to the built-in ones"),
    ] = field(default_factory=dict[str, RouteSetting])
    rules: Annotated[
        tuple[RuleSetting, ...], Meta(description="more patterns that tell the kind of a task")
    ] = ()
    when_unsure: Annotated[
        Literal["likelier", "cheap", "capable"],
        Meta(description="which of two close candidates gets a task"),
    ] = "likelier"
    escalate: Annotated[
        bool,
        Meta(description="try a task that failed on a cheaper model once on the capable one"),
    ] = False
    capable_model: Annotated[
        str, Meta(min_length=1, description="the model that a failed task escalates to")
    ] = "sonnet"


class HookSetting(Section, frozen=True, kw_only=True):
    """What an alert sets off: a ``command`` (never through a shell) or a POST to a ``url``; both
    get the alert as JSON. ``level``: the lowest level it is for."""

    command: tuple[str, ...] = ()
    url: str = ""
    level: Literal["WARNING", "SOFT", "HARD", "CRITICAL"] = "WARNING"
    timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 30

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.url):
            raise ValueError("a hook is either a command or a url")
        if self.url and not re.match(r"https?://.", self.url):
            raise ValueError(f"url {self.url!r}: expected http:// or https://")

    def __str__(self) -> str:
        return self.command[0] if self.command else self.url.partition("?")[0]


class AlertSettings(Section, frozen=True, kw_only=True):
    hooks: Annotated[
        tuple[HookSetting, ...], Meta(description="commands or webhooks that an alert sets off")
    ] = ()


class SnapshotSettings(Section, frozen=True, kw_only=True):
    every_events: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="events after which the next snapshot is written "
            "(at least twice as many as tasks are open)",
        ),
    ] = 25_000


class DeadLetterSettings(Section, frozen=True, kw_only=True):
    max_count: Annotated[
        int, Meta(ge=1, le=10_000_000, description="dead letters kept; the oldest go first")
    ] = 10_000
    max_bytes: Annotated[
        _Bytes, Meta(description="bytes of dead letters kept; the oldest go first")
    ] = 64 * 1024 * 1024
    entry_max_bytes: Annotated[
        int,
        Meta(ge=1, le=1_048_576, description="bytes of one entry kept; more of it is cut off"),
    ] = 262_144


class Settings(Section, frozen=True, kw_only=True):
    """All settings, checked. ``origins`` says where each one that is not a default came from."""

    redis_url: Annotated[
        str | None, Meta(description="Redis to use; without one, the embedded Redis")
    ] = None
    namespace: Annotated[
        str, Meta(description="first part of every key; one bus per namespace")
    ] = "asb"
    data_dir: Annotated[Path, Meta(description="folder of the embedded Redis and of archives")]
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="what services and workers log: text, or a JSON object a line"),
    ] = "text"
    embedded: EmbeddedSettings = EmbeddedSettings()
    tasks: TaskSettings = TaskSettings()
    policy: PolicySettings = field(default_factory=PolicySettings)
    delegator: DelegatorSettings = field(default_factory=DelegatorSettings)
    alerts: AlertSettings = AlertSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    deadletters: DeadLetterSettings = DeadLetterSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    archive: ArchiveSettings = ArchiveSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    traces: TracesSettings = TracesSettings()
    privacy: PrivacySettings = PrivacySettings()
    shares: Annotated[
        tuple[ShareSetting, ...],
        Meta(description="limits that several buses divide: unit, window, amount, buses"),
    ] = ()
    origins: dict[str, Origin] = field(default_factory=dict[str, Origin])
    file: Path | None = None
