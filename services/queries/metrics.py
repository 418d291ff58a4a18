"""The metrics as they are served: where, and whether they say what the log says."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from services.audit.check import Audit
from services.queries.conservation import SumRow, sum_row
from services.store.health import FactRow
from services.store.heartbeat import Beat

ANSWER_S = 5.0
NANO = 1_000_000_000
CALENDAR = ("hour", "day", "week", "month")


class Served:
    """A page of metrics. ``events``: how many events of the log it stands for."""

    def __init__(self, page: str) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                rows = self._samples.setdefault(sample.name, [])
                rows.append((sample.labels, sample.value))
        self.events = int(self.sum("asb_log_events"))

    def rows(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        return self._samples.get(name, [])

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the series of ``name`` with these labels."""
        wanted = labels.items()
        return math.fsum(value for given, value in self.rows(name) if wanted <= given.items())


def addresses(running: Collection[Beat]) -> list[str]:
    """Where exporters listen, as their heartbeats say. One that listens everywhere is near."""
    named = {beat.figures["listens"] for beat in running if beat.figures.get("listens")}
    return sorted(name.replace("0.0.0.0:", "127.0.0.1:") for name in named)


def read(address: str) -> Served | None:
    """The page served at ``host:port``; None where nobody answers there."""
    url = f"http://{address}/metrics"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nothing leaves for this
    try:
        with opener.open(url, timeout=ANSWER_S) as reply:
            return Served(reply.read().decode())
    except (OSError, urllib.error.URLError, ValueError):
        return None


def metrics_row(running: Collection[Beat], *, wanted: bool) -> Iterator[FactRow]:
    """Who serves metrics, and where."""
    if listening := addresses(running):
        places = ", ".join(f"http://{address}/metrics" for address in listening)
        yield ("metrics", f"served at {places}", "ok", "")
    elif wanted and running:
        hint = "`asb service exporter`; or [metrics] enabled = false where nobody looks at them"
        yield ("metrics", "nobody serves them", "warn", hint)


def page_row(running: Collection[Beat], *, wanted: bool) -> Iterator[FactRow]:
    """Who serves the page, and where."""
    if pages := sorted({beat.figures["page"] for beat in running if beat.figures.get("page")}):
        yield ("page", f"served at {', '.join(pages)}", "ok", "")
    elif wanted and running:
        hint = "`asb service web`; or [web] enabled = false where nobody looks at it"
        yield ("page", "nobody serves it", "warn", hint)


def expected(running: Collection[Beat], audit: Audit) -> Iterator[tuple[int, Callable[[], SumRow]]]:
    """For each exporter that answers: the event its page stands for, and what compares it with the
    audit once that has come there."""
    for address in addresses(running):
        served = read(address)
        if served is not None:
            yield served.events, lambda served=served, name=address: compared(served, audit, name)


def compared(served: Served, audit: Audit, address: str) -> SumRow:
    """A page against the log at the page's place: charges by agent, holds, tasks, windows."""
    agents = {name: sums for name, sums in audit.by_agent.items() if name}
    named = {labels["agent"] for labels, _ in served.rows("asb_counted_tokens_total")}
    wrong = [
        name
        for name in sorted({*agents, *named} - {""})
        if "other" not in named and not _same_charges(served, name, agents.get(name, [0, 0]))
    ]
    tokens = _left(served, "asb_counted_tokens_total", "asb_counted_tokens_returned_total")
    dollars = _left(served, "asb_cost_dollars_total", "asb_cost_returned_dollars_total")
    if not (_same(tokens, audit.total[0]) and _same(dollars, audit.total[1] / NANO)):
        wrong.append("the total")
    if served.sum("asb_tasks_ended_total", outcome="completed") != sum(audit.completed.values()):
        wrong.append("tasks completed")
    if served.sum("asb_holds") != audit.open_holds:
        wrong.append("holds")
    wrong += _windows(served, audit)
    value = f"{len(named):,} agents, {int(tokens):,} tokens at http://{address}/metrics"
    return sum_row("metrics", value, wrong)


def _same_charges(served: Served, agent: str, sums: Any) -> bool:
    tokens = _left(
        served, "asb_counted_tokens_total", "asb_counted_tokens_returned_total", agent=agent
    )
    dollars = _left(
        served, "asb_cost_dollars_total", "asb_cost_returned_dollars_total", agent=agent
    )
    return _same(tokens, sums[0]) and _same(dollars, sums[1] / NANO)


def _left(served: Served, charged: str, returned: str, **labels: str) -> float:
    return served.sum(charged, **labels) - served.sum(returned, **labels)


def _same(served: float, figure: float) -> bool:
    """Equal, as far as a page of floating-point numbers can say."""
    return math.isclose(served, figure, rel_tol=1e-12, abs_tol=1e-9)


def _windows(served: Served, audit: Audit) -> list[str]:
    """Calendar windows that say something else than the log. (A rolling one moves on meanwhile.)"""
    ends = {_window(labels): v for labels, v in served.rows("asb_budget_reset_timestamp_seconds")}
    held = {_window(labels): value for labels, value in served.rows("asb_budget_held")}
    wrong: list[str] = []
    for labels, used in served.rows("asb_budget_used"):
        scope, unit, length = window = _window(labels)
        if length not in CALENDAR:
            continue
        known = audit.ledger.standing(scope, unit, length, int(ends[window] * 1_000_000) - 1)
        scale = NANO if unit == "money" else 1
        if not (_same(used, known[0] / scale) and _same(held[window], known[1] / scale)):
            wrong.append(f"{unit}/{length} of {scope}")
    return wrong


def _window(labels: Mapping[str, str]) -> tuple[str, str, str]:
    return labels["scope"], labels["unit"], labels["window"]
