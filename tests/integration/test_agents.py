"""The drivers of agents at work, over an agent that plays their parts: what is reported of each
end, what it cost, that the clocks run out, and that nothing outlives a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.keys import Keys
from events.tokens import TokenParts, read
from services.runtime.errors import ConfigError
from services.store.client import Client
from services.worker import identity, records
from services.worker.drivers.agent import AgentDriver, Choice, TelemetryOverlay, overlay_of
from services.worker.drivers.table import AGENTS, agent
from services.worker.drivers.watch import Clocks
from services.worker.process import runs
from tests.agents.playing import Stage, stage
from tests.agents.scripted import HAIKU, OPUS, RESETS_AT, SESSION
from tests.integration.test_worker_session import Engine, options, working
from tests.planted import single_words
from tests.wait import wait_until

__all__ = ["stage"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("stage")]

ONE = TokenParts(10, 40, 1000, 100)


def driver(name: str, **chosen: Any) -> AgentDriver:
    return AgentDriver(agent(name), Choice(**chosen))


async def end_of(
    client: Client, keys: Keys, name: str, part: str, model: str = "", **chosen: Any
) -> dict[str, Any]:
    """What was reported of the end of one task that asks for ``part``."""
    async with working(client, keys, options(driver(name, **chosen))) as engine:
        await engine.dispatch("t1", f"play {part}", model=model)
        return await ended(engine)


async def ended(engine: Engine, task: str = "t1") -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        reports = await engine.reports("task.", task)
        ends = [report for report in reports if "duration_ms" in report]
        return ends[0] if ends else {}

    return await wait_until(look, within=20)


def parts(report: dict[str, Any]) -> TokenParts | None:
    return read(report.get("usage")).usage


# -- how a run ends ----------------------------------------------------------------------------


async def test_claude_does_a_task(client: Client, keys: Keys, stage: Stage) -> None:
    said = await end_of(client, keys, "claude", "subagents", model="sonnet")
    assert said["result"] == "The subagent says: done."
    assert {name for name, _ in read(said["usage"]).models} == {OPUS, HAIKU}
    assert said["model"] == HAIKU
    start = stage.starts()[0]
    given = start["arguments"].index("--session-id") + 1
    assert said["agent_session"] == start["arguments"][given]
    assert start["prompt"] == "play subagents"
    assert start["arguments"][:4] == ["-p", "--output-format", "stream-json", "--verbose"]
    assert "--model" in start["arguments"]
    assert not any("permission" in argument for argument in start["arguments"])
    assert start["cwd"] == os.getcwd()


async def test_codex_and_gemini_do_a_task(client: Client, keys: Keys, stage: Stage) -> None:
    said = await end_of(client, keys, "codex", "well", model="gpt-6.1-sol")
    assert (said["result"], parts(said)) == ("All done.", TokenParts(400, 50, 600))
    assert said["model"] == "gpt-6.1-sol"  # of the rollout
    assert stage.starts()[0]["arguments"][-1] == "-"
    said = await end_of(client, Keys(f"{keys.namespace}-2"), "gemini", "well")
    assert (said["result"], parts(said)) == ("All done.", TokenParts(1000, 80, 800))


@pytest.mark.parametrize(
    ("name", "part", "field"),
    [
        ("claude", "subagents", "result"),
        ("codex", "well", "result"),
        ("gemini", "well", "result"),
        ("codex", "midway", "error"),
    ],
)
async def test_a_secret_that_an_agent_says_is_masked_before_it_is_reported(
    client: Client, keys: Keys, name: str, part: str, field: str
) -> None:
    for number, secret in enumerate(single_words(8)):
        own = Keys(f"{keys.namespace}-{number}")
        said = await end_of(client, own, name, f"{part} saying {secret}")
        assert secret not in msgspec.json.encode(said).decode()
        assert "[masked" in said[field], said[field]


@pytest.mark.parametrize(
    ("name", "part", "words"),
    [
        ("claude", "unauthorized", "Failed to authenticate"),
        ("claude", "nothing", "unknown option"),
        ("codex", "wrong", "no such model"),
        ("gemini", "untrusted", "--permissions"),
    ],
)
async def test_permanent_failures_say_why_and_cost_nothing(
    client: Client, keys: Keys, name: str, part: str, words: str
) -> None:
    said = await end_of(client, keys, name, part)
    assert said["retryable"] is False
    assert words in said["error"]
    assert (said["calls"], "usage" in said) == (0, False)


async def test_a_failure_after_a_call_is_charged_and_tried_again(
    client: Client, keys: Keys
) -> None:
    said = await end_of(client, keys, "codex", "midway")
    assert said["retryable"] is True
    assert "stream disconnected" in said["error"]
    assert parts(said) == TokenParts(400, 50, 600)
    assert "calls" not in said


async def test_exit_zero_without_a_result_is_no_success(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "gemini", "hang", silence_s=0.5, first_s=0.5)
    assert said["retryable"] is True
    assert "no answer within" in said["error"]


async def test_a_killed_agent_has_used_what_it_told(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "claude", "dies")
    assert "signal 9" in said["error"]
    assert parts(said) == ONE


async def test_a_limit_says_until_when(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "claude", "limit")
    assert said["limit"] == {
        "until": RESETS_AT * 1_000_000,
        "evidence": "You've hit your 5-hour limit",
    }
    assert said["calls"] == 0


# -- clocks, cancelling ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "words"), [("hang", "no answer within"), ("silent", "silent for")]
)
async def test_the_clocks_run_out(client: Client, keys: Keys, part: str, words: str) -> None:
    said = await end_of(client, keys, "claude", part, first_s=0.6, silence_s=0.6)
    assert words in said["error"]
    assert said["retryable"] is True
    assert parts(said) == TokenParts(10, 20, 1000, 100)  # it was interrupted, so it told


async def test_an_agent_that_cannot_reach_its_provider_is_ended(client: Client, keys: Keys) -> None:
    table = msgspec.structs.replace(agent("codex"), clocks=Clocks(60, 60, trouble_s=0.5))
    async with working(client, keys, options(AgentDriver(table))) as engine:
        await engine.dispatch("t1", "play trouble", model="")
        said = await ended(engine)
    assert "could not reach its provider" in said["error"]
    assert "waiting for network" in said["error"]


async def test_a_tool_that_runs_is_no_silence(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(driver("claude", silence_s=0.3))) as engine:
        await engine.dispatch("t1", "play tool", model="")
        await engine.dispatch("t2", "play silent", model="")
        assert "silent" in (await ended(engine, "t2"))["error"]
        assert [r for r in await engine.reports("task.", "t1") if "duration_ms" in r] == []
        await engine.cancel("t1")
        await ended(engine, "t1")


async def test_cancelling_keeps_the_spend_and_ends_every_descendant(
    client: Client, keys: Keys, stage: Stage
) -> None:
    async with working(client, keys, options(driver("claude"))) as engine:
        await engine.dispatch("t1", "play silent child", model="")

        async def has_child() -> bool:
            starts = stage.starts()
            return bool(starts) and bool(children(starts[0]["pid"]))

        await wait_until(has_child)
        child = children(stage.starts()[0]["pid"])[0]
        await engine.cancel("t1")
        said = await ended(engine)
    assert said["reason"] == "by hand"
    assert parts(said) == TokenParts(10, 20, 1000, 100)
    assert identity.stat(child) == ("", "")


def children(pid: int) -> list[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(word) for word in words]


async def test_a_runaway_is_seen_while_it_runs(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(driver("claude"))) as engine:
        await engine.dispatch("t1", "play runaway", model="")
        spent = await engine.report("usage.recorded", "t1", within=15)
        assert (spent["meter"], spent["attempt"]) == ("stream", 1)
        assert spent["usage"]["output_tokens"] >= 40
        assert spent["model"] == OPUS
        await engine.cancel("t1")
        assert (await ended(engine))["reason"] == "by hand"


# -- more than one meter -----------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
async def test_telemetry_shows_the_spend_of_what_says_nothing_yet(
    client: Client, keys: Keys, name: str
) -> None:
    """Codex and Gemini tell no usage before their end, and a stream shows no subagents."""
    each = {"claude": ONE, "codex": TokenParts(400, 50, 600), "gemini": TokenParts(500, 40, 400)}
    async with working(client, keys, options(driver(name))) as engine:
        await engine.dispatch("t1", "play hang telemetry 3", model="")
        spent = await engine.report("usage.recorded", "t1", within=15)
        assert spent["meter"] == "telemetry"
        usage = parts(spent)
        assert usage == each[name].plus(each[name]).plus(each[name])  # sent twice, counted once
        await engine.cancel("t1")
        said = await ended(engine)
    if name != "claude":  # which is interrupted, and tells its own figures
        assert (said["meter"], parts(said)) == ("telemetry", usage)


async def test_the_agents_own_result_is_charged_and_the_others_are_beside_it(
    client: Client, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    said = await end_of(client, keys, "claude", "well telemetry 2 transcript 3")
    assert (said["meter"], parts(said)) == ("driver", ONE)
    assert {name: read(usage).usage for name, usage in said["meters"].items()} == {
        "telemetry": TokenParts(20, 80, 2000, 200),
        "transcript": TokenParts(30, 120, 3000, 300),
    }


async def test_a_killed_agents_transcript_says_more_than_its_stream(
    client: Client, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    said = await end_of(client, keys, "claude", "dies transcript 2")
    assert (said["meter"], parts(said)) == ("transcript", TokenParts(20, 80, 2000, 200))


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("codex", "config.toml", "[otel]\nexporter = 'none'\n"),
        ("gemini", "settings.json", '{"telemetry": {"enabled": false}}'),
    ],
)
def test_telemetry_in_the_agents_own_settings_is_left_alone(
    tmp_path: Path, name: str, file: str, text: str
) -> None:
    table = agent(name)
    environ = {table.home: str(tmp_path), "HOME": str(tmp_path)}
    assert overlay_of(table, "http://127.0.0.1:1", environ) != TelemetryOverlay()
    folder = table.folder(environ)
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(text)
    assert overlay_of(table, "http://127.0.0.1:1", environ) == TelemetryOverlay()


def test_telemetry_in_the_users_environment_is_left_alone() -> None:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert overlay_of(agent("claude"), "http://127.0.0.1:1", own) == TelemetryOverlay()
    assert overlay_of(agent("claude"), "", {}) == TelemetryOverlay()


async def test_which_session_an_attempt_is_stands_in_a_file_while_it_runs(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    path = records.path_in(tmp_path)
    for name in AGENTS:
        own = Keys(f"{keys.namespace}-{name}")
        async with working(client, own, options(driver(name, records=path))) as engine:
            await engine.dispatch(f"of-{name}", "play hang", model="")
            await wait_until(lambda name=name: name in {r.agent for r in records.read(path)})
            await engine.cancel(f"of-{name}")
            await ended(engine, f"of-{name}")
    known = {record.agent: record for record in records.read(path)}
    assert (known["codex"].session, known["codex"].task) == (SESSION, "of-codex")
    assert path.stat().st_mode & 0o777 == 0o600


# -- what is chosen ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "permissions", "argument"),
    [
        ("claude", "edit", "--permission-mode=acceptEdits"),
        ("codex", "read", "read-only"),
        ("gemini", "all", "yolo"),
    ],
)
async def test_permissions_are_mapped(
    client: Client, keys: Keys, stage: Stage, name: str, permissions: str, argument: str
) -> None:
    said = await end_of(client, keys, name, "denied", permissions=permissions)
    assert said["denials"] >= 1
    assert argument in stage.starts()[0]["arguments"]


async def test_it_works_in_the_folder_that_was_chosen(
    client: Client, keys: Keys, stage: Stage, tmp_path: Path
) -> None:
    await end_of(client, keys, "claude", "well", cwd=str(tmp_path))
    assert stage.starts()[0]["cwd"] == str(tmp_path)


async def test_isolated_needs_a_key_and_gives_a_folder_of_its_own(
    client: Client, keys: Keys, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in agent("claude").keys:
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        await driver("claude", isolated=tmp_path / "own").prepare()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    await end_of(client, keys, "claude", "well", isolated=tmp_path / "own")
    assert stage.starts()[0]["home"] == str(tmp_path / "own")


async def test_what_cannot_work_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--permissions some"):
        await driver("claude", permissions="some").prepare()
    with pytest.raises(ConfigError, match="no folder"):
        await driver("claude", cwd="/nowhere/at/all").prepare()
    if os.geteuid() == 0:
        monkeypatch.delenv("IS_SANDBOX", raising=False)
        with pytest.raises(ConfigError, match="IS_SANDBOX"):
            await driver("claude", permissions="all").prepare()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="npm install"):
        await driver("gemini").prepare()


async def test_a_model_it_does_not_have_is_an_error(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "codex", "well", model="haiku")
    assert (said["retryable"], said["calls"]) == (False, 0)
    assert "gpt-6-luna" in said["error"]


@pytest.mark.parametrize("name", AGENTS)
async def test_prompts_are_never_options_or_commands(
    client: Client, keys: Keys, stage: Stage, name: str
) -> None:
    async with working(client, keys, options(driver(name), capacity=1)) as engine:
        for n, text in enumerate(("--help", "/clear", "- fix", "@notes.md")):
            await engine.dispatch(f"t{n}", text, model="")
            await ended(engine, f"t{n}")
    prompts = [start["prompt"] for start in stage.starts()]
    assert prompts[0] == "--help"
    assert prompts[2] == "- fix"
    assert prompts[1] == ("/clear" if name == "codex" else "The task:\n/clear")
    assert prompts[3] == ("\\@notes.md" if name == "gemini" else "@notes.md")
    assert not any("--help" in start["arguments"] for start in stage.starts())
    assert runs.sweep("nothing") == 0
