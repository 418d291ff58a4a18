"""Agents in tmux sessions: real tmux, and an agent that plays Claude Code on its terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from events.keys import Keys
from events.tokens import read
from services.runtime.errors import ConfigError
from services.store.client import Client
from services.worker.drivers.agent import Choice
from services.worker.drivers.table import agent
from services.worker.drivers.tmux import TmuxDriver
from services.worker.tmux import hooks, kept, server
from services.worker.tmux.agent_session import START_S, AgentSession, Residence
from tests.agents import resident
from tests.agents.resident import COUNTED, RESETS_AT
from tests.agents.terminals import SESSION, Terminal, terminal
from tests.integration.test_worker_session import Engine, options, working
from tests.servers import RedisServer
from tests.wait import stays, wait_until

__all__ = ["terminal"]
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@contextlib.asynccontextmanager
async def at_work(
    client: Client, keys: Keys, terminal: Terminal, **chosen: Any
) -> AsyncGenerator[Engine]:
    settings = options(terminal.driver(**chosen), capacity=1)
    async with working(client, keys, settings) as engine:
        yield engine


async def ended(engine: Engine, task: str = "t1", within: float = 20) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        reports = await engine.reports("task.", task)
        return next((report for report in reports if "duration_ms" in report), dict[str, Any]())

    return await wait_until(look, within=within, what=f"{task} ends")


async def states(engine: Engine) -> list[str]:
    return [report["state"] for report in await engine.reports("worker.state")]


# -- prompts -----------------------------------------------------------------------------------


LINES = "\n".join(f"line {n} of a long task: {'x' * 30}" for n in range(2000))
PROMPTS = {
    "one line": ("Say hello.", ""),
    "lines": ("First.\n\n  Second, indented: ünï €\nlast", "wrapped as a paste"),
    "2,000 lines, 100 kB": (LINES + "y" * 20_000, "wrapped as a paste"),
    "a command": ("/clear", "a first line put before it"),
    "a shell's": ("!touch OUT", "a first line put before it"),
    "a file": ("Look at @secret.txt please", "@ written as \\@"),
    "an option": ("--help", ""),
    "tabs": ("a\tb", "tabs became blanks"),
    "keys of tmux": ("C-c Enter; kill-server #{pane_id} ; $(touch OUT)", ""),
    "the end of a paste": ("one\x1b[201~\r/exit\rtwo", "control characters left out"),
}


@pytest.mark.parametrize("name", PROMPTS)
async def test_a_prompt_arrives_whole_and_once_and_the_receipt_names_what_differs(
    client: Client, keys: Keys, terminal: Terminal, name: str
) -> None:
    text, difference = PROMPTS[name]
    text = text.replace("OUT", str(terminal.folder / "out"))
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", text)
        said = await ended(engine)
        receipt = await engine.report("task.delivered", "t1")
    assert said["result"].startswith("Did: ")
    assert (receipt["by"], said.get("calls")) == ("hook", None)
    assert difference in receipt.get("changes", "")
    assert difference or not receipt.get("changes")
    (arrived,) = terminal.entries("prompt")
    if name != "the end of a paste":
        assert text.replace("\t", "    ").replace("@", "\\@") in arrived
    assert terminal.entries("lost") == terminal.entries("read_file") == []
    assert not (terminal.folder / "out").exists()


async def test_the_same_words_again_are_another_turn(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        for task in ("t1", "t2", "t3"):
            await engine.dispatch(task, "Say hello.")
            tokens = read((await ended(engine, task)).get("usage")).usage
            assert tokens is not None
            assert tokens.counted(0) == COUNTED
            assert len(terminal.entries("prompt")) == int(task[1])


async def test_enter_is_pressed_again_until_the_agent_says_that_it_has_the_prompt(
    client: Client, keys: Keys, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENT_DEAF", "1.2")
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "Say hello.")
        assert (await ended(engine))["result"]
    assert terminal.entries("prompt") == ["Say hello."]


async def test_what_a_person_has_half_written_is_no_part_of_a_prompt_and_stays(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    draft = "a thought that is not"
    async with at_work(client, keys, terminal) as engine:
        terminal.tmux("send-keys", "-t", f"={SESSION}:", "-l", draft)
        for name, text in (("t1", "Say hello."), ("t2", "play slow"), ("t3", "Say goodbye.")):
            await engine.dispatch(name, text)
            receipt = await engine.report("task.delivered", name)
            assert not receipt.get("changes")
            if name == "t2":
                await engine.cancel(name)
            await ended(engine, name)
        terminal.type(" yet over")

        async def prompts() -> bool:
            return len(terminal.entries("prompt")) == 4

        await wait_until(prompts, what=str(terminal.entries("prompt")))
    assert terminal.entries("prompt")[:3] == ["Say hello.", "play slow", "Say goodbye."]
    assert terminal.entries("prompt")[3] == f"{draft} yet over"


async def test_without_hooks_the_agents_own_files_tell_the_same(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    terminal.tmux("new-session", "-d", "-s", SESSION, "claude")
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play calls 2")
        said = await ended(engine)
        receipt = await engine.report("task.delivered", "t1")
    assert receipt["by"] == "transcript"
    assert read(said["usage"]).usage is not None
    assert said["model"] == resident.MODEL


# -- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "words"),
    [("overloaded", "529"), ("die", "died"), ("well", "")],
)
async def test_an_end_is_what_the_agent_says_of_it(
    client: Client, keys: Keys, terminal: Terminal, part: str, words: str
) -> None:
    async with at_work(client, keys, terminal, restart=True) as engine:
        await engine.dispatch("t1", f"play {part}")
        said = await ended(engine)
    assert words in said.get("error", "")
    assert bool(said.get("retryable")) == bool(words)
    tokens = read(said["usage"]).usage if "usage" in said else None
    if part != "overloaded":  # that made no call
        assert tokens is not None
        assert tokens.counted(0) == COUNTED


async def test_a_limit_is_its_providers_and_the_agent_does_not_go_on_by_itself(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play limit")
        said = await ended(engine)
        assert said["limit"]["until"] == RESETS_AT * 1_000_000
        assert "5-hour limit" in said["limit"]["evidence"]
        assert "limited" in await states(engine)
        await engine.dispatch("t2", "Say hello.")
        assert (await ended(engine, "t2"))["result"]
    assert terminal.entries("continued") == []


@pytest.mark.parametrize("part", ["slow", "mute"])
async def test_a_cancellation_interrupts_the_turn_and_not_the_session(
    client: Client, keys: Keys, terminal: Terminal, part: str
) -> None:
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", f"play {part}")
        await engine.report("task.delivered", "t1")
        await engine.cancel("t1")
        said = await ended(engine)
        assert ("usage" in said) == (part == "slow")  # what it used by then is told
        await engine.dispatch("t2", "Say hello.")
        assert (await ended(engine, "t2"))["result"]
    assert terminal.entries("prompt")[1:] == ["Say hello."]  # and nothing of the other one
    assert len(terminal.entries("start")) == 1
    assert "agent1" in terminal.tmux("list-sessions")


# -- what it does ------------------------------------------------------------------------------


async def test_a_permission_that_is_asked_for_is_told_within_a_second(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play ask")
        await engine.report("task.delivered", "t1")

        async def asks() -> dict[str, Any]:
            reports = await engine.reports("worker.state")
            return next((r for r in reports if r["state"] == "permission"), dict[str, Any]())

        told = await wait_until(asks, within=10)
        assert time.time() - told["since"] / 1e6 < 1.0
        assert (told["by"], told["about"]) == ("hook", "Bash")
        terminal.tmux("send-keys", "-t", f"={SESSION}:", "Enter")
        assert (await ended(engine))["result"]
    assert (await states(engine)) == ["idle", "busy", "permission", "busy", "idle"]


async def test_what_a_person_does_in_the_session_is_foreign_work_and_waited_for(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        terminal.type("please play slow by hand")
        await wait_until(lambda: len(terminal.entries("prompt")) == 1)
        await engine.dispatch("t1", "play calls 3")
        terminal.slow_enough()
        said = await ended(engine)
        tokens = read(said["usage"]).usage
        assert tokens is not None
        assert tokens.counted(0) == 4 * COUNTED
        foreign = [call for call in await engine.reports("usage.recorded") if "task" not in call]
        told = [read(call["usage"]).usage for call in foreign]
        assert [tokens.counted(0) for tokens in told if tokens is not None] == [COUNTED, COUNTED]
        # Under the agent's own names for its calls: told again by a next worker, they count once.
        entries = await client.call("XRANGE", keys.main_intake, "-", "+")
        names = [f[f.index(b"id") + 1] for _, f in entries if b"id" in f[::2]]
        assert len(names) == len(set(names)) == 2
        assert all(name.startswith(b"claude:req_") for name in names)
        terminal.type("/clear")  # another conversation: what is done in it is ours again
        await engine.dispatch("t2", "play agents")
        said = await ended(engine, "t2")
        assert len(read(said["usage"]).models) == 2
    assert len(terminal.entries("prompt")) == 3


async def test_telemetry_is_the_second_meter_and_tells_of_calls_that_no_transcript_has(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    """Given a turn with a compaction in it, then its call counts, once, and both meters agree; a
    person's compaction is foreign work; the next worker hears the same agent."""
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play compact")
        said = await ended(engine)
        for usage in (said["usage"], said["meters"]["telemetry"]):
            tokens = read(usage).usage
            assert tokens is not None
            assert tokens.counted(0) == 2 * COUNTED
        assert said["meter"] == "transcript"
        terminal.type("play compact by hand")

        async def foreign() -> list[dict[str, Any]]:
            calls = [c for c in await engine.reports("usage.recorded") if "task" not in c]
            return calls if len(calls) == 2 else []

        calls: list[dict[str, Any]] = await wait_until(foreign, within=20)
        assert sorted(call["meter"] for call in calls) == ["telemetry", "transcript"]
    async with at_work(client, keys, terminal) as engine:
        await engine.joined(2)
        await engine.dispatch("t2", "play compact")
        said = await ended(engine, "t2")
        tokens = read(said["usage"]).usage
        assert tokens is not None
        assert tokens.counted(0) == 2 * COUNTED


async def test_a_background_task_that_reports_when_a_turn_is_over_makes_it_go_on(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play report")
        said = await ended(engine)
        tokens = read(said["usage"]).usage
        assert tokens is not None
        assert tokens.counted(0) == 2 * COUNTED
        assert said["result"] == "Did: 14 characters."
    assert not [call for call in await engine.reports("usage.recorded") if "task" not in call]


async def test_meters_that_name_calls_differently_are_held_side_by_side_and_not_added_up(
    client: Client, keys: Keys, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENT_UNNAMED", "1")
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play calls 2")
        said = await ended(engine)
    for usage in (said["usage"], said["meters"]["telemetry"]):
        tokens = read(usage).usage
        assert tokens is not None
        assert tokens.counted(0) == 3 * COUNTED


async def test_a_dead_agent_is_started_again_with_its_conversation_where_asked(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal, restart=True) as engine:
        await engine.dispatch("t1", "play die")
        assert "died" in (await ended(engine))["error"]
        await engine.dispatch("t2", "Say hello.")
        assert (await ended(engine, "t2"))["result"]
        assert "dead" in await states(engine)
    first, second = terminal.entries("start")
    assert "--resume" in second
    assert "--resume" not in first


async def test_a_dead_agent_is_started_once_however_often_that_is_asked_for(
    terminal: Terminal,
) -> None:
    place = Residence(session=SESSION, folder=kept.Folder(terminal.data, "w1"), restart=True)
    session = AgentSession(agent("claude"), Choice(), place)
    await session.open()
    os.kill(session.seat.pid, signal.SIGKILL)

    async def dead() -> bool:
        return not session.alive

    await wait_until(dead)
    first = asyncio.create_task(session.start_again())

    async def there() -> bool:
        return await server.pane_of(SESSION) is not None

    await wait_until(there)
    with anyio.fail_after(START_S / 2):  # neither waits for an agent that the other has ended
        await session.start_again()  # while it starts, and shows nothing of itself yet
        await first
    assert session.alive
    assert len(terminal.entries("start")) == 2
    session.claim.release()


async def test_a_worker_that_is_cut_off_interrupts_the_turn_before_its_lease_ends(
    terminal: Terminal,
) -> None:
    server = RedisServer(terminal.folder / "redis").start()
    there = Client(server.url)
    settings = options(terminal.driver(), capacity=1, lease_s=8, heartbeat_s=1)
    try:
        async with working(there, Keys(), settings) as engine:
            await engine.dispatch("t1", "play slow")
            await engine.report("task.delivered", "t1")
            since = time.time()
            await anyio.to_thread.run_sync(server.kill9)
            interrupted = await wait_until(lambda: terminal.entries("interrupted"), within=20)
            assert interrupted[0] - since < 8
            await anyio.to_thread.run_sync(server.start)
            await ended(engine)
    finally:
        server.stop()
        await there.close()
    assert len(terminal.entries("start")) == 1


async def test_a_sandbox_is_told_to_the_agent_in_its_session(
    client: Client, keys: Keys, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IS_SANDBOX", "1")
    async with at_work(client, keys, terminal, permissions="all"):
        said = terminal.tmux("show-environment", "-t", f"={SESSION}", "IS_SANDBOX")
    assert said.strip() == "IS_SANDBOX=1"
    assert "--dangerously-skip-permissions" in terminal.entries("start")[0]


async def test_what_cannot_work_is_said_with_a_way_out(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Residence(session="a:b", folder=kept.Folder(terminal.data, "w1"))
    with pytest.raises(ConfigError, match="letters, digits"):
        TmuxDriver(agent("claude"), Choice(), place).check()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("IS_SANDBOX", raising=False)
    with pytest.raises(ConfigError, match="only in a sandbox"):
        terminal.driver(permissions="all").check()
    (terminal.bin / "claude").unlink()
    with pytest.raises(ConfigError, match="not installed"):
        terminal.driver().check()


# -- one worker per session --------------------------------------------------------------------


async def test_a_session_has_one_worker_whatever_its_bus(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    def other(session: str) -> TmuxDriver:
        folder = kept.Folder(terminal.folder / "other bus", "w2")
        return TmuxDriver(agent("claude"), Choice(), Residence(session=session, folder=folder))

    async with at_work(client, keys, terminal) as engine:
        with pytest.raises(ConfigError, match=r"has a worker already: w1 \(") as error:
            await other(SESSION).prepare()
        assert "--session" in (error.value.hint or "")
        terminal.tmux("new-session", "-d", "-s", "shown", "-t", f"={SESSION}")  # the same panes
        with pytest.raises(ConfigError, match="has a worker already"):
            await other("shown").prepare()
        await engine.dispatch("t1", "Say hello.")
        assert (await ended(engine))["result"]
    await other(SESSION).prepare()  # the first one has ended
    assert len(terminal.entries("start")) == 1


# -- the guard `pause` -------------------------------------------------------------------------


async def held(terminal: Terminal) -> None:
    async def look() -> list[str]:
        return terminal.entries("held")

    await wait_until(look, within=20, what="it waits")


async def test_a_pause_holds_the_agent_after_the_step_that_it_had_begun(
    client: Client, keys: Keys, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEP_S", "0.5")
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play calls 6")
        await engine.report("usage.recorded", "t1")
        await engine.hold("hold.refused", "t1", action="pause", reason="tokens/day is full")
        steps = len(terminal.entries("step"))
        await held(terminal)
        assert steps <= len(terminal.entries("step")) <= steps + 1 < 6
        assert not await engine.reports("task.completed", "t1")
        await engine.hold("hold.extended", "t1")
        assert (await ended(engine))["result"]
        assert len(terminal.entries("step")) == 6
        assert len(terminal.entries("prompt")) == 1
        await engine.dispatch("t2", "play calls 1")  # of an earlier pause nothing is left
        assert (await ended(engine, "t2"))["result"]
    assert len(terminal.entries("held")) == 1


async def test_a_task_that_is_paused_before_it_begins_is_not_given_to_the_agent(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t0", "play calls 1")
        await engine.dispatch("t1", "Say hello.")
        await engine.hold("hold.refused", "t1", action="pause")
        await ended(engine, "t0")
        await engine.report("task.started", "t1")
        await stays(lambda: len(terminal.entries("prompt")) == 1, during=0.5)
        await engine.hold("hold.extended", "t1")
        assert (await ended(engine))["result"]


async def test_a_paused_turn_is_cancelled_and_the_session_lives_on(
    client: Client, keys: Keys, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEP_S", "0.5")
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play calls 6")
        await engine.report("usage.recorded", "t1")
        await engine.hold("hold.refused", "t1", action="pause")
        await held(terminal)
        await engine.cancel("t1")
        await ended(engine)
        await engine.dispatch("t2", "play calls 1")
        assert (await ended(engine, "t2"))["result"]
    assert len(terminal.entries("start")) == 1


async def test_an_agent_that_cannot_be_held_is_interrupted(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    terminal.tmux("new-session", "-d", "-s", SESSION, "claude")  # without hooks
    async with at_work(client, keys, terminal) as engine:
        await engine.dispatch("t1", "play slow")
        await engine.report("task.delivered", "t1")
        await engine.hold("hold.refused", "t1", action="pause", reason="tokens/day is full")
        said = await ended(engine)
        assert "asb hooks install" in said["error"]
        assert "tokens/day is full" in said["error"]
        assert said["retryable"]
    assert len(terminal.entries("start")) == 1


async def test_what_a_killed_worker_held_is_let_go_where_nobody_has_it_any_more(
    client: Client, keys: Keys, terminal: Terminal
) -> None:
    folder = kept.Folder(terminal.data, "w1")
    folder.make()
    folder.hold(True)
    async with at_work(client, keys, terminal):
        assert not hooks.held(folder.path).exists()
