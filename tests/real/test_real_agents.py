"""Claude Code, Codex and Gemini CLI themselves, driven by `asb up` against a mock of their
providers: what asb charges is what was served, by part and model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.tokens import TokenParts
from tests.crash.test_up_killed import command, pids_of
from tests.e2e.cli import ASB, Process, Up, environment
from tests.integration.test_agents import children
from tests.ports import free_port
from tests.real import install
from tests.real.mock_api import SERVED, SERVED_OPENAI, Mock
from tests.wait import wait_blocking

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

AGENTS = ("claude", "codex", "gemini")
_PARTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


class Real:
    """A bus whose workers run one of the real programs, and the provider it talks to."""

    def __init__(self, up: Up, mock: Mock) -> None:
        self.up, self.mock = up, mock

    def submit(self, text: str, *more: str) -> str:
        done = self.up.run("submit", text, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ended(self, task: str, within: float = 90) -> dict[str, Any]:
        """Its end, as ``asb task --json`` tells it."""

        def look() -> dict[str, Any]:
            view: dict[str, Any] = self.up.ask("task", task)
            last = view["events"][-1]
            over = view["status"] in ("completed", "failed", "cancelled")
            return {**view, "end": last["data"]} if over else {}

        return wait_blocking(look, within=within, what=f"{task} ends; {self.up.said}")

    def story(self, task: str) -> dict[str, Any]:
        view: dict[str, Any] = self.up.ask("task", task)
        return view

    def charged(self) -> TokenParts:
        total = self.up.ask("metrics")["total"]
        return TokenParts(*(total.get(name, 0) for name in _PARTS))

    def served(self) -> TokenParts:
        whole = TokenParts()
        for _, parts in self.mock.served:
            whole = whole.plus(parts)
        return whole


def settings_of(name: str, folder: Path, url: str) -> dict[str, str]:
    """What makes the program talk to the mock, and to nobody else."""
    home = folder / "home"
    home.mkdir()
    common = {"HOME": str(home), "PATH": f"{install.programs()}:{os.environ['PATH']}"}
    if name == "claude":
        return {**common, "ANTHROPIC_API_KEY": "test-key", "ANTHROPIC_BASE_URL": url,
                "CLAUDE_CONFIG_DIR": str(home / "claude"), "DISABLE_TELEMETRY": "1",
                "DISABLE_ERROR_REPORTING": "1", "CLAUDE_CODE_MAX_RETRIES": "0",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}  # fmt: skip
    if name == "codex":
        codex = folder / "codex"  # not below /tmp/…/home: Codex refuses some temporary folders
        codex.mkdir()
        (codex / "config.toml").write_text(
            'model_provider = "mock"\ncheck_for_update_on_startup = false\n'
            "[analytics]\nenabled = false\n[model_providers.mock]\n"
            f'name = "mock"\nbase_url = "{url}/v1"\nenv_key = "MOCK_KEY"\nwire_api = "responses"\n'
            "request_max_retries = 0\nstream_max_retries = 0\n"
        )
        return {**common, "CODEX_HOME": str(codex), "MOCK_KEY": "test-key"}
    settings = home / ".gemini" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False}}))  # fmt: skip
    return {**common, "GEMINI_API_KEY": "test-key", "GOOGLE_GEMINI_BASE_URL": url,
            "GEMINI_CLI_TRUST_WORKSPACE": "true"}  # fmt: skip


@contextlib.contextmanager
def real(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str, workers: int = 1
) -> Generator[Real]:
    mock = Mock().start()
    for variable, value in settings_of(name, folder, mock.url).items():
        monkeypatch.setenv(variable, value)
    up = Up(folder, f"--workers={workers}", f"--driver={name}", *more)
    try:
        up.start()
        yield Real(up, mock)
    finally:
        mock.let_go.set()
        up.end()
        mock.stop()


def meters_differ(view: dict[str, Any]) -> dict[str, int]:
    """How many tokens more than its driver each other meter of a task tells."""
    (meters,) = view["meters"]
    assert meters["charged"] == "driver"
    driver = meters["tokens"].pop("driver")
    return {name: tokens - driver for name, tokens in meters["tokens"].items()}


MODELS = {"claude": "claude-haiku-5-5", "codex": "gpt-mock-1", "gemini": "gemini-2.5-flash"}


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_charged_is_what_was_served(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        plain = bus.submit("say hello --help @nothing")
        tool = bus.submit("USE-TOOL and say hello", "--model", MODELS[name])
        for task in (plain, tool):
            view = bus.ended(task)
            assert view["status"] == "completed", view["end"]
            assert view["result"].startswith("Answer to")
            assert meters_differ(view) == {"telemetry": 0, "transcript": 0}
        assert len(bus.mock.served) >= 3
        assert bus.charged() == bus.served()
        models = {m for m, cell in bus.up.ask("metrics")["by_model"].items() if cell["tokens"]}
        assert MODELS[name] in models
        assert models <= set(bus.mock.by_model())
        prompt = next(p for p in bus.mock.prompts if "say hello --help" in p)
        assert "nothing" in prompt


def test_claude_subagents_are_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with real("claude", tmp_path, monkeypatch) as bus:
        view = bus.ended(bus.submit("SUBAGENT please"))
        assert view["status"] == "completed", view["end"]
        assert len(bus.mock.served) == 3
        assert bus.charged() == bus.served()
        assert meters_differ(view) == {"telemetry": 0, "transcript": 0}


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_resumed_session_is_charged_its_own_part(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        first = bus.ended(bus.submit("say hello"))
        session = first["end"]["words"]["agent_session"]
        resume = {"claude": ("--resume", session, "--fork-session"), "codex": ("resume", session)}
        where = (f"--data-dir={bus.up.data}", f"--driver={name}")
        other = Process(tmp_path, "worker", "resumer", *where, "--", *resume[name])
        try:
            other.says("Ctrl-C stops")
            view = bus.ended(bus.submit("say it again", "--worker", "resumer"))
        finally:
            other.end()
        assert view["status"] == "completed", view["end"]
        assert len(bus.mock.served) == 2
        assert bus.charged() == bus.served()


@pytest.mark.parametrize("name", AGENTS)
def test_kill_9_of_worker_and_supervisor_is_healed_by_the_transcript(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        more = ("--model", MODELS[name], "--max-attempts", "1")
        task = bus.submit("TOOL-STALL for me", *more)
        wait_blocking(bus.mock.hanging.is_set, within=60)
        assert len(bus.mock.served) == 1
        seen = "its spend is seen while it runs"
        wait_blocking(lambda: bus.charged() == bus.served(), within=20, what=seen)
        tree = [pid for pid in pids_of(tmp_path) if " worker worker1 " in command(pid)]
        tree += [child for pid in tree for child in children(pid)]
        assert len(tree) == 2
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for pid in tree:
                os.kill(pid, sign)
        assert bus.ended(task)["status"] == "failed"
        bus.mock.let_go.set()
        assert bus.up.run("usage", "reconcile", "--check").returncode == 1
        healed = bus.up.run("usage", "reconcile")
        assert healed.returncode == 0, healed.stderr
        assert "healed" in healed.stdout
        assert bus.charged() == bus.served()
        assert len(bus.mock.served) == 1, "the agent went on after its supervisor's death"
        assert "healed" not in bus.up.run("usage", "reconcile").stdout
        assert bus.up.run("replay", "--verify").returncode == 0


@pytest.mark.parametrize("name", AGENTS)
def test_a_failure_in_mid_run_is_charged_what_was_served(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch, "--silence=25") as bus:
        more = () if name != "codex" else ("--model", MODELS[name])
        view = bus.ended(bus.submit("BREAK it", "--max-attempts", "1", *more), within=200)
        assert view["status"] == "failed"
        assert len(bus.mock.served) == 1
        assert bus.charged() == bus.served()


@pytest.mark.parametrize("name", AGENTS)
def test_a_refused_request_is_not_tried_again_and_costs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        view = bus.ended(bus.submit("REFUSE-400 this"))
        assert view["status"] == "failed"
        assert view["end"]["attempt"] == 1
        error = view["end"]["words"]["error"]
        assert "400" in error or "mock" in error
        assert bus.charged() == TokenParts()


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_provider_s_limit_pauses_the_account(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch, workers=2) as bus:
        tasks = [bus.submit(f"REFUSE-429 number {n}") for n in range(6)]

        def limited() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = bus.up.ask("account")["accounts"]
            return [row for row in rows if row["limited"]]

        assert wait_blocking(limited, within=60)[0]["account"].startswith(f"{name}@")

        def at_rest() -> bool:
            return bus.up.ask("status")["tasks"]["running"] == 0

        wait_blocking(at_rest, within=60)
        attempts = [
            event["data"]["attempt"]
            for task in tasks
            for event in bus.story(task)["events"]
            if event["type"] == "task.dispatched"
        ]
        assert len(attempts) <= 2  # one a worker
        assert bus.charged() == TokenParts()
        assert "limited until" in bus.up.run("status").stdout


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_cancelling_keeps_the_spend(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        task = bus.submit("HANG on")
        wait_blocking(bus.mock.hanging.is_set, within=60)
        assert bus.up.run("cancel", task).returncode == 0
        view = bus.ended(task)
        assert view["status"] == "cancelled"
        if name == "claude":  # the answer had begun: its input was served
            charged = bus.charged()
            assert charged.input_tokens == SERVED.input_tokens
            assert charged.cache_read_tokens == SERVED.cache_read_tokens
        else:
            assert bus.charged().whole in (0, SERVED_OPENAI.whole)
        assert not [line for line in bus.up.processes() if " exec " in line]


@pytest.mark.parametrize("name", ["claude", "gemini"])
def test_a_session_that_asb_did_not_start_counts_by_its_telemetry(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real(name, tmp_path, monkeypatch) as bus:
        port = free_port()
        where = (f"--data-dir={bus.up.data}",)
        environ = {**environment(), "ASB_TELEMETRY_PORT": str(port)}
        service = Process(tmp_path, "service", "telemetry", *where, environ=environ)
        try:
            service.says(f"127.0.0.1:{port}")
            ask = [*ASB, "telemetry", "env", name]
            printed = subprocess.run(
                ask, capture_output=True, text=True, check=True, env=environ, timeout=30
            )
            agent = {"claude": "claude -p", "gemini": "gemini -m gemini-2.5-flash -p"}[name]
            script = f"eval '{printed.stdout}'\n{agent} 'say hello' < /dev/null"
            subprocess.run(["sh", "-c", script], check=True, timeout=60, cwd=tmp_path)
            wait_blocking(lambda: bus.charged() == bus.served(), within=30)
        finally:
            service.end()
        by_agent = bus.up.ask("metrics")["by_agent"]
        assert by_agent[name]["tokens"] > 0


def test_gemini_through_the_agent_client_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock = Mock().start()
    for variable, value in settings_of("gemini", tmp_path, mock.url).items():
        monkeypatch.setenv(variable, value)
    command = ("gemini", "--acp", "-m", "gemini-2.5-flash")
    up = Up(tmp_path, "--workers=1", "--driver=acp", "--permissions=read", "--", *command)
    try:
        bus = Real(up.start(), mock)
        view = bus.ended(bus.submit("USE-TOOL and say hello"))
        assert view["status"] == "completed", view["end"]
        assert view["result"].startswith("Answer to")
        # Its ACP mode tells neither cached tokens nor thoughts: what it tells is taken.
        calls = len(mock.served)
        assert bus.charged() == TokenParts(900 * calls, 30 * calls)
    finally:
        up.end()
        mock.stop()
