"""The command driver: what the command gets, what its end means, and that nothing outlives it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.runtime.errors import ConfigError
from services.store.client import Client
from services.worker import Task, serve
from services.worker.drivers.command import CommandDriver
from services.worker.process.runs import sweep
from services.worker.process.supervised import Supervised
from tests.integration.test_worker_session import Engine, options, working
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio


def command(*parts: str, grace: float = 0.3, form: str = "text") -> CommandDriver:
    return CommandDriver(parts, format=form, kill_grace_s=grace)


def bash(script: str, grace: float = 0.3, form: str = "text") -> CommandDriver:
    return command("bash", "-c", script, grace=grace, form=form)


def python(script: str) -> CommandDriver:
    return command(sys.executable, "-c", script)


async def end_of(
    client: Client, keys: Keys, driver: CommandDriver, text: str = "do it", **fields: Any
) -> dict[str, Any]:
    """Run one task; what was reported of its end."""
    async with working(client, keys, options(driver)) as engine:
        await engine.dispatch("t1", text, **fields)

        async def ended() -> dict[str, Any]:
            ends = [r for r in await engine.reports("task.") if "duration_ms" in r]
            return ends[0] if ends else {}

        return await wait_until(ended, within=15)


# -- what the command gets ---------------------------------------------------------------------


async def test_the_route_replaces_its_placeholders_but_not_in_the_prompt(
    client: Client, keys: Keys
) -> None:
    driver = command("echo", "--model={model}", "{agent}", "${model}", "{prompt}")
    said = await end_of(client, keys, driver, "say {model}", model="haiku", agent="claude")
    assert said["result"] == "--model=haiku claude ${model} say {model}\n"


async def test_the_prompt_comes_on_standard_input_whatever_it_holds(
    client: Client, keys: Keys
) -> None:
    text = "$(touch /nope) `x` 'ä'\n\x07\x1b[31m --flag\n"
    said = await end_of(client, keys, command("cat"), text)
    assert said["result"] == text


async def test_ten_megabytes_of_prompt_reach_the_command(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, command("wc", "-c"), "x" * 10_000_000)
    assert said["result"].strip() == "10000000"


async def test_a_command_need_not_read_its_input(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, command("true"), "x" * 1_000_000)
    assert said["result"] == ""


async def test_the_prompt_replaces_its_place_in_one_argument(client: Client, keys: Keys) -> None:
    text = 'two words; $(id) "quotes"'
    script = "import sys; print(sys.argv[1:], repr(sys.stdin.read()))"
    driver = command(sys.executable, "-c", script, "-p", "{prompt}", "--m={prompt}!")
    said = await end_of(client, keys, driver, text)
    assert said["result"].strip() == f"{['-p', text, f'--m={text}!']} ''"


async def test_a_nul_in_a_prompt_fails_clearly_as_an_argument_and_passes_as_input(
    client: Client, keys: Keys
) -> None:
    said = await end_of(client, keys, command("echo", "{prompt}"), "a\0b")
    assert "NUL character" in said["error"]
    assert said["retryable"] is False


async def test_a_nul_passes_on_standard_input(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, command("cat"), "a\0b")
    assert said["result"] == "a\0b"


async def test_a_prompt_too_long_for_an_argument_says_what_to_do(
    client: Client, keys: Keys
) -> None:
    said = await end_of(client, keys, command("echo", "{prompt}"), "x" * 3_000_000)
    assert "too long" in said["error"]
    assert "leave out {prompt}" in said["error"]
    assert (said["retryable"], said["calls"]) == (False, 0)


async def test_the_environment_tells_the_task(client: Client, keys: Keys) -> None:
    script = (
        'echo "$ASB_TASK $ASB_ATTEMPT $ASB_WORKER $ASB_MODEL $ASB_AGENT $ASB_KIND $ASB_SESSION"'
    )
    said = await end_of(client, keys, bash(script))
    assert said["result"].strip() == f"t1 1 w1 sonnet codex coding {said['session']}"


async def test_a_command_may_itself_call_asb(client: Client, keys: Keys) -> None:
    """Nothing the worker puts into the environment is an unknown setting there."""
    script = "from services.runtime.settings import load; load(); print('fine')"
    said = await end_of(client, keys, python(script))
    assert said.get("result") == "fine\n", said


# -- what its end means ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "error", "retryable"),
    [
        ("echo out; echo oops >&2; exit 1", "bash exited with status 1: oops", True),
        ("exit 75", "bash exited with status 75", True),
        ("exit 64", "bash exited with status 64 (it was used wrongly)", False),
        ("exit 126", "bash exited with status 126 (it is not executable)", False),
        ("no-such-program-at-all", "bash exited with status 127 (it was not found)", False),
        ("kill -9 $$", "bash was ended by signal 9", True),
    ],
)
async def test_the_exit_status_decides_whether_another_attempt_follows(
    client: Client, keys: Keys, script: str, error: str, retryable: bool
) -> None:
    said = await end_of(client, keys, bash(script))
    assert said["error"].startswith(error)
    assert said["retryable"] is retryable


USED = '{"usage": {"input_tokens": 3, "output_tokens": 4}, "cost_usd": 0.01, "model": "m"}'


async def test_nothing_an_answer_prints_is_usage(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, bash(f"echo answer; echo '{USED}'; echo '{USED}' >&2"))
    assert "usage" not in said
    assert said["result"] == f"answer\n{USED}\n"


@pytest.mark.parametrize("where", ['"$ASB_USAGE_FILE"', "&3"])
async def test_usage_in_its_own_file_is_reported_and_the_file_gone(
    client: Client, keys: Keys, where: str
) -> None:
    script = f"""echo '{{"output_tokens": 9}}' >> {where}; echo '{USED}' >> {where}
    stat -c %a "$ASB_USAGE_FILE" "$(dirname "$ASB_USAGE_FILE")"; echo "$ASB_USAGE_FILE" """
    said = await end_of(client, keys, bash(script.replace(">> &3", ">&3")))
    assert said["usage"] == {"input_tokens": 3, "output_tokens": 4}
    assert (said["cost_usd"], said["model"]) == (0.01, "m")
    file_mode, folder_mode, path = said["result"].split()
    assert (file_mode, folder_mode) == ("600", "700")
    assert not Path(path).parent.exists()


async def test_usage_of_a_failed_command_is_reported_too(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, bash("""echo '{"output_tokens": 9}' >&3; exit 1"""))
    assert said["usage"] == {"output_tokens": 9}


async def test_usage_of_a_cancelled_command_is_reported_too(client: Client, keys: Keys) -> None:
    script = """echo '{"output_tokens": 9}' >&3; touch "$ASB_USAGE_FILE.on"; exec sleep 600"""
    async with working(client, keys, options(bash(script))) as engine:
        await engine.dispatch("t1")
        await wait_until(lambda: list(Path(tempfile.gettempdir()).glob("asb-usage-*/*.on")))
        await engine.cancel("t1")
        said = await engine.report("task.cancelled", "t1")
    assert said["usage"] == {"output_tokens": 9}


@pytest.mark.parametrize("form", ["json", "jsonl"])
async def test_a_named_format_tells_the_usage_and_the_answers_text(
    client: Client, keys: Keys, form: str
) -> None:
    entry = USED.replace('"model"', '"response": "4", "model"')
    script = (
        f"echo '{entry}' | python3 -m json.tool"
        if form == "json"
        else f"echo noise; echo '{entry}'; echo 'new version available'"
    )
    said = await end_of(client, keys, bash(script, form=form))
    assert said["usage"] == {"input_tokens": 3, "output_tokens": 4}
    assert (said["result"], said["model"], said["cost_usd"]) == ("4", "m", 0.01)


async def test_a_long_answer_in_a_format_keeps_its_usage(client: Client, keys: Keys) -> None:
    script = (
        "import json; print(json.dumps({'usage': {'input_tokens': 3}, 'result': 'x' * 200_000}))"
    )
    driver = command(sys.executable, "-c", script, form="jsonl")
    said = await end_of(client, keys, driver)
    assert said["usage"] == {"input_tokens": 3}
    assert said["result"].endswith("xxx")


@pytest.mark.parametrize(
    ("form", "script", "error"),
    [
        ("text", "echo 'Not logged in'; exit 1", "bash exited with status 1: Not logged in"),
        ("text", "echo chatter >&2; echo no key; exit 1", "status 1: chatter | no key"),
        (
            "jsonl",
            """echo '{"type":"turn.failed","error":{"message":"usage limit"}}'; exit 1""",
            "bash exited with status 1: usage limit",
        ),
        (
            "json",
            """echo '{"is_error": true, "result": "API Error: 529"}'; exit 0""",
            "bash says that it failed: API Error: 529",
        ),
    ],
)
async def test_the_reason_of_a_failure_is_told_wherever_the_command_tells_it(
    client: Client, keys: Keys, form: str, script: str, error: str
) -> None:
    said = await end_of(client, keys, bash(script, form=form))
    assert said["error"].endswith(error)


async def test_a_prompt_that_would_be_an_option_is_refused_and_passes_as_input(
    client: Client, keys: Keys
) -> None:
    said = await end_of(client, keys, command("cat", "{prompt}"), "--help")
    assert "would take it for an option: leave out {prompt}" in said["error"]
    assert (said["retryable"], said["calls"]) == (False, 0)  # nothing ran: its hold is released


async def test_a_list_item_passes_on_standard_input(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, command("cat"), "- [ ] do it")
    assert said["result"] == "- [ ] do it"


async def test_output_without_bound_leaves_its_end(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, bash("head -c 20000000 /dev/urandom; echo; echo the end"))
    assert said["result"].endswith("the end\n")
    assert said["result"].startswith("[… the first ")
    assert len(said["result"].encode()) <= 64 * 1024


async def test_a_missing_command_is_an_error_before_the_worker_joins(
    client: Client, keys: Keys
) -> None:
    with pytest.raises(ConfigError, match="'no-such-command'"):
        await serve(options(command("no-such-command")), keys, client)
    with pytest.raises(ConfigError, match="no command"):
        await serve(options(command()), keys, client)
    assert await client.call("EXISTS", keys.main_intake) == 0


async def test_a_command_that_vanishes_fails_for_good(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "agent"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    async with working(client, keys, options(command(str(path)))) as engine:
        path.unlink()
        await engine.dispatch("t1")
        said = await engine.report("task.failed", "t1")
        assert "cannot be run: No such file" in said["error"]
        assert (said["retryable"], said["calls"]) == (False, 0)


# -- nothing outlives it -----------------------------------------------------------------------

# Double-forked, in sessions of their own, deaf to SIGTERM; each writes its process id.
WILD = """
wild() { (setsid bash -c 'trap "" TERM HUP INT; echo $$ >> "$0"; exec sleep 600' "$1" &) ; }
trap '' TERM
wild "$1"; wild "$1"
setsid bash -c 'trap "" TERM; echo $$ >> "$0"; while :; do sleep 600; done' "$1" &
"""


def wild(pids: Path, then: str) -> CommandDriver:
    return CommandDriver(["bash", "-c", WILD + then, "bash", str(pids)], kill_grace_s=0.2)


def written(pids: Path) -> list[int]:
    """The process ids, once all three are there."""
    found = [int(line) for line in pids.read_text().split()] if pids.exists() else []
    return found if len(found) == 3 else []


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def test_a_cancelled_command_takes_every_descendant_with_it(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    async with working(client, keys, options(wild(pids, "while :; do sleep 600; done"))) as engine:
        await engine.dispatch("t1")
        found = await wait_until(lambda: written(pids))
        assert len(alive(found)) == 3
        await engine.cancel("t1")
        await engine.report("task.cancelled", "t1")
        assert alive(found) == []  # by the time it is said, not some time later


async def test_what_a_command_leaves_behind_is_ended_with_it(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    then = 'until [ "$(wc -l < "$1")" = 3 ]; do sleep 0.01; done; echo fine'
    said = await end_of(client, keys, wild(pids, then))
    assert said["result"] == "fine\n"
    assert alive(written(pids)) == []


async def test_a_command_past_its_deadline_is_ended_with_every_descendant(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    async with working(client, keys, options(wild(pids, "sleep 600"))) as engine:
        await engine.dispatch("t1", deadline=int((time.time() + 0.8) * 1e6))
        assert (await engine.report("task.failed", "t1"))["error"].startswith("timed out after")
        assert alive(written(pids)) == []


async def test_a_stopping_worker_leaves_no_process(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    async with working(client, keys, options(wild(pids, "sleep 600"))) as engine:
        await engine.dispatch("t1")
        await wait_until(lambda: written(pids))
    assert alive(written(pids)) == []
    assert (await engine.report("task.failed", "t1"))["error"] == "worker stopped"


async def test_a_worker_that_stops_renewing_is_outlived_by_nothing(tmp_path: Path) -> None:
    """The worker hangs; its supervisors know when the lease is over, and do not wait for it."""
    pids = tmp_path / "pids"
    run = Supervised(
        ["bash", "-c", WILD + "sleep 600", "bash", str(pids)],
        env=os.environ,
        grace_s=60,
        lease=(time.monotonic() + 0.2, time.monotonic() + 0.3),
    )
    lease_end = time.monotonic() + 2.0
    run.renew(lease_end - 1.0, lease_end)
    end = await run.wait()
    assert end.why == "the lease is over"
    assert lease_end - 1.0 < time.monotonic() < lease_end
    assert alive(written(pids)) == []


async def test_a_killed_supervisor_leaves_nothing_either(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    async with working(
        client, keys, options(wild(pids, 'echo $PPID > "$1.up"; sleep 600'))
    ) as engine:
        await engine.dispatch("t1")
        found = await wait_until(lambda: written(pids))
        up = await wait_until(lambda: (tmp_path / "pids.up").read_text().strip())
        os.kill(int(up), 9)
        said = await engine.report("task.failed", "t1")
        assert "its supervisor was killed" in said["error"]
        assert said["retryable"] is True
        assert alive(found) == []


def test_a_sweep_finds_only_its_own_mark() -> None:
    assert sweep("0" * 24) == 0


async def test_many_commands_at_once_all_end(client: Client, keys: Keys) -> None:
    settings = options(command("cat"), capacity=20)
    async with working(client, keys, settings) as engine:
        for n in range(60):
            await engine.dispatch(f"t{n}", f"prompt {n}")

        async def all_done() -> bool:
            return len(await engine.reports("task.completed")) == 60

        await wait_until(all_done, within=30)
        found = {r["task"]: r["result"] for r in await engine.reports("task.completed")}
        assert found == {f"t{n}": f"prompt {n}" for n in range(60)}


async def test_tasks_are_typed(client: Client, keys: Keys) -> None:
    """What a driver may rely on."""
    seen: list[Task] = []

    async def handle(task: Task) -> None:
        seen.append(task)

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1", priority="high", deadline=5_000_000_000_000_000)
        await engine.report("task.completed", "t1")
    task = seen[0]
    assert (task.id, task.attempt, task.priority) == ("t1", 1, "high")
    assert task.deadline_us == 5_000_000_000_000_000
    assert isinstance(engine, Engine)


# -- a pause -------------------------------------------------------------------------------------

FORKS = """
step() { echo $$ >> "$0"; while :; do echo "$1" >> "$0.steps"; sleep 0.01; done; }
export -f step
(setsid bash -c 'step one' "$1" &)
setsid bash -c 'trap "" TERM; step two' "$1" &
echo $$ >> "$1"
while :; do sleep 0.005; done
"""


def size(path: Path) -> int:
    return path.stat().st_size


def states(pids: list[int]) -> set[str]:
    return {Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[0] for p in pids}


async def test_a_paused_command_stops_with_every_descendant_until_its_hold_is_extended(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids, steps = tmp_path / "pids", tmp_path / "pids.steps"
    driver = CommandDriver(["bash", "-c", FORKS, "bash", str(pids)], kill_grace_s=0.2)
    async with working(client, keys, options(driver)) as engine:
        await engine.dispatch("t1")
        found = await wait_until(lambda: written(pids))
        for _ in range(3):
            await _pause_and_go_on(engine, found, steps)
        await engine.hold("hold.refused", "t1", action="pause")
        await wait_until(lambda: states(found) == {"T"})
        await engine.cancel("t1")  # a stopped process is ended like any other
        await engine.report("task.cancelled", "t1")
        assert alive(found) == []


async def _pause_and_go_on(engine: Engine, found: list[int], steps: Path) -> None:
    await engine.hold("hold.refused", "t1", action="pause")
    await wait_until(lambda: states(found) == {"T"})
    before = size(steps)
    await stays(lambda: states(found) == {"T"}, during=0.1)
    assert size(steps) == before
    await engine.hold("hold.extended", "t1")
    await wait_until(lambda: size(steps) > before)


async def test_a_paused_command_is_ended_at_its_deadline(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    driver = CommandDriver(["bash", "-c", FORKS, "bash", str(pids)], kill_grace_s=0.2)
    async with working(client, keys, options(driver)) as engine:
        await engine.dispatch("t1", deadline=int((time.time() + 1.5) * 1e6))
        found = await wait_until(lambda: written(pids))
        await engine.hold("hold.refused", "t1", action="pause")
        assert (await engine.report("task.failed", "t1"))["error"].startswith("timed out after")
        assert alive(found) == []


async def test_a_task_that_is_paused_before_it_begins_takes_no_step(
    client: Client, keys: Keys, tmp_path: Path
) -> None:
    """An inbox that was read late may hold both words."""
    mark = tmp_path / "mark"
    script = 'for _ in 1 2 3 4 5 6 7 8 9; do sleep 0.02; done; echo > "$1"'
    driver = CommandDriver(["bash", "-c", script, "bash", str(mark)], kill_grace_s=0.2)
    async with working(client, keys, options(driver, capacity=1)) as engine:
        await engine.dispatch("t0")
        await engine.dispatch("t1")
        await engine.hold("hold.refused", "t1", action="pause")
        await engine.report("task.completed", "t0")
        mark.unlink()
        await engine.report("task.started", "t1")
        await stays(lambda: not mark.exists(), during=0.4)
        await engine.hold("hold.extended", "t1")
        await engine.report("task.completed", "t1")
        assert mark.exists()
