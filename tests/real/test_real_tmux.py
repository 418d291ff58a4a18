"""Claude Code itself in tmux sessions, driven by `asb up` against a mock of its provider."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.worker.tmux import kept
from tests.e2e.cli import Up
from tests.integration.test_worktrees import Repository
from tests.real.mock_api import SERVED, WINDOW_S, Mock
from tests.real.test_real_agents import Real, settings_of
from tests.wait import stays, wait_blocking

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
DRAFT = "a thought that is not yet over"
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
    "keys of tmux": "C-c Enter; kill-server #{pane_id} ; $(touch OUT)",
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "work")


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def login() -> dict[str, str]:
    """What the agent shows its provider: a key, or the token of a subscription."""
    return {"ANTHROPIC_API_KEY": KEY}


@pytest.fixture
def bus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    login: dict[str, str],
) -> Generator[Real]:
    """A worker whose agent is past its first questions, with a provider of our own."""
    mock = Mock().start()
    settings = {**settings_of("claude", tmp_path, mock.url), **login}
    if "ANTHROPIC_API_KEY" not in login:
        del settings["ANTHROPIC_API_KEY"]
    home = Path(settings["CLAUDE_CONFIG_DIR"])
    home.mkdir()
    trusted = (str(tmp_path), str(tmp_path / "work"))  # a repository is trusted for itself
    known = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {path: {"hasTrustDialogAccepted": True} for path in trusted},
    }
    (home / ".claude.json").write_text(json.dumps(known))
    (tmp_path / "secret.txt").write_text("SECRET-CONTENT\n")
    for name, value in {**settings, "TMUX_TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TMUX", raising=False)
    command = ("--workers=1", "--driver=tmux", *options, "--", "--permission-mode", "default")
    up = Up(tmp_path, *command)
    try:
        up.start()
        wait_blocking(lambda: up.ask("status")["workers"], within=60, what=up.said)
        yield Real(up, mock)
    finally:
        mock.let_go.set()
        up.end()
        subprocess.run(["tmux", "kill-server"], check=False, capture_output=True)
        mock.stop()


def press(*keys: str) -> None:
    subprocess.run(["tmux", "send-keys", "-t", "=worker1:", *keys], check=True)


def screen() -> str:
    """What the session shows; only tests look there."""
    shown = ["tmux", "capture-pane", "-p", "-t", "=worker1:"]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout


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
    wait_blocking(  # its state file may say so before its hook names the tool
        lambda: (s := agent_state(bus)).get("state") == "permission" and s["about"] == "Bash",
        within=30,
    )
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


@pytest.mark.parametrize("login", [{"CLAUDE_CODE_OAUTH_TOKEN": "test-token"}])
def test_a_subscriptions_limit_ends_when_its_window_does(bus: Real) -> None:
    task = bus.submit("LIMITED please")
    (limited,) = wait_blocking(lambda: bus.up.ask("status")["accounts"], within=60)
    assert (limited["limited"], limited["reset_named"]) == (True, True)
    view = bus.ended(task, within=WINDOW_S + 60)
    assert view["status"] == "completed", view["end"]
    assert bus.mock.refused == 1  # not asked before its window is over, nor by the agent itself
    assert bus.charged() == bus.served() == SERVED
    resets = datetime.fromtimestamp(bus.mock.resets, UTC)
    assert datetime.fromisoformat(limited["until"]) == resets


def test_a_persons_draft_is_put_aside_and_comes_back(bus: Real) -> None:
    press("-l", DRAFT)
    wait_blocking(lambda: DRAFT in screen(), within=20, what="it is typed")
    view = bus.ended(bus.submit("Say hello."))
    assert view["status"] == "completed", view["end"]
    assert not receipt(view).get("words", {}).get("changes")
    assert not any(DRAFT in prompt for prompt in bus.mock.prompts)
    wait_blocking(lambda: f"❯\u00a0{DRAFT}" in screen(), within=20, what=screen())


def test_an_agent_that_is_held_makes_no_call(bus: Real, tmp_path: Path) -> None:
    folder = kept.Folder(bus.up.data, "worker1")
    task = bus.submit("ASK-TOOL and say hello")
    wait_blocking(lambda: agent_state(bus).get("state") == "permission", within=30)
    folder.hold(True)
    press("Enter")
    wait_blocking((tmp_path / "asked.txt").exists, within=30)
    asyncio.run(stays(lambda: len(bus.mock.served) == 1, during=3))
    folder.hold(False)
    view = bus.ended(task)
    assert view["status"] == "completed", view["end"]
    assert len(bus.mock.served) == 2


@pytest.mark.parametrize("options", [("--worktree", "--cwd=work")])
def test_an_agent_trusts_the_worktrees_of_a_repository_that_it_trusts(
    repository: Repository, bus: Real
) -> None:
    for name in ("t1", "t2"):
        view = bus.ended(bus.submit("Say hello.", "--id", name))
        assert view["status"] == "completed", view["end"]
        assert view["worktree"]["path"] == str(repository.path / ".asb/worktrees" / name)
    assert repository.branches == ["asb/t2", "main"]


def test_a_compaction_by_hand_is_charged_though_no_transcript_tells_of_its_call(bus: Real) -> None:
    assert bus.ended(bus.submit("Say hello."))["status"] == "completed"
    before = len(bus.mock.served)
    subprocess.run(["tmux", "send-keys", "-t", "=worker1:", "-l", "/compact"], check=True)
    press("Enter")
    wait_blocking(lambda: len(bus.mock.served) > before, within=30, what="it compacts")
    wait_blocking(lambda: bus.charged() == bus.served(), within=40, what=str(bus.served()))
