"""`asb fleet up`: Claude Code, Codex, Gemini CLI, an agent of ACP and a command on one bus, as the
scripted agent plays them: routes, meters, a runaway, and books that agree."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from projections.records import Scope
from services.store import rebuild
from services.store.client import SyncClient
from tests.agents import scripted_acp, telemetry
from tests.agents.playing import Stage
from tests.e2e.cli import ASB, Process, Up, environment
from tests.ports import free_port
from tests.wait import wait_blocking

pytestmark = pytest.mark.timeout(600)

FLEET = """
[[workers]]
driver = "claude"
count = 2
account = "ours"
[[workers]]
driver = "codex"
name = "cx"
permissions = "read"
[[workers]]
driver = "gemini"
[[workers]]
driver = "acp"
name = "any"
agent = "any"
command = [{python!r}, {acp!r}]
[[workers]]
name = "mine"
agent = "mine"
command = ["sh", "-c", "cat; echo \\"{{\\\\\\"total_tokens\\\\\\": 70}}\\" >&3"]
"""
WORKERS = ["any", "claude1", "claude2", "cx", "gemini1", "mine"]
CALL = 150  # counted tokens of one of the scripted Claude Code
HOLD, LIMIT = 400, 700


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Up, Stage]]:
    folder = tmp_path_factory.mktemp("fleet")
    stage = Stage(folder)
    (folder / "fleet.toml").write_text(
        FLEET.format(python=sys.executable, acp=str(scripted_acp.__file__))
    )
    up = Up(folder, "fleet.toml", command=("fleet", "up"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**stage.environment, "CLAUDE_CONFIG_DIR": str(folder / "c")}.items():
            patch.setenv(name, value)
        try:
            up.start()
            yield up, stage
        finally:
            up.end()


def submit(up: Up, text: str, *more: str) -> str:
    done = up.run("submit", text, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ended(up: Up, task: str) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        view: dict[str, Any] = up.ask("task", task)
        return view if view["status"] in ("completed", "failed", "cancelled") else {}

    return wait_blocking(look, within=60, what=f"{task} ends; {up.said}")


def data_of(view: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in view["events"] if event["type"] == kind]


def test_every_agent_of_the_file_does_its_tasks(fleet: tuple[Up, Stage]) -> None:
    up, _ = fleet

    def names() -> list[str]:
        return sorted(row["worker"] for row in up.ask("status")["workers"])

    wait_blocking(lambda: names() == WORKERS, within=30, what=str(WORKERS))
    agents = ("claude", "codex", "gemini", "any", "mine")
    tasks = {name: submit(up, f"play well for {name}", "--agent", name) for name in agents}
    views = {name: ended(up, task) for name, task in tasks.items()}
    assert {view["status"] for view in views.values()} == {"completed"}
    models = {name: data_of(view, "task.dispatched")[0]["model"] for name, view in views.items()}
    assert models["codex"].startswith("gpt-")  # routed by tier, not the bare name
    assert models["gemini"].startswith("gemini-")
    assert {n: v["tokens"] for n, v in views.items() if n != "any"} == {
        "claude": CALL, "codex": 450, "gemini": 1_080, "mine": 70}  # fmt: skip
    assert [row["account"] for row in up.ask("account")["accounts"]].count("ours") == 1
    refused = up.run("submit", "x", "--agent", "codex", "--model", "opus")
    assert refused.returncode == 1
    assert "opus" in refused.stderr


def test_meters_are_compared_on_the_task_and_above_the_bound_alerted(
    fleet: tuple[Up, Stage],
) -> None:
    up, _ = fleet
    task = submit(up, "play well telemetry 20 transcript 1", "--agent", "claude")
    view = ended(up, task)
    assert view["tokens"] == CALL
    (meters,) = view["meters"]
    assert meters["charged"] == "driver"
    assert meters["tokens"] == {"driver": CALL, "telemetry": 20 * CALL, "transcript": CALL}
    said = up.run("task", task).stdout
    assert "telemetry 3,000 (+2,850), transcript 150 (+0)" in said
    assert "usage.compared: driver 150, telemetry 3,000" in up.run("alerts").stdout


def test_a_runaway_is_stopped_at_most_one_call_after_its_hold_was_refused(
    fleet: tuple[Up, Stage],
) -> None:
    up, stage = fleet
    assert up.run("limits", "guard", "cancel").returncode == 0
    limit = up.run("limits", "set", "project:runaway", "tokens", "hour", str(LIMIT))
    assert limit.returncode == 0, limit.stderr
    line = (
        f'{{"text": "play runaway slowly", "agent": "claude", "project": "runaway", '
        f'"estimate_tokens": {HOLD}}}'
    )
    done = up.run("submit", "--file", "-", stdin=line)
    assert done.returncode == 0, done.stderr
    view = ended(up, done.stdout.strip())
    assert view["status"] == "cancelled"
    (refusal,) = data_of(view, "hold.refused")
    before = int(refusal["reason"].split(" tokens of ")[0].rpartition(" ")[2].replace(",", ""))
    live = data_of(view, "usage.recorded")
    assert len(live) >= before // CALL  # each call is seen by itself, while it runs
    assert view["tokens"] - before <= CALL
    assert view["tokens"] >= 2 * CALL
    assert any("runaway" in start["prompt"] for start in stage.starts())


def test_agents_that_asb_did_not_start_count_by_their_telemetry(fleet: tuple[Up, Stage]) -> None:
    up, _ = fleet
    port = free_port()
    environ = {**environment(), "ASB_TELEMETRY_PORT": str(port)}
    printed = subprocess.run(
        [*ASB, "telemetry", "env", "claude"],
        capture_output=True, text=True, check=True, env=environ, timeout=30,
    ).stdout  # fmt: skip
    assert f"export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{port}" in printed

    def tokens() -> int:
        cell: dict[str, int] = up.ask("metrics")["by_agent"].get("claude", {})
        return cell.get("tokens", 0)

    before = tokens()
    where = f"--data-dir={up.data}"
    service = Process(up.folder, "service", "telemetry", where, environ=environ)
    try:
        service.says(f"telemetry at http://127.0.0.1:{port}")
        url = f"http://127.0.0.1:{port}/v1/logs"
        body = json.dumps(telemetry.delivery(*(telemetry.claude(f"own_{n}") for n in range(3))))
        for _ in range(2):  # the answer to the first was lost
            request = urllib.request.Request(
                url, body.encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        wait_blocking(lambda: tokens() - before == 3 * CALL, within=30, what="three calls")
    finally:
        service.end()


def test_the_books_agree(fleet: tuple[Up, Stage]) -> None:
    up, _ = fleet
    done = up.run("doctor", "--deep")
    assert "do not agree" not in done.stdout, done.stdout
    verified = up.run("replay", "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    with contextlib.closing(SyncClient(up.url)) as client:
        books = rebuild.rebuild(client, Keys()).scopes.get("global", Scope())
    assert (books.held_tokens, books.held_nanos, books.held_tasks) == (0, 0, 0)


def test_files_of_a_fleet_are_checked_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[[workers]]\ncommand = ["no-such-agent-here"]\n')
    up = Up(tmp_path, "fleet.toml", command=("fleet", "up"))
    with pytest.raises(AssertionError, match="no-such-agent-here"):
        up.start()
    up.end()
    assert not up.data.exists()
