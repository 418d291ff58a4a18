"""``asb redis`` as agents use it: the seed's own lines, and each as the redis-cli it stands for."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from events.envelope import beside
from services.cli.main import main
from tests.e2e.cli import ASB, ROOT, environment
from tests.integration.test_engine_ground import Bus, running
from tests.servers import RedisServer
from tests.wait import wait_blocking, wait_until

SEED = (ROOT / "tests/data/agent-progress-tracking.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", SEED, re.DOTALL)
SETS = [block for block in BLOCKS if "--command set" in block]
TASKS = {
    "claude:CL-102": ("completed", 100, 5000),
    "gemini:GM-004": ("in_progress", 60, 2500),
    "codex:migration": ("in_progress", 35, 18_000),
    "{agent}:{task}": ("unknown", 75, 4000),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """A server for the seed's own namespace, ``asb``."""
    server = RedisServer(tmp_path_factory.mktemp("redis-command")).start()
    yield server
    server.stop()


@pytest.fixture
def server(own: RedisServer) -> RedisServer:
    own.call("FLUSHALL")
    own.call("CONFIG", "SET", "notify-keyspace-events", "K$gx")
    return own


Run = Callable[..., "Done"]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(server: RedisServer, capfd: pytest.CaptureFixture[str]) -> Run:
    """``asb redis`` to its end, in this process."""

    def run_it(*arguments: str, namespace: str = "asb", url: str = "") -> Done:
        capfd.readouterr()
        options = [f"--redis={url or server.url}", f"--namespace={namespace}"]
        with pytest.raises(SystemExit) as ended:
            main(["redis", *options, *arguments])
        sys.stdout.flush()
        said = capfd.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run_it


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``asb`` is a command."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "asb"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(ASB)} "$@"\n')
    program.chmod(0o755)
    return {**environment(), "PATH": f"{folder}:{os.environ['PATH']}"}


def verbatim(server: RedisServer, shell: dict[str, str], block: str) -> str:
    """A shell block, exactly as it stands in the seed; its output."""
    done = subprocess.run(
        ["bash", "-ec", block],
        capture_output=True,
        text=True,
        env={**shell, "ASB_REDIS_URL": server.url},
        cwd=server.folder,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plainly(server: RedisServer, block: str) -> None:
    """The same as plain redis-cli (or its bytes, where there is no redis-cli)."""
    words = shlex.split(block, comments=True)
    key, value = words[words.index("--key") + 1], words[words.index("--value") + 1]
    program = shutil.which("redis-cli")
    if program is None:
        assert server.call("SET", key, value) == b"OK"
        return
    done = subprocess.run(
        [program, "-p", str(server.port), "SET", key, value], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"OK"


def document(block: str) -> dict[str, Any]:
    words = shlex.split(block, comments=True)
    return json.loads(words[words.index("--value") + 1])


def test_the_seed_has_the_lines_that_are_tested_here() -> None:
    assert len(SETS) == 4
    assert sum("--command publish" in block for block in BLOCKS) == 1
    assert sum(block.count("--command") for block in BLOCKS) == 8


@pytest.mark.parametrize("notify", ["K$gx", ""], ids=["reported", "scanned"])
@pytest.mark.parametrize("way", ["asb", "redis-cli"])
@pytest.mark.anyio
async def test_the_documents_of_the_seed_are_taken_as_they_stand(
    server: RedisServer, shell: dict[str, str], run: Run, way: str, notify: str
) -> None:
    server.call("CONFIG", "SET", "notify-keyspace-events", notify)
    bus = Bus(server.url, "asb")
    async with running(bus.host()):
        for block in SETS:
            if way == "asb":
                said = await anyio.to_thread.run_sync(verbatim, server, shell, block)
                assert said == "OK\n"
            else:
                plainly(server, block)

        def views() -> dict[str, dict[str, Any]]:
            found = {name: json.loads(server.call("GET", f"asb:progress:{name}")) for name in TASKS}
            return found if all("asb" in view for view in found.values()) else {}

        shown = await wait_until(views, 40, "four views")
    for name, (status, percent, tokens) in TASKS.items():
        known = shown[name].pop("asb")
        assert (known["status"], known["progress"], known["tokens_total"]) == (
            *(status, percent, tokens),
        )
    assert sorted(map(json.dumps, shown.values())) == sorted(json.dumps(document(b)) for b in SETS)
    events = bus.events("progress.updated")
    assert sorted(f"{e.data.agent}:{e.data.task}" for e in events) == sorted(TASKS)
    assert sum(e.data.charged.tokens for e in events) == 29_500
    assert {e.data.charged.model for e in events} == {
        *("gpt-4", "claude-3", "text-embedding-ada-002", ""),
    }
    keys = run("--command", "keys", "--pattern", "asb:progress:*").stdout
    assert keys.splitlines() == sorted(f"asb:progress:{name}" for name in TASKS)
    usage = await wait_until(lambda: server.call("GET", "asb:agents:token:usage"), 5)
    assert json.loads(usage)["total"]["tokens_used"] == 29_500
    await bus.close()


def test_what_was_set_is_there_at_once_with_no_service_running(
    server: RedisServer, shell: dict[str, str], run: Run
) -> None:
    verbatim(server, shell, SETS[1])
    done = run("--command", "get", "--key", "asb:progress:claude:CL-102")
    assert json.loads(done.stdout) == document(SETS[1])
    assert server.call("XLEN", "asb:intake") == 1


@pytest.mark.anyio
async def test_what_was_set_with_no_service_running_is_taken_once(
    server: RedisServer, run: Run
) -> None:
    for value in ('{"status": "working", "tokens_used": 7}', "done"):
        assert run("--command", "set", "--key", "asb:progress:a:t", "--value", value).stdout
    bus = Bus(server.url, "asb")
    for _ in range(2):
        async with running(bus.host()):
            await wait_until(
                lambda: b'"status":"done","asb"' in server.call("GET", "asb:progress:a:t"), 10
            )
    reported = [bytes(beside(e).words["document"]) for e in bus.events("progress.updated")]
    assert reported == [b'{"status": "working", "tokens_used": 7}', b'"done"']
    await bus.close()


def test_a_missing_key_is_an_error_on_stderr(run: Run) -> None:
    for command in ("get", "ttl", "del"):
        done = run("--command", command, "--key", "asb:progress:x:y")
        assert (done.returncode, done.stdout) == (1, "")
        assert "asb:progress:x:y does not exist" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("asb:progress:a:t", "{broken", "not JSON"),
        ("asb:progress:a:t", "two; words", "not JSON"),
        ("asb:progress:a", "{}", "no task"),
        ("asb:progress::t", "{}", "no agent"),
        ("asb:events", "x", "services"),
        ("asb:intake", "x", "services"),
        ("asb:throttle", "x", "services"),
        ("asb:inbox:w1", "x", "services"),
        ("{asb:events}:snapshot", "x", "internal"),
        ("team1:progress:a:t", "{}", "not a key of this bus"),
    ],
)
def test_what_may_not_be_set_is_refused_with_the_reason(
    server: RedisServer, run: Run, key: str, value: str, said: str
) -> None:
    done = run("--command", "set", "--key", key, "--value", value)
    assert done.returncode == 1
    assert said in done.stderr
    assert server.call("DBSIZE") == 0


def test_other_keys_of_the_namespace_are_plain_keys(run: Run) -> None:
    run("--command", "set", "--key", "asb:notes", "--value", "any text")
    assert run("--command", "get", "--key", "asb:notes").stdout == "any text\n"
    assert run("--command", "ttl", "--key", "asb:notes").stdout == "-1\n"
    assert run("--command", "del", "--key", "asb:notes").stdout == "1\n"
    for command in ("del", "xadd"):
        done = run("--command", command, "--key", "asb:events", "--value", "{}")
        assert (done.returncode, done.stdout) == (1, "")


def test_an_entry_for_the_intake_is_added_field_by_field(server: RedisServer, run: Run) -> None:
    value = '{"type": "usage.recorded", "agent": "codex", "usage": {"input_tokens": 5}}'
    done = run("--command", "xadd", "--key", "asb:intake", "--value", value)
    ((entry_id, fields),) = server.call("XRANGE", "asb:intake", "-", "+")
    assert done.stdout == f"{entry_id.decode()}\n"
    assert fields[:4] == [b"type", b"usage.recorded", b"agent", b"codex"]
    assert json.loads(fields[5]) == {"input_tokens": 5}


def test_a_key_of_the_seed_belongs_to_another_bus_than_ours(server: RedisServer, run: Run) -> None:
    done = run("--command", "set", "--key", "asb:progress:a:t", "--value", "{}",
               namespace="team1")  # fmt: skip
    assert done.returncode == 1
    assert "team1:" in done.stderr
    done = run("--command", "set", "--key", "team1:progress:a:t", "--value", "{}",
               namespace="team1")  # fmt: skip
    assert done.stdout == "OK\n"
    assert server.call("XLEN", "team1:intake") == 1


def test_used_wrongly_is_exit_code_2(run: Run) -> None:
    for arguments in (("get",), ("publish",), ("subscribe",), ("flushall",), ("set", "--key", "k")):
        done = run("--command", *arguments)
        assert done.returncode == 2, done
        assert done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_subscriber_sees_what_is_published_a_line_a_message_until_stopped(
    server: RedisServer, shell: dict[str, str], tmp_path: Path, stop: int
) -> None:
    subscribe = next(b for b in BLOCKS if "--command subscribe" in b).splitlines()[-1]
    heard, said = tmp_path / "heard", tmp_path / "said"
    with heard.open("wb") as out, said.open("wb") as err:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {subscribe}"],
            stdout=out,
            stderr=err,
            env={**shell, "ASB_REDIS_URL": server.url},
            cwd=tmp_path,
        )
    wait_blocking(lambda: b"listening" in said.read_bytes(), 20)
    publish = next(b for b in BLOCKS if "--command publish" in b)
    assert verbatim(server, shell, publish) == "1\n"
    server.call("PUBLISH", "asb:tokens:usage", "plain text")
    wait_blocking(lambda: heard.read_text().count("\n") == 2, 10)
    process.send_signal(stop)
    assert process.wait(10) == 0
    first, second = map(json.loads, heard.read_text().splitlines())
    assert first["channel"] == "asb:tokens:report"
    assert first["message"]["agents"]["claude"]["cost"] == "$0.90"
    assert second == {"channel": "asb:tokens:usage", "message": "plain text"}


def test_keys_come_sorted_once_each_and_without_holding_up_the_server(
    server: RedisServer, run: Run
) -> None:
    server.call("EVAL", "for i=1,3000 do redis.call('SET','asb:progress:a:'..i,1) end", 0)
    server.call("CONFIG", "RESETSTAT")
    lines = run("--command", "keys", "--pattern", "asb:progress:*").stdout.splitlines()
    assert lines == sorted(f"asb:progress:a:{i}" for i in range(1, 3001))
    stats = server.call("INFO", "commandstats")
    assert b"cmdstat_keys" not in stats
    assert b"cmdstat_scan" in stats


def test_a_document_of_an_agent_that_may_only_write_its_key_is_set(
    server: RedisServer, run: Run
) -> None:
    allowed = ("~asb:progress:claude:*", "+get", "+set", "+multi", "+exec", "+client")
    server.call("ACL", "SETUSER", "cl", "on", ">pw", "resetchannels", *allowed)
    url = server.url.replace("redis://", "redis://cl:pw@")
    key = ("--key", "asb:progress:claude:t")
    done = run("--command", "set", *key, "--value", "started", url=url)
    server.call("ACL", "DELUSER", "cl")
    assert done.stdout == "OK\n", done.stderr
    assert server.call("GET", "asb:progress:claude:t") == b'"started"'
    assert server.call("EXISTS", "asb:intake") == 0
