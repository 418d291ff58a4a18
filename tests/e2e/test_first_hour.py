"""What a person meets in the first hour: answers that answer, and mistakes that leave nothing."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from services.concurrent_task_manager import ConcurrentTaskManager
from services.runtime.settings import load
from services.runtime.urls import redis_cli
from services.task_delegator import get_delegator
from services.token_throttle import TokenThrottle
from tests.e2e.cli import ROOT, Process, Up, environment
from tests.ports import free_port
from tests.wait import wait_blocking


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    agent = 'read -r text; case $text in fail*) echo "no such module" >&2; exit 3;; esac; echo done'
    up = Up(tmp_path_factory.mktemp("hour"), "--workers", "2", "--", "sh", "-c", agent)
    try:
        up.start()
        yield up
    finally:
        up.end()


def test_up_says_where_it_is_how_to_reach_it_and_what_to_type(bus: Up) -> None:
    port = re.findall(r":(\d+)/", bus.url)[0]
    assert f"By hand   redis-cli -p {port}" in bus.said
    assert "worker1, worker2" in bus.said
    assert 'submit "Write' in bus.said.partition("Try next")[2]


def test_up_refuses_a_command_that_does_not_exist(tmp_path: Path, bus: Up) -> None:
    done = bus.run("up", "--workers", "2", "--", "claudee")
    assert done.returncode == 1
    assert "'claudee' cannot be found" in done.stderr


def test_what_reaches_a_redis_by_hand() -> None:
    assert redis_cli("redis://127.0.0.1:6379/0") == "redis-cli"
    assert redis_cli("redis://db.example:7000/2") == "redis-cli -h db.example -p 7000 -n 2"
    assert redis_cli("rediss://u:secret@h:1/0") == "redis-cli -u rediss://u:***@h:1/0"


def test_failed_tasks_are_listed_with_their_reasons(bus: Up) -> None:
    bus.run("submit", "--id", "broken", "--max-attempts", "1", "--wait", "fail at once")
    assert "no such module" in bus.run("tasks", "--failed").stdout
    (row,) = [row for row in bus.ask("tasks", "--failed") if row["task"] == "broken"]
    assert "no such module" in row["error"]


def test_a_failed_task_says_why_on_its_own_screen_and_in_the_report(bus: Up) -> None:
    bus.run("submit", "--id", "broken-2", "--max-attempts", "1", "--wait", "fail at once")
    assert re.search(r"Reason: .*no such module", bus.run("task", "broken-2").stdout)
    failures = bus.run("report").stdout.partition("Failures")[2]
    assert "no such module" in failures
    assert "Failed:" in bus.run("status").stdout


def test_the_last_line_of_doctor_names_what_to_look_at(bus: Up) -> None:
    lines = bus.run("doctor").stdout.splitlines()
    assert re.search(r"to look at: .*|all of \d+ checks are well", lines[-1])


def test_hints_name_the_bus_that_the_environment_named(tmp_path: Path) -> None:
    environ = {**environment(), "ASB_DATA_DIR": str(tmp_path / "mine")}
    up = Process(tmp_path, "up", f"--port={free_port()}", environ=environ).says("asb is up")
    try:
        said = up.log.read_text()
        assert f"--data-dir={tmp_path / 'mine'} submit" in said
        steps = said.partition("Try next")[2].splitlines()
        worker = next(n for n, line in enumerate(steps) if " worker w1 " in line)
        assert not any("activate" in line for line in steps[worker:])
    finally:
        up.end()


def test_replay_says_its_verdict_first(bus: Up) -> None:
    done = bus.run("replay", "--verify")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0].startswith("✅ VERIFIED: ")


def test_what_was_forgotten_is_shown_nowhere_and_the_log_still_verifies(bus: Up) -> None:
    bus.run("submit", "--id", "private", "--wait", "the words of a person")
    assert "the words of a person" in bus.run("task", "private").stdout
    done = bus.run("forget", "private", "--yes", "--verify")
    assert done.returncode == 0, done.stderr
    for line in (("task", "private"), ("tasks", "--all"), ("events", "--json", "--limit", "0")):
        assert "the words of a person" not in bus.run(*line).stdout
    assert bus.run("replay", "--verify").returncode == 0


def test_setting_a_price_answers_with_the_price(bus: Up) -> None:
    done = bus.run("policy", "price", "my-model", "--input", "1.25", "--output", "5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["MODEL", "INPUT"]
    assert [line.split()[:2] for line in lines[1:]] == [["my-model", "$1.25"]]
    assert bus.run("policy").returncode == 0


def test_pause_and_resume_say_what_they_did(bus: Up) -> None:
    paused = bus.run("pause", "worker2").stdout
    assert "worker2 is paused" in paused
    assert "worker2 is paused" in (again := bus.run("pause", "worker2").stdout)
    assert "(as before)" in again
    assert bus.run("resume", "worker2").stdout == "worker2 gets tasks again\n"


def test_a_wait_with_a_limit_ends_and_the_task_goes_on(bus: Up) -> None:
    began = time.monotonic()
    done = bus.run("submit", "--id", "nobody", "--worker", "absent", "--wait-limit", "1", "x")
    assert done.returncode == 1
    assert time.monotonic() - began < 20
    assert "the tasks go on: nobody" in done.stderr
    assert "nobody" in bus.run("tasks", "--waiting").stdout
    bus.run("cancel", "nobody")


def test_a_mistyped_cancel_leaves_nothing_behind(bus: Up) -> None:
    before = len(bus.ask("deadletter"))
    for name, word in (("nope", "there is no task nope"), ("nobody-else", "no task")):
        done = bus.run("cancel", name)
        assert done.returncode == 1
        assert word in done.stderr
    bus.run("submit", "--id", "over", "--wait", "x")
    assert "has ended: it is completed" in bus.run("cancel", "over").stderr
    assert len(bus.ask("deadletter")) == before


def test_retry_says_which_dependency_it_goes_without(bus: Up) -> None:
    bus.run("submit", "--id", "first", "--worker", "absent", "x")
    bus.run("submit", "--id", "then", "--after", "first", "y")
    bus.run("cancel", "first")
    ended = ("cancelled", "failed")
    wait_blocking(lambda: bus.ask("task", "then")["status"] in ended, within=20, what="its end")
    done = bus.run("retry", "then")
    assert done.returncode == 0, done.stderr
    assert "then was to wait for first, which is cancelled" in done.stderr


def test_the_shell_worker_joins_the_redis_that_its_address_names(bus: Up, tmp_path: Path) -> None:
    script = ("sh", str(ROOT / "ops" / "examples" / "shell-worker.sh"), "by-hand", "cat")
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            script, env={**environment(), "ASB_REDIS_URL": bus.url}, stdout=out, stderr=out,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        wait_blocking(lambda: "session" in log.read_text(), within=20, what="it joins")
        assert f"worker by-hand joined {bus.url}" in log.read_text()
        wait_blocking(lambda: "by-hand" in bus.run("status").stdout, within=20, what="it is seen")
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "by-hand" not in bus.run("status").stdout
    assert "by-hand" in bus.run("status", "--all").stdout


def test_the_python_names_of_the_seed(bus: Up) -> None:
    route = get_delegator().delegate_task("Write documentation for the API")
    names = [
        "task_type",
        "agent",
        "model",
        "complexity",
        "estimated_tokens",
        "reasoning",
        "session_target",
    ]
    assert [route[name] for name in names] == [getattr(route, name) for name in names]
    settings = load({"redis_url": bus.url})
    throttler = TokenThrottle(settings=settings)
    assert throttler.allow_request("worker1", 1_000)
    refused = throttler.allow_request("worker1", 99_000_000)
    assert not refused
    assert "never fits" in refused.reason
    throttler.record_usage("worker1", 1500, 0.0045, "sonnet")
    keys = {"level", "held_tokens"}
    keys |= {
        f"{unit}_{window}" for unit in ("tokens", "cost") for window in ("hour", "day", "month")
    }
    wait_blocking(lambda: throttler.get_stats("worker1")["tokens_hour"] >= 1500, within=10,
                  what="the usage")  # fmt: skip
    assert set(throttler.get_stats()["global"]) == keys
    manager = ConcurrentTaskManager(settings=settings)
    assert manager.estimate_task_tokens("x" * 400) == 1_100
    assert manager.check_throttle_limit("worker1", 1_000)
    assert set(manager.get_throttle_stats()["workers"]["worker1"]) == keys
    assert manager.record_task_completion("worker1", "a task done elsewhere", 70)
    manager.print_status()
    manager.print_metrics()
    manager.print_throttle_status()
    manager.close()
    throttler.close()
