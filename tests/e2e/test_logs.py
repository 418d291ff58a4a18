"""``--log-format json``: whatever a service says is one JSON object a line."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.cli import Up, asb

pytestmark = [pytest.mark.timeout(600)]


def test_a_bus_says_everything_in_json_where_that_is_asked_for(tmp_path: Path) -> None:
    """Given --log-format json, then every line of `asb up`, and of the processes it starts, is an
    object with time, level, message and process; what names a log id names it apart, too."""
    up = Up(tmp_path, "--log-format=json", "--workers=1", "--", "cat")
    try:
        up.start()
        assert up.run("submit", "Echo", "--wait").returncode == 0
        assert up.stop(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in up.said.splitlines()]
        assert "asb is up" in lines[0]["message"]
        assert all({"at", "level", "message", "host", "pid"} <= set(line) for line in lines)
        assert lines[-1]["message"] == "stopped"
    finally:
        up.end()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    done = asb("status", "--log-format=xml", cwd=tmp_path)
    assert done.returncode == 1
    assert "log_format = 'xml' (on the command line): expected one of json, text" in done.stderr
