"""Agents with nothing but redis-cli: usage, bad entries, and a worker in plain sh."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from events.envelope import text_of, words_of
from projections import usage
from projections.days import day_of
from services.runtime import urls
from tests.integration.test_engine_ground import Bus, running
from tests.wait import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli"),
]

SCRIPT = Path(__file__).parents[2] / "ops" / "examples" / "shell-worker.sh"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
Cli = Callable[..., str]
Start = Callable[..., "subprocess.Popen[bytes]"]


def command(url: str) -> list[str]:
    return ["redis-cli", *(["-c"] if urls.cluster(url) else []), "-u", plain(url)]


def plain(url: str) -> str:
    """The URL of one server, as redis-cli understands it."""
    cluster = urls.cluster(url)
    return url if cluster is None else cluster.server


@pytest.fixture
def cli(bus: Bus) -> Cli:
    """redis-cli with these words, with `asb:` keys in the namespace of the test."""

    def run(*words: str) -> str:
        own = [w.replace("asb:", f"{bus.keys.namespace}:", 1) for w in words]
        done = subprocess.run(
            [*command(bus.url), *own], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    return run


async def test_usage_in_flat_fields_and_as_json_is_booked_alike(bus: Bus, cli: Cli) -> None:
    async with running(bus.host()):
        flat = "agent codex model gpt-x input_tokens 1500 output_tokens 2500"
        cli("XADD", "asb:intake", "*", "type", "usage.recorded", *flat.split())
        body = '{"agent":"codex","model":"gpt-x","input_tokens":1500,"output_tokens":2500}'
        cli("XADD", "asb:intake", "*", "type", "usage.recorded", "data", body)
        await wait_until(lambda: len(bus.events("usage.recorded")) == 2, what="both on the log")
    first, second = bus.events("usage.recorded")
    assert first.data == second.data
    assert first.source == bus.keys.main_intake
    codex = usage.by(bus.folded().lifetime, "agent")["codex"]
    assert (codex.input_tokens, codex.output_tokens, codex.tokens) == (3_000, 5_000, 8_000)


async def test_usage_of_yesterday_counts_on_its_own_day_and_in_todays_windows(
    bus: Bus, cli: Cli
) -> None:
    seconds = int(cli("TIME").split()[0])
    zone = bus.folded().zone
    yesterday = day_of((seconds - 86_400) * 1_000_000, zone).date
    async with running(bus.host()):
        said = ("type", "usage.recorded", "agent", "codex", "input_tokens", "7")
        cli("XADD", "asb:intake", "*", *said, "time", f"{yesterday}T12:00:00Z")
        cli("XADD", "asb:intake", "*", *said, "time", "2001-01-01T00:00:00Z")  # not to be believed
        await wait_until(lambda: len(bus.events("usage.recorded")) == 2, what="both on the log")
    state = bus.folded()
    assert usage.total(state.days[yesterday].values()).tokens == 7
    assert {day for day, cells in state.days.items() if cells} == {
        yesterday,
        day_of(state.meta.at, zone).date,
    }
    assert sum(b.tokens for b in state.scopes["global"].hours.values()) == 14


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("type usage.recorded agent codex input_tokens many", "input_tokens: not a whole number"),
        ("type usage.recorded agent codex", "no tokens"),
        ("type usage.recorded data {", "not valid JSON"),
        ("type nonsense a b", "unknown type 'nonsense'"),
        ("a b", "no field 'type'"),
        ("type task.dispatched task t1", "is decided by asb"),
    ],
    ids=lambda text: text,
)
async def test_a_bad_entry_lands_among_the_dead_letters_with_its_reason(
    bus: Bus, cli: Cli, words: str, error: str
) -> None:
    async with running(bus.host()):
        entry = cli("XADD", "asb:intake", "*", *words.split())
        await wait_until(bus.dead, what="a dead letter")
    [(place, reason)] = await bus.dead()
    assert place == entry
    assert error in reason


# -- the worker ------------------------------------------------------------------------------------


@pytest.fixture
def start(bus: Bus, tmp_path: Path) -> Generator[Start]:
    """Starts the example worker; ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def run(agent: str, shell: str = SHELLS[0], **environment: str) -> subprocess.Popen[bytes]:
        words = [shell, "sh"] if shell == "busybox" else [shell]
        process = subprocess.Popen(
            [*words, str(SCRIPT), "w1", "sh", "-c", agent],
            env={
                "PATH": os.environ["PATH"],
                "ASB_NAMESPACE": bus.keys.namespace,
                "REDIS_CLI": " ".join(command(bus.url)),
                **environment,
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


HOSTILE = [
    "plain",
    "two\nlines",
    "$(touch hacked) `touch hacked` ; touch hacked & | > hacked \"' \\ \\n %s %d *",
    "session\n9-9\ntask\nother\nkind\ncoding\nagent\n\nmodel\n\ndeadline\n0\npriority\nhigh",
    "  leading and trailing  ",
    "-n -e --raw",
    "日本語 emoji 🚀 ü",
    "usage: 9999999 9999999",
    '{"usage": {"input_tokens": 9999999}}',
    "tab\tand\n\nempty line",
]


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_worker_in_plain_sh_joins_takes_and_completes_with_usage(
    bus: Bus, start: Start, shell: str, tmp_path: Path
) -> None:
    async with running(bus.host()):
        agent = """echo '{"input_tokens": 1}' >&3; cat; echo; echo 'usage: 9 9'
        printf '%s\\n%s' '{"usage": {"input_tokens": 1500, "output_tokens": 2500}}' '{"inp' \
          >> "$ASB_USAGE_FILE" """
        worker = start(agent, shell, ASB_AGENT="codex")
        tasks = [await bus.submit(text) for text in HOSTILE]
        await bus.ended(*tasks, within=30)
        worker.send_signal(signal.SIGTERM)
        await wait_until(lambda: bus.events("worker.left"), within=10, what="it says goodbye")
    results = {e.data.task: e for e in bus.events("task.completed")}
    for task, text in zip(tasks, HOSTILE, strict=True):
        event = results[task]
        assert words_of(event)["result"] == f"{text}\n\nusage: 9 9"
        assert (event.data.charged.input_tokens, event.data.charged.output_tokens) == (1500, 2500)
    assert [e.data.agent for e in bus.events("worker.joined")] == ["codex"]
    assert not (tmp_path / "hacked").exists()
    assert await bus.dead() == []


@pytest.mark.parametrize("shell", SHELLS)
async def test_what_a_worker_in_plain_sh_answers_never_becomes_usage(
    bus: Bus, start: Start, shell: str
) -> None:
    forged = ["usage: 1000000 4", '{"usage": {"input_tokens": 1000000}}']
    async with running(bus.host()):
        start("cat", shell)
        tasks = [await bus.submit(text) for text in forged]
        state = await bus.ended(*tasks, within=20)
    for event in bus.events("task.completed"):
        assert event.data.charged.estimated
    assert sum(state.outcomes[task].tokens for task in tasks) < 10_000
    assert await bus.dead() == []


async def test_a_command_that_fails_or_says_nothing_of_usage_is_reported_so(
    bus: Bus, start: Start
) -> None:
    async with running(bus.host()):
        start("read text; [ \"$text\" = good ] || { echo broken >&1; printf '\\377'; exit 3; }")
        good = await bus.submit("good")
        bad = await bus.submit("bad", max_attempts=1)
        state = await bus.ended(good, bad, within=20)
    assert state.outcomes[good].status == "completed"
    assert state.outcomes[bad].status == "failed"
    [failed] = bus.events("task.failed")
    assert text_of(failed, "error").splitlines()[:2] == ["exit code 3", "broken"]
    [completed] = bus.events("task.completed")
    assert completed.data.charged.estimated  # nobody knows: the hold is charged
    assert await bus.dead() == []


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_second_shell_worker_of_a_name_is_refused_and_ends(
    bus: Bus, start: Start, shell: str
) -> None:
    async with running(bus.host()):
        start("cat", shell)
        await wait_until(lambda: bus.client.call("GET", bus.keys.worker("w1")))
        second = start("cat", shell)
        await wait_until(lambda: second.poll() is not None, within=20, what="it ends")
        task = await bus.submit("hello")
        await bus.ended(task, within=20)
    assert second.returncode == 1
    [joined] = bus.events("worker.joined")
    [refused] = bus.events("worker.refused")
    assert refused.data.holder == joined.data.session
    assert bus.events("worker.lost", "worker.left") == []


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_killed_shell_worker_has_its_name_back_at_once(
    bus: Bus, start: Start, shell: str
) -> None:
    async with running(bus.host()):
        first = start("cat", shell)
        shown = await wait_until(lambda: bus.client.call("GET", bus.keys.worker("w1")))
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(timeout=10)
        start("cat", shell)
        await wait_until(lambda: len(bus.events("worker.joined")) == 2, within=20)

        async def own() -> bool:
            return await bus.client.call("GET", bus.keys.worker("w1")) not in (None, shown)

        await wait_until(own, within=20)
        task = await bus.submit("hello")
        await bus.ended(task, within=20)
    assert bus.events("worker.refused") == []
    [lost] = bus.events("worker.lost")
    assert text_of(lost, "evidence").endswith(f"its process {first.pid} is gone")


async def test_a_worker_with_an_intake_of_its_own_uses_it(bus: Bus, start: Start) -> None:
    async with running(bus.host()):
        await bus.tell("intake.opened", name="w1")
        start("cat", ASB_DOOR="w1")
        task = await bus.submit("hello")
        await bus.ended(task, within=20)
    [event] = bus.events("task.completed")
    assert event.source == bus.keys.intake("w1")


async def test_the_three_commands_of_the_manual_are_a_worker(bus: Bus) -> None:
    """As they stand in ops/redis-cli.md, with the test's keys and the entry's own values."""
    manual = (SCRIPT.parents[1] / "redis-cli.md").read_text(encoding="utf-8")
    block = manual.partition("in three commands")[2].partition("```sh\n")[2].partition("```")[0]
    join, take, complete = [line for line in block.splitlines() if line.startswith("redis-cli ")]

    def run(line: str) -> list[str]:
        line = line.replace("asb:", f"{bus.keys.namespace}:").replace("60000", "5000")
        words = [*command(bus.url), *shlex.split(line)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.splitlines()

    async with running(bus.host()):
        [session] = run(join)
        task = await bus.submit("write a haiku")

        async def dispatched() -> int:
            return int(await bus.client.call("XLEN", bus.keys.inbox("w1")))

        await wait_until(dispatched, what="an entry in the inbox")
        parts = run(take)
        entry = dict(zip(parts[2::2], parts[3::2], strict=False))
        assert (entry["task"], entry["text"], entry["session"]) == (task, "write a haiku", session)
        own = complete.replace("TASK", task).replace("SESSION", session)
        run(own.replace("ATTEMPT", entry["attempt"]))
        state = await bus.ended(task)
    assert state.outcomes[task].status == "completed"
    assert state.outcomes[task].tokens == 4_000


async def test_the_usage_commands_of_the_manual_work_as_they_stand(bus: Bus, cli: Cli) -> None:
    manual = (SCRIPT.parents[1] / "redis-cli.md").read_text(encoding="utf-8")
    block = manual.partition("## Report usage")[2].partition("```sh\n")[2].partition("```")[0]
    async with running(bus.host()):
        for line in block.splitlines():
            cli(*shlex.split(line)[1:])
        await wait_until(lambda: len(bus.events("usage.recorded")) == 2, what="both on the log")
    assert [e.data.charged.tokens for e in bus.events("usage.recorded")] == [4_000, 4_000]
