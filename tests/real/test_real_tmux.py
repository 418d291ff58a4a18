"""Claude Code itself in tmux sessions, driven by `asb up` against a mock of its provider."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import Up
from tests.real.mock_api import SERVED, Mock
from tests.real.test_real_agents import Real, settings_of
from tests.wait import wait_blocking

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
KEY = "test-key-0123456789-abcdefghijklmnop"
LINES = "\n".join(f"line {n} of a long task: {'x' * 30}" for n in range(2000))
PROMPTS = {
    "one line": "Say hello.",
    "lines": "First.\n\n  Second, indented: ünï €\nfourth\nlast",
    "100 kB": LINES + "y" * 20_000,
    "a command": "/clear",
    "a shell's": "!touch OUT",
    "a file": "Look at @secret.txt please",
    "an option": "--help",
    "tabs": "a\tb",
}


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Real]:
    """A worker whose agent is past its first questions, with a provider of our own."""
    mock = Mock().start()
    settings = {**settings_of("claude", tmp_path, mock.url), "ANTHROPIC_API_KEY": KEY}
    home = Path(settings["CLAUDE_CONFIG_DIR"])
    home.mkdir()
    known = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(tmp_path): {"hasTrustDialogAccepted": True}},
    }
    (home / ".claude.json").write_text(json.dumps(known))
    (tmp_path / "secret.txt").write_text("SECRET-CONTENT\n")
    for name, value in {**settings, "TMUX_TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TMUX", raising=False)
    up = Up(tmp_path, "--workers=1", "--driver=tmux", "--", "--permission-mode", "default")
    try:
        up.start()
        wait_blocking(lambda: up.ask("status")["workers"], within=60, what=up.said)
        yield Real(up, mock)
    finally:
        mock.let_go.set()
        up.end()
        subprocess.run(["tmux", "kill-server"], check=False, capture_output=True)
        mock.stop()


def press(key: str) -> None:
    subprocess.run(["tmux", "send-keys", "-t", "=worker1:", key], check=True)


def agent_state(bus: Real) -> dict[str, Any]:
    state: dict[str, Any] = bus.up.ask("status")["workers"][0]["agent_state"] or {}
    return state


def receipt(view: dict[str, Any]) -> dict[str, Any]:
    event = next(event for event in view["events"] if event["type"] == "task.delivered")
    data: dict[str, Any] = event["data"]
    return data


def test_prompts_of_every_kind_arrive_whole_and_what_is_charged_is_what_was_served(
    bus: Real, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name, text in PROMPTS.items():
        file = tmp_path / "prompt.jsonl"
        file.write_text(json.dumps({"text": text.replace("OUT", str(out))}) + "\n")
        view = bus.ended(bus.submit("--file", str(file)))
        assert view["status"] == "completed", (name, view["end"])
        assert receipt(view)["by"] == "hook"
    served = "\n".join(json.dumps(prompt) for prompt in bus.mock.prompts)
    assert "line 1999 of a long task" in served
    assert "SECRET-CONTENT" not in served
    assert not out.exists()
    assert len(bus.mock.served) == len(PROMPTS)
    assert bus.charged() == bus.served()


def test_a_subagents_calls_are_the_tasks(bus: Real) -> None:
    view = bus.ended(bus.submit("SUBAGENT please"))
    assert view["status"] == "completed", view["end"]
    assert len(bus.mock.served) >= 3
    assert bus.charged() == bus.served()


def test_a_permission_is_waited_for_and_an_interrupted_turn_leaves_the_session(bus: Real) -> None:
    task = bus.submit("ASK-TOOL and say hello")
    state = wait_blocking(
        lambda: (state := agent_state(bus)).get("state") == "permission" and state, within=30
    )
    assert state["about"] == "Bash"
    press("Enter")
    assert bus.ended(task)["status"] == "completed"
    task = bus.submit("HANG please")
    assert bus.mock.hanging.wait(30)
    assert bus.up.run("cancel", task).returncode == 0
    assert bus.ended(task)["status"] == "cancelled"
    bus.mock.let_go.set()
    view = bus.ended(bus.submit("Say hello."))
    assert view["status"] == "completed", view["end"]


def test_a_limit_is_the_accounts(bus: Real) -> None:
    task = bus.submit("REFUSE-429 please")
    limited = wait_blocking(lambda: bus.up.ask("status")["accounts"], within=60)
    assert limited[0]["limited"]
    assert bus.story(task)["status"] != "failed"
    assert SERVED not in [parts for _, parts in bus.mock.served]
