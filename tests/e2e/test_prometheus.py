"""ops/prometheus and ops/grafana, held against promtool, a real Prometheus and a bus at work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.exporter.catalogue import ROWS
from tests.e2e.cli import AGENT, Up
from tests.e2e.test_metrics import page
from tests.prometheus import (
    DASHBOARDS,
    OPS,
    Prometheus,
    alerts,
    dashboard_expressions,
    program,
    records,
)
from tests.wait import wait_blocking

SERVED = {row.exposed for row in ROWS.values()} | {
    f"{row.name}_{part}" for row in ROWS.values() for part in ("bucket", "sum", "count")
}


def names(expression: str) -> set[str]:
    """The metrics and recorded figures an expression names."""
    return set(re.findall(r"\b(?:asb[_:]|gen_ai_)[\w:]+", expression))


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run(
            [program("promtool"), *words], cwd=OPS / "prometheus",
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_name_is_one_that_is_served_or_recorded() -> None:
    recorded = {rule["record"] for rule in records()}
    expressions = [rule["expr"] for rule in (*alerts(), *records())]
    expressions += [expression for _, expression in dashboard_expressions()]
    unknown = {name for text in expressions for name in names(text)} - SERVED - recorded
    assert unknown == set()


def test_every_alert_has_an_objective_a_section_a_test_and_minds_that_its_series_vanish() -> None:
    sections = re.findall(r"^## (\w+)$", (OPS / "runbook.md").read_text(), re.MULTILINE)
    tested = (OPS / "prometheus" / "tests.yml").read_text()
    rules = alerts()
    assert [rule["alert"] for rule in rules] == sections
    for rule in rules:
        notes = rule["annotations"]
        assert notes["runbook"] == f"ops/runbook.md#{rule['alert'].lower()}"
        assert notes["objective"]
        assert notes["summary"]
        assert "or absent(" in rule["expr"]
        assert tested.count(f"alertname: {rule['alert']}\n") == 3  # quiet, with cause, vanished


def test_dashboards_are_provisioned_with_uids_of_their_own_and_a_datasource_to_choose() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    uids = {board["uid"] for board in boards}
    assert uids == {"asb-fleet", "asb-money", "asb-queue", "asb-health"}
    for board in boards:
        assert board["id"] is None
        [choice] = board["templating"]["list"]
        assert (choice["name"], choice["type"]) == ("datasource", "datasource")
        for panel in board["panels"]:
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert not [where for where, text in dashboard_expressions() if "vector(0)" in text]


@pytest.mark.timeout(600)
def test_every_expression_finds_data_on_a_real_prometheus(tmp_path: Path) -> None:
    """Given a bus that did some tasks while Prometheus was scraping it, then each panel of each
    dashboard and each recording rule finds data, and no alert fires."""
    program("prometheus")
    (tmp_path / "agent.py").write_text(AGENT)
    up = Up(tmp_path, "--workers=2", "--", sys.executable, str(tmp_path / "agent.py")).start()
    listening = wait_blocking(lambda: _address(up), within=60, what="metrics are served")
    prometheus = Prometheus(tmp_path / "prometheus", listening)
    try:
        prometheus.sees('up{job="asb"} == 1')
        for text in ("Write a guide", "Fix the parser"):
            assert up.run("submit", text, "Write more", "--wait").returncode == 0
        prometheus.sees('asb_tasks_ended_total{outcome="completed"} == 4')
        prometheus.sees("count_over_time(asb_tokens_total[5m]) > 2")
        empty = [
            where
            for where, expression in (
                *dashboard_expressions(),
                *((rule["record"], rule["record"]) for rule in records()),
            )
            if not prometheus.query(expression)
        ]
        assert empty == []
        assert prometheus.query('ALERTS{alertstate="firing"}') == []
    finally:
        prometheus.end()
        up.end()


def _address(up: Up) -> str:
    """Where the exporter of ``up`` listens, once it answers."""
    if page(up) is None:
        return ""
    rows = [row for row in up.ask("doctor")["checks"] if row["name"] == "metrics"]
    return rows[0]["value"].partition("http://")[2].removesuffix("/metrics")
