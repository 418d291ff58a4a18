"""Budgets survive hands, as users start it: `asb up`, redis-cli, `asb correct`, doctor, replay."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.client.follow import INDEX_PAGE
from tests.e2e.cli import Up
from tests.wait import wait_blocking

pytestmark = [
    pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli"),
    pytest.mark.timeout(600),
]
HUGE = 5_000_000_000
BOUND = 2_000_000
# What it was asked for decides where it reports an impossible figure.
AGENT = f"""\
text=$(cat)
usage='{{"usage": {{"input_tokens": {HUGE}, "output_tokens": 500}}}}'
case "$text" in
  file) printf '%s\\n' "$usage" > "$ASB_USAGE_FILE"; echo '{{"result": "done"}}' ;;
  stdout) printf '%s\\n' "$usage" ;;
  *) echo '{{"result": "done", "usage": {{"input_tokens": 100, "output_tokens": 20}}}}' ;;
esac
"""


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Up]:
    (tmp_path / "agent.sh").write_text(AGENT)
    command = ("--workers=1", "--format=json", "--", "sh", str(tmp_path / "agent.sh"))
    up = Up(tmp_path, *command).start()
    yield up
    up.end()


def redis_cli(bus: Up, *words: str) -> str:
    where = urlsplit(bus.url)
    done = subprocess.run(
        ["redis-cli", "-h", str(where.hostname), "-p", str(where.port), *words],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def number_of(bus: Up, kind: str) -> int:
    """How many events of a type stand on the log."""
    done = bus.run("events", "--type", kind, "--limit", "100000", "--json")
    assert done.returncode == 0, done.stderr
    return len(done.stdout.splitlines())


def is_sound(bus: Up) -> None:
    """Replay gives what is live, the audit finds nothing, and every sum is the same."""
    proof = bus.run("replay", "--verify")
    assert proof.returncode == 0, proof.stdout + proof.stderr
    deep = bus.run("doctor", "--deep")
    assert deep.returncode == 0, deep.stdout + deep.stderr


@pytest.mark.parametrize("way", ["file", "stdout"])
def test_an_impossible_figure_charges_the_bound_and_a_correction_frees_the_fleet(
    bus: Up, way: str
) -> None:
    done = bus.run("submit", "--max-attempts=1", "--id=first", "--wait", way)
    assert done.returncode == 0, done.stderr
    shown = bus.ask("task", "first")
    assert (shown["tokens"], shown["disputed_tokens"]) == (BOUND, HUGE + 500 - BOUND)
    assert bus.run("submit", "--id=second", "next").returncode == 0
    waiting = bus.run("tasks", "--waiting")
    assert "second" in waiting.stdout
    for command in ("status", "metrics", "report", "doctor"):
        assert "Disputed" in (said := bus.run(command).stdout) or "disputed" in said, command
    assert "Disputed" in bus.run("task", "first").stdout
    assert "first" in bus.run("correct").stdout
    assert bus.run("correct", "first", "--tokens", "1.500", "--reason", "?").returncode == 2
    corrected = bus.run("correct", "first", "--attempt=1", "--tokens=1,500", "--reason=a slip")
    assert corrected.returncode == 0, corrected.stderr
    assert "1,500 tokens" in corrected.stdout
    assert "Nothing is disputed" in corrected.stdout
    wait_blocking(
        lambda: bus.ask("status")["tasks"]["completed"] == 2, within=60, what="second runs"
    )
    assert bus.ask("status")["tokens_used"] == 1_620
    is_sound(bus)


def test_reports_and_corrections_by_redis_cli(bus: Up) -> None:
    redis_cli(
        bus, *f"XADD asb:intake * type usage.recorded agent codex total_tokens {HUGE}".split()
    )
    wait_blocking(lambda: bool(bus.ask("correct")["disputed"]), within=30, what="it is disputed")
    (report,) = bus.ask("correct")["disputed"]
    assert (report["tokens"], report["disputed_tokens"]) == (BOUND, HUGE - BOUND)
    assert bus.run("acl", "w7").returncode == 0
    order = f"* type usage.corrected task {report['task']} tokens 12 reason mine"
    refused = redis_cli(bus, *f"XADD asb:intake:w7 {order}".split())
    wait_blocking(
        lambda: refused in redis_cli(bus, "XRANGE", "asb:deadletter", "-", "+"),
        within=30,
        what="the named stream is refused",
    )
    assert bus.ask("status")["tokens_used"] == BOUND
    redis_cli(bus, *f"XADD asb:intake {order}".split())
    wait_blocking(lambda: bus.ask("status")["tokens_used"] == 12, within=30, what="it is corrected")
    result = "* type task.completed task gone attempt 1 session 5-0 input_tokens 900"
    for _ in range(2):
        redis_cli(bus, *f"XADD asb:intake {result}".split())
    wait_blocking(lambda: bus.ask("status")["tokens_used"] == 912, within=30, what="it is charged")
    assert bus.run("policy", "plausible", "--tokens=1M", "--money=$5").returncode == 0
    assert bus.ask("status")["tokens_used"] == 912, "the second result was a repeat"
    letters = redis_cli(bus, "XRANGE", "asb:deadletter", "-", "+")
    assert letters.count("its usage was charged as foreign work") == 1
    assert bus.ask("limits")["plausible_tokens"] == 1_000_000
    is_sound(bus)


def test_limits_that_change_again_and_again_cost_no_event_per_waiting_task(bus: Up) -> None:
    assert bus.run("limits", "set", "global", "tokens", "day", "0").returncode == 0
    lines = "\n".join('{"text": "do it", "estimate_tokens": 2000}' for _ in range(3_000))
    (bus.folder / "tasks.jsonl").write_text(lines + "\n")
    assert bus.run("submit", "--file", str(bus.folder / "tasks.jsonl")).returncode == 0
    wait_blocking(
        lambda: number_of(bus, "task.deferred") == 3_000, within=90, what="each is said once"
    )
    for number in range(15):
        amount = str(100 + number)
        assert bus.run("limits", "set", "global", "tokens", "day", amount).returncode == 0
    assert number_of(bus, "policy.changed") == 17
    assert number_of(bus, "task.deferred") == 3_000
    is_sound(bus)


def test_a_task_is_over_however_much_is_told_after_its_end(bus: Up) -> None:
    """Given more corrections than a page of its index, when its submission is repeated, then the
    answer is the first one, its time included."""
    submission = ("submit", "--id=over", "--wait", "--json", "next")
    first = bus.run(*submission)
    for number in range(INDEX_PAGE + 2):
        redis_cli(bus, "XADD", "asb:intake", "*", "type", "usage.corrected", "task", "over",
                  "attempt", "1", "tokens", str(number + 1), "reason", "counted")  # fmt: skip
    wait_blocking(lambda: number_of(bus, "usage.corrected") == INDEX_PAGE + 2)
    again = bus.run(*submission)
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    before, after = json.loads(first.stdout), json.loads(again.stdout)
    assert after == {**before, "tokens": INDEX_PAGE + 2, "cost": after["cost"],
                     "cost_nanos": after["cost_nanos"]}  # fmt: skip
