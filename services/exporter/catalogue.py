"""Every metric asb serves: its name, kind, labels and meaning. PURE.

Names follow Prometheus' rules: one unit each, base units, ``_total`` on what only grows. Labels are
bounded: none is a task, a session or a prompt. Those of tokens follow OpenTelemetry's GenAI names.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "info"]


class MetricRow(NamedTuple):
    """One metric. A counter's name is without ``_total``, as prometheus-client has it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str

    @property
    def exposed(self) -> str:
        """The name as a query says it."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.name + suffix


class Sample(NamedTuple):
    """One figure of the metric ``name``; ``labels`` in the order of its row."""

    name: str
    labels: tuple[str, ...]
    value: float


class Durations(NamedTuple):
    """One histogram of the metric ``name``: cumulative counts by bound, and the sum in seconds."""

    name: str
    labels: tuple[str, ...]
    buckets: tuple[tuple[str, int], ...]
    total_s: float


_SOURCE = ("agent", "model")
_GEN_AI = ("gen_ai_operation_name", "gen_ai_agent_name", "gen_ai_response_model")
_WINDOW = ("scope", "unit", "window")

CATALOGUE: Final[dict[str, tuple[MetricRow, ...]]] = {
    "Tasks": (
        MetricRow("asb_tasks", "gauge", ("status", "priority"), "Open tasks."),
        MetricRow("asb_tasks_submitted", "counter", (), "Tasks taken in."),
        MetricRow("asb_tasks_ended", "counter", ("outcome",), "Tasks that ended."),
        MetricRow(
            "asb_queue_oldest_seconds",
            "gauge",
            ("priority",),
            "Age of the oldest task that waits for a worker or a budget; 0 where none waits.",
        ),
        MetricRow(
            "asb_task_dispatch_seconds",
            "histogram",
            ("priority",),
            "From a task's submission to its first dispatch.",
        ),
        MetricRow(
            "asb_task_start_seconds",
            "histogram",
            ("priority",),
            "From a task's submission to the start of its first attempt.",
        ),
        MetricRow(
            "asb_attempt_duration_seconds",
            "histogram",
            ("outcome",),
            "From the dispatch of an attempt to its end.",
        ),
        MetricRow(
            "asb_task_duration_seconds",
            "histogram",
            ("outcome",),
            "From a task's submission to its end.",
        ),
        MetricRow("asb_holds", "gauge", (), "Attempts that run: each holds tokens and money."),
        MetricRow(
            "asb_hold_oldest_seconds",
            "gauge",
            (),
            "Age of the oldest hold that is not charged yet; 0 where nothing runs.",
        ),
    ),
    "Tokens and money": (
        MetricRow(
            "asb_tokens",
            "counter",
            (*_SOURCE, "part"),
            "Tokens charged so far by disjoint part: input (uncached), cache_read, cache_write, "
            "output (reasoning included).",
        ),
        MetricRow(
            "asb_tokens_returned",
            "counter",
            (*_SOURCE, "part"),
            "Tokens of earlier charges taken back (corrections, estimates replaced), by part.",
        ),
        MetricRow(
            "asb_counted_tokens",
            "counter",
            _SOURCE,
            "Tokens charged so far as limits count them; those without parts (estimates) too.",
        ),
        MetricRow(
            "asb_counted_tokens_returned",
            "counter",
            _SOURCE,
            "Counted tokens of earlier charges taken back.",
        ),
        MetricRow("asb_cost_dollars", "counter", _SOURCE, "Money charged so far."),
        MetricRow(
            "asb_cost_returned_dollars", "counter", _SOURCE, "Money of earlier charges taken back."
        ),
        MetricRow(
            "asb_estimated_tokens",
            "gauge",
            _SOURCE,
            "Counted tokens that no meter measured: what was held was charged.",
        ),
        MetricRow("asb_disputed_tokens", "gauge", (), "Reported, implausible, charged to nobody."),
        MetricRow("asb_disputed_dollars", "gauge", (), "The same in money."),
        MetricRow("asb_estimates", "counter", (), "Attempts that estimates learnt from."),
        MetricRow(
            "asb_estimate_error_tokens",
            "counter",
            (),
            "Sum of how far these attempts' use lay from what was held for them.",
        ),
        MetricRow("asb_overruns", "counter", (), "Attempts that used more than was held for them."),
        MetricRow(
            "asb_usage_flags",
            "counter",
            ("agent",),
            "Reports of usage that contradict themselves or cannot be read.",
        ),
        MetricRow(
            "asb_usage_differences",
            "counter",
            ("source",),
            "Reports held against a better source of the same attempt's usage.",
        ),
        MetricRow(
            "asb_usage_difference_tokens",
            "counter",
            ("source",),
            "Sum of how far these reports lay from the better source.",
        ),
    ),
    "OpenTelemetry's names": (
        MetricRow(
            "gen_ai_client_inference_usage_input_tokens",
            "counter",
            _GEN_AI,
            "Input tokens, cached ones included.",
        ),
        MetricRow(
            "gen_ai_client_inference_usage_output_tokens",
            "counter",
            _GEN_AI,
            "Output tokens, reasoning included.",
        ),
        MetricRow(
            "gen_ai_client_inference_usage_cache_read_input_tokens",
            "counter",
            _GEN_AI,
            "Of the input, what was read from a cache.",
        ),
        MetricRow(
            "gen_ai_client_inference_usage_cache_write_input_tokens",
            "counter",
            _GEN_AI,
            "Of the input, what was written to a cache.",
        ),
    ),
    "Budgets": (
        MetricRow("asb_budget_used", "gauge", _WINDOW, "Used in this window; money in dollars."),
        MetricRow("asb_budget_held", "gauge", _WINDOW, "Held now; money in dollars."),
        MetricRow("asb_budget_limit", "gauge", _WINDOW, "The limit; money in dollars."),
        MetricRow(
            "asb_budget_whole",
            "gauge",
            _WINDOW,
            "What several buses together may use, where the limit is this bus's share of that.",
        ),
        MetricRow("asb_budget_used_ratio", "gauge", _WINDOW, "(used + held) / limit."),
        MetricRow(
            "asb_budget_level",
            "gauge",
            _WINDOW,
            "0 none, 1 WARNING, 2 SOFT, 3 HARD, 4 CRITICAL.",
        ),
        MetricRow("asb_budget_reset_timestamp_seconds", "gauge", _WINDOW, "End of this window."),
        MetricRow(
            "asb_throttle_level",
            "gauge",
            (),
            "The strictest level over all windows of the global scope, 0 to 4.",
        ),
        MetricRow(
            "asb_budget_scopes_omitted",
            "gauge",
            (),
            "Scopes whose windows are not served: the fullest 100 are.",
        ),
        MetricRow("asb_alerts", "counter", ("unit", "level"), "Alerts raised."),
        MetricRow("asb_reports", "counter", (), "Daily reports issued, new versions included."),
    ),
    "Workers": (
        MetricRow("asb_workers", "gauge", ("status",), "Workers: busy, idle, paused, lost, left."),
        MetricRow(
            "asb_accounts_paused",
            "gauge",
            (),
            "Accounts that their providers refuse for now: workers on them get no tasks.",
        ),
        MetricRow(
            "asb_worker_slots", "gauge", (), "Tasks that the living workers can run at once."
        ),
    ),
    "The log and its readers": (
        MetricRow("asb_events", "counter", ("type",), "Events on the log so far."),
        MetricRow("asb_log_events", "gauge", (), "Events folded into these very figures."),
        MetricRow("asb_log_entries", "gauge", (), "Entries of the log in Redis."),
        MetricRow(
            "asb_log_retention_entries",
            "gauge",
            (),
            "From so many entries on the oldest are archived and leave Redis; 0: nobody does that.",
        ),
        MetricRow("asb_archive_segments", "gauge", (), "Files of the archive."),
        MetricRow(
            "asb_archive_failures", "gauge", (), "Tries to archive that failed since one succeeded."
        ),
        MetricRow(
            "asb_foreign_entries", "counter", (), "Entries on the log that asb did not write."
        ),
        MetricRow(
            "asb_intake_waiting", "gauge", (), "Entries at the intakes that the engine knows."
        ),
        MetricRow(
            "asb_engine_stalled_seconds",
            "gauge",
            (),
            "For how long entries have waited at an intake while the engine appended nothing.",
        ),
        MetricRow("asb_dead_letters", "gauge", (), "Rejected entries that are kept."),
        MetricRow("asb_dead_letters_dropped", "counter", (), "The oldest ones, which had to go."),
        MetricRow("asb_service_processes", "gauge", ("service",), "Living processes of a service."),
        MetricRow(
            "asb_service_lag_events",
            "gauge",
            ("service",),
            "Events the slowest process of a service was behind at its last heartbeat.",
        ),
        MetricRow(
            "asb_service_lag_seconds",
            "gauge",
            ("service",),
            "For how long the first of these had been on the log.",
        ),
        MetricRow("asb_service_held_up", "gauge", (), "Services that a key of another type stops."),
        MetricRow("asb_turns", "counter", (), "Turns appended, as seen since the exporter began."),
        MetricRow("asb_turn_conflicts", "counter", (), "Turns decided again, likewise."),
        MetricRow("asb_rejected_entries", "counter", (), "Intake entries rejected, likewise."),
        MetricRow(
            "asb_rebuilds", "counter", (), "Times a process folded its state anew, likewise."
        ),
        MetricRow("asb_redis_outages", "counter", (), "Times a process lost Redis, likewise."),
        MetricRow("asb_snapshot_tail_events", "gauge", (), "Events behind the newest snapshot."),
        MetricRow(
            "asb_snapshot_due_events", "gauge", (), "The tail from which a new snapshot is due."
        ),
        MetricRow(
            "asb_snapshot_age_seconds",
            "gauge",
            (),
            "Age of the first event behind the newest snapshot's place; 0 without a tail.",
        ),
        MetricRow(
            "asb_snapshot_failures", "gauge", (), "Tries that failed since the last snapshot."
        ),
        MetricRow("asb_snapshot_bytes", "gauge", (), "Size of the newest snapshot."),
        MetricRow(
            "asb_clock_unconfirmed", "gauge", (), "1 while a large clock step waits for a word."
        ),
    ),
    "Redis and the exporter": (
        MetricRow("asb_redis_up", "gauge", (), "1 while Redis answers the exporter."),
        MetricRow("asb_redis_memory_bytes", "gauge", (), "Memory Redis uses."),
        MetricRow("asb_redis_memory_limit_bytes", "gauge", (), "Its maxmemory; 0: no bound."),
        MetricRow("asb_build", "info", ("version",), "The version of asb that serves this."),
    ),
}

ROWS: Final = {row.name: row for group in CATALOGUE.values() for row in group}
