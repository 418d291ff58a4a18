"""The command line against a running bus: submit, see, wait, change, stop, resume."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from services.store.client import SyncClient
from services.store.embedded import start
from tests.e2e.cli import AGENT, ASB, Process, Up, asb, environment
from tests.ports import free_port
from tests.wait import wait_blocking


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    """A bus with two workers that run a real command."""
    folder = tmp_path_factory.mktemp("bus")
    (folder / "agent.py").write_text(AGENT)
    command = ("--workers=2", "--", sys.executable, str(folder / "agent.py"))
    up = Up(folder, *command).start()
    yield up
    up.end()


@pytest.fixture
def idle(tmp_path: Path) -> Generator[Up]:
    """A bus without workers, of the test's own."""
    up = Up(tmp_path).start()
    yield up
    up.end()


def test_submitted_and_done_by_a_real_command(bus: Up) -> None:
    done = bus.run("submit", "Write documentation for the API", "Fix the crash", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert {end["status"] for end in ends} == {"completed"}
    assert {end["tokens"] for end in ends} == {1200}
    assert any(end["result"].startswith("did: Fix the crash") for end in ends)
    status = bus.ask("status")
    assert status["tasks"]["completed"] >= 2
    assert {w["worker"] for w in status["workers"]} == {"worker1", "worker2"}


def test_one_result_is_shown_whole(bus: Up) -> None:
    done = bus.run("submit", "Say hello", "--wait")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[1].startswith(f"{lines[0]}  completed  by worker")
    assert lines[2] == "did: Say hello"


def test_an_id_is_taken_once(bus: Up) -> None:
    first = bus.run("submit", "--id", "once", "Do it once", "--wait")
    again = bus.run("submit", "--id", "once", "Do it once", "--wait")
    assert first.stdout == again.stdout
    assert first.returncode == again.returncode == 0
    other = bus.run("submit", "--id", "once", "Something else", "--wait")
    assert other.returncode == 1
    assert "refused" in other.stdout
    assert "other content" in other.stdout
    submitted = [e for e in bus.ask("task", "once")["events"] if e["type"] == "task.submitted"]
    assert len(submitted) == 1


def test_what_only_the_engine_can_refuse(bus: Up) -> None:
    done = bus.run("submit", "--after", "nobody", "Wait for nobody", "--wait")
    entry = done.stdout.splitlines()[0]
    assert done.returncode == 1
    assert "after names task 'nobody', which is unknown" in done.stdout
    reported = bus.run("task", entry)
    assert reported.returncode == 1
    assert "was refused: after names task 'nobody'" in reported.stderr
    assert bus.run("task", "nothing").returncode == 1


def test_what_only_the_engine_can_refuse_is_said_without_waiting_for_the_end(bus: Up) -> None:
    lost = bus.run("submit", "--after", "nobody", "Wait for nobody")
    assert lost.returncode == 1
    assert "was refused: after names task 'nobody'" in lost.stderr
    assert bus.run("submit", "--id", "reported", "Say it").returncode == 0
    assert bus.run("submit", "--id", "reported", "Say it").returncode == 0
    other = bus.run("submit", "--id", "reported", "Say something else")
    assert other.returncode == 1
    assert "hint: another --id" in other.stderr


def test_a_dead_letter_that_is_refused_again_is_an_error(bus: Up) -> None:
    done = bus.run("submit", "--after", "no-one", "Wait for no one")
    assert done.returncode == 1
    assert done.stdout == ""  # whoever reads ids gets none of what does not exist
    entry = bus.ask("deadletter")[-1]["id"]
    again = bus.run("deadletter", "retry", entry)
    assert again.returncode == 1
    assert "was refused again: after names task 'no-one'" in again.stderr
    assert bus.run("deadletter", "retry", again.stdout.strip(), "--set", "after=").returncode == 0


def test_waiting_says_why_nothing_happens(bus: Up) -> None:
    wait = subprocess.Popen(
        [*ASB, "submit", f"--data-dir={bus.data}", "--worker=absent", "--id=idle", "x", "--wait"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert wait.stderr is not None
    assert wait.stderr.readline().startswith("idle waits: worker absent has not joined")
    wait.send_signal(signal.SIGINT)
    _, said = wait.communicate(timeout=10)
    assert wait.returncode == 1
    assert "the tasks go on" in said
    assert bus.run("cancel", "idle").returncode == 0


def test_an_entry_at_an_intake_nobody_opened_names_the_way_to_open_it(bus: Up) -> None:
    with start(bus.data) as joined, contextlib.closing(SyncClient(joined.url)) as client:
        entry = client.call("XADD", "asb:intake:stranger", "*", "type", "task.submitted").decode()
        reported = bus.run("task", entry)
        client.call("DEL", "asb:intake:stranger")
    assert reported.returncode == 1
    assert "stands at the intake asb:intake:stranger, which nobody opened" in reported.stderr
    assert "`asb acl stranger`" in reported.stderr


def test_progress_of_foreign_work_is_shown_as_such(bus: Up) -> None:
    document = '{"agent":"ada","task":"dig","status":"in_progress","progress":40}'
    done = bus.run(
        "redis", "--command", "set", "--key", "asb:progress:ada:dig", "--value", document
    )
    assert done.returncode == 0, done.stderr
    wait_blocking(lambda: bus.run("task", "dig").returncode == 0, within=10)
    reported = bus.run("task", "dig")
    assert "progress of foreign work" in reported.stderr
    assert '"progress": 40' in reported.stdout
    assert bus.ask("task", "dig")["progress"][0]["agent"] == "ada"


def test_a_watched_status_ends_well_and_outlives_a_redis_that_goes_away(tmp_path: Path) -> None:
    up = Up(tmp_path).start()
    watch = subprocess.Popen(
        [*ASB, "status", f"--data-dir={up.data}", "--watch", "0.2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline()
        assert up.stop() == 0
        while not (line := watch.stderr.readline()).strip():
            pass
        assert "waiting for it" in line
        up.start()
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=10)
        assert watch.returncode == 0
    finally:
        watch.kill()
        up.end()


def test_small_things_a_newcomer_asks_for(bus: Up) -> None:
    assert bus.run("--version").stdout.startswith("asb ")
    assert "hint: correct it\n" in bus.run("submit", "").stderr
    assert "hint: `asb tasks` lists" in bus.run("cancel", "nope").stderr
    with contextlib.closing(SyncClient(bus.url)) as client:
        client.call("XADD", "asb:intake", "*", "type", "nonsense", "data", "{}")
        wait_blocking(
            lambda: client.call("XLEN", "asb:deadletter"), within=10, what="it is refused"
        )
    assert json.loads(bus.run("deadletter", "list", "--json").stdout)


def test_history_of_a_task(bus: Up) -> None:
    done = bus.run("submit", "--id", "story", "--priority", "high", "Fix the login bug", "--wait")
    assert done.returncode == 0
    text = bus.run("task", "story").stdout
    for part in ("TASK story", "Priority:   high", "Route:", "Candidates:", "attempt 1 of 3"):
        assert part in text
    assert "Tokens:     1,200 (input 1,000, output 200)" in text
    types = [event["type"] for event in bus.ask("task", "story")["events"]]
    assert types[:3] == ["task.submitted", "task.delegated", "task.dispatched"]
    assert types[-1] == "task.completed"


def test_a_failed_task_is_seen_and_retried(bus: Up) -> None:
    done = bus.run("submit", "--worker", "nobody", "--id", "gone", "Never done")
    assert done.stdout == "gone\n"
    wait_blocking(lambda: bus.run("tasks", "--waiting").stdout, within=10)
    waiting = bus.run("tasks", "--waiting").stdout
    assert "worker nobody has not joined" in waiting
    assert "worker nobody has not joined" in bus.run("task", "gone").stdout
    assert bus.run("retry", "gone").returncode == 1
    assert bus.run("cancel", "gone").stdout == "gone  cancelled\n"
    assert bus.run("cancel", "gone").returncode == 1
    again = bus.run("retry", "gone")
    assert again.returncode == 0, again.stderr
    story = bus.ask("task", again.stdout.strip())
    assert story["text"] == "Never done"
    assert json.loads(json.dumps(story["events"][0]["data"]))["retry_of"] == "gone"
    assert bus.run("cancel", again.stdout.strip()).returncode == 0


def test_pause_and_resume(bus: Up) -> None:
    assert bus.run("pause", "worker1").returncode == 0
    shown = {w["worker"]: w["status"] for w in bus.ask("status")["workers"]}
    assert shown == {"worker1": "PAUSED", "worker2": "IDLE"}
    assert bus.run("resume", "worker1").returncode == 0
    refused = bus.run("pause", "nobody")
    assert refused.returncode == 1
    assert "hint:" in refused.stderr


def test_screens_events_doctor_config_and_replay(bus: Up) -> None:
    assert bus.run("submit", "One more", "--wait").returncode == 0
    status = bus.run("status").stdout
    assert status.startswith("CONCURRENT TASK MANAGER STATUS\n" + "=" * 80 + "\n")
    assert bus.run("metrics").stdout.startswith("TOKEN USAGE & COST METRICS\n")
    assert bus.run("throttle").stdout.startswith("Global Throttle Status: 🟢 NONE\n")
    assert {row["scope"] for row in bus.ask("throttle")["windows"]} >= {"global"}
    assert bus.ask("metrics")["total"]["tasks"] >= 1
    done = bus.run("events", "--json", "--type", "task.completed")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["type"] for event in events} == {"task.completed"}
    since = events[-1]["log_id"]
    assert since not in bus.run("events", "--since", since).stdout
    assert bus.run("doctor").returncode == 0
    assert bus.ask("doctor")["good"] is True
    assert "tasks.lease_s" in bus.run("config").stdout
    verified = bus.run("replay", "--verify")
    assert verified.returncode == 0, verified.stdout
    first = json.loads(bus.run("events", "--json", "--since", "0").stdout.splitlines()[0])
    assert "Total completed: 0" in bus.run("replay", "--until", first["log_id"]).stdout


def test_manager_prompt_and_batch(bus: Up) -> None:
    lines = "add Write a short guide\nstatus\ndistribute\nnonsense\nquit\n"
    done = bus.run("manager", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Added ")
    assert "CONCURRENT TASK MANAGER STATUS" in done.stdout
    assert "Since the last look:" in done.stdout
    assert "nonsense? one of" in done.stderr
    assert bus.run("manager", "Task 1", "Task 2").stdout.count("Task ") >= 2


# -- what is refused at once -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("",), "", "text is empty"),
        (("  \n ",), "", "text is empty"),
        (("bell \x07",), "", "control character U+0007"),
        (("x", "--kind", "cooking"), "", "kind 'cooking' is unknown"),
        (("x", "--priority", "urgent"), "", "priority 'urgent' is unknown"),
        (("x", "--agent", "a b"), "", "agent 'a b'"),
        (("x", "--timeout", "0"), "", "timeout_s must be from 1"),
        (("-",), "a" * 10_000_000, "10,000,000 bytes, more than 262,144"),
        (("-",), "good\n{broken\n", "line 2: not valid JSON"),
        (("-",), b"good\nbad \xff\n", "line 2: not UTF-8"),
        (("-",), '{"text": "x", "id": "a"}\n{"text": "y", "id": "a"}\n', "line 2: id 'a' stands"),
        (("-",), '{"priority": "high"}\n', "missing required field `text`"),
        (("--file", "not-there.txt"), "", "cannot read not-there.txt"),
    ],
)
def test_bad_input_is_refused_at_once(
    idle_module: Up, arguments: tuple[str, ...], stdin: str | bytes, says: str
) -> None:
    done = idle_module.run("submit", *arguments, stdin=stdin)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def idle_module(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    """A bus without workers that takes nothing in, for tests of what is refused."""
    up = Up(tmp_path_factory.mktemp("idle")).start()
    yield up
    assert up.ask("status")["tasks"]["submitted"] == 0
    up.end()


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "x", "--on-error", "perhaps"),
        ("up", "--workers", "2"),
        ("up", "--", "cat"),
        ("worker", "w1"),
        ("worker", "w1", "--driver", "magic", "--", "cat"),
        ("service", "nothing"),
        ("tasks", "--status", "lost"),
        ("events", "--type", "no.such"),
        ("events", "--since", "yesterday"),
        ("status", "--redis"),
        ("nonsense",),
    ],
)
def test_wrong_use_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = asb(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.strip()


def test_skip_sends_the_good_lines(idle: Up) -> None:
    lines = 'first\n{"text": ""}\n\n{"text": "second", "priority": "high", "own": 1}\n{oops\n'
    done = idle.run("submit", "-", "--on-error", "skip", stdin=lines)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "line 2: text is empty" in done.stderr
    assert "line 5: not valid JSON" in done.stderr
    wait_blocking(lambda: idle.ask("status")["tasks"]["submitted"] == 2, within=10)
    texts = {task["text"]: task["priority"] for task in idle.ask("tasks")}
    assert texts == {"first": "normal", "second": "high"}


def test_thousands_at_once(idle: Up) -> None:
    lines = "".join(f"Implement feature {n}\n" for n in range(3000))
    done = idle.run("submit", "--id", "bulk", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[::2999] == ["bulk-1", "bulk-3000"]
    assert idle.run("submit", "--id", "bulk", "-", stdin=lines).returncode == 0
    wait_blocking(lambda: idle.ask("status")["tasks"]["submitted"] == 3000, within=20)
    shown = idle.run("tasks", "--limit", "5")
    assert len(shown.stdout.splitlines()) == 6
    assert "2,995 more" in shown.stderr


# -- Redis away --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("submit", "x"),
        ("tasks",),
        ("doctor",),
        ("worker", "w", "--", "cat"),
    ],
)
def test_no_bus_is_an_error_with_a_hint(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = asb(f"--data-dir={tmp_path}", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "no bus is running" in done.stderr
    assert f"hint: `asb --data-dir={tmp_path} up` starts one" in done.stderr


@pytest.mark.parametrize("arguments", [("status",), ("submit", "x"), ("doctor",), ("up",)])
def test_redis_down_is_an_error_with_a_hint(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = asb(*arguments, "--redis", "redis://127.0.0.1:1/0", cwd=tmp_path)
    assert done.returncode == 1
    assert "no Redis answers" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_sees_that_no_engine_runs(tmp_path: Path) -> None:
    with start(tmp_path / "data", free_port()) as server:
        redis = f"--redis={server.url}"
        entry = asb("submit", redis, "x", cwd=tmp_path).stdout.strip()
        late = asb("task", redis, entry, cwd=tmp_path)
        assert "waits at the intake" in late.stderr
        old = asb("doctor", redis, cwd=tmp_path)
        assert old.returncode == 1
        assert "no engine runs" in old.stdout
        assert "start `asb up`" in asb("status", redis, cwd=tmp_path).stderr


def test_a_repeat_at_the_intake_is_no_sign_of_a_missing_engine(idle: Up) -> None:
    for _ in range(2):
        assert idle.run("submit", "--id", "again", "The same").returncode == 0
    done = idle.run("doctor")
    assert done.returncode == 0, done.stdout
    assert idle.run("status").stderr == ""


# -- start, stop, resume -------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stop_leaves_nothing_and_a_second_start_resumes(tmp_path: Path, sign: int) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    up = Up(tmp_path, "--workers=1", "--", sys.executable, str(tmp_path / "agent.py"))
    try:
        up.start()
        assert up.run("submit", "--id", "before", "Before the stop", "--wait").returncode == 0
        assert up.stop(sign) == 0, up.said
        wait_blocking(lambda: up.processes() == [], within=5, what="no process is left")
        up.start()
        status = up.ask("status")
        assert status["tasks"]["completed"] == 1
        assert up.run("submit", "--id", "before", "Before the stop", "--wait").returncode == 0
        assert up.run("submit", "After the stop", "--wait").returncode == 0
        assert up.ask("status")["tasks"]["completed"] == 2
        assert up.stop(sign) == 0
    finally:
        up.end()


def test_a_second_up_joins_with_workers_of_free_names(bus: Up) -> None:
    wait_blocking(lambda: "worker2" in bus.run("status").stdout, within=30)
    second = subprocess.Popen(
        [*ASB, "up", f"--data-dir={bus.data}", "--port=1", "--workers=1", "--", "cat"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        assert second.stderr is not None
        assert second.stderr.readline() == (
            f"joins the Redis that runs already at {bus.url}; --port 1 ignored\n"
        )
        assert second.stderr.readline().endswith("new ones: worker3\n")
        wait_blocking(lambda: "worker3" in bus.run("status").stdout, within=20)
    finally:
        second.terminate()
        assert second.wait(timeout=20) == 0
        assert second.stderr is not None
        second.stderr.close()
    alive = {w["worker"] for w in bus.ask("status")["workers"] if w["status"] != "LEFT"}
    assert alive == {"worker1", "worker2"}


def test_a_killed_redis_is_revived(tmp_path: Path) -> None:
    up = Up(tmp_path, "--workers=1", "--", "cat")
    try:
        up.start()
        assert up.run("submit", "--id", "one", "one", "--wait").returncode == 0
        with start(up.data) as joined:
            pid = joined.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_blocking(lambda: "starting it again" in up.said, within=10)
        wait_blocking(lambda: up.run("status").returncode == 0, within=20)
        assert up.run("submit", "--id", "two", "two", "--wait").returncode == 0
        assert up.ask("status")["tasks"]["completed"] == 2
        assert up.stop() == 0
    finally:
        up.end()


def test_services_alone_share_one_bus(tmp_path: Path) -> None:
    with start(tmp_path / "data", free_port()) as server:
        redis = f"--redis={server.url}"
        rest = ("inbox", "throttle", "progress", "usage", "reports", "snapshots")
        parts: list[tuple[str, ...]] = [
            ("service", "engine"),
            ("service", "engine"),
            ("service", *rest),
        ]
        parts.append(("worker", "w1", "--driver", "command", redis, "--", "cat"))
        running = [Process(tmp_path, part[0], redis, *part[1:]) for part in parts]
        try:
            for part in running:
                part.says("Ctrl-C stops")
            done = asb("submit", redis, "Echo this", "--wait", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "Echo this"
        finally:
            for part in running[::-1]:
                part.process.terminate()
            codes = [part.process.wait(timeout=20) for part in running[::-1]]
        assert codes == [0, 0, 0, 0]


def test_the_seeds_command_and_names_on_a_named_redis(idle: Up) -> None:
    done = asb("manager", "--redis", idle.url, "Task 1", "Task 2", cwd=idle.folder)
    assert done.returncode == 1  # nobody is there to do them; they stay
    assert "asb up --workers 3" in done.stderr
    assert "Tasks in queue: 2" in done.stdout
    code = (
        "from services.token_throttle import TokenThrottle\n"
        "from services.concurrent_task_manager import ConcurrentTaskManager\n"
        f"TokenThrottle({idle.url!r}).record_usage('w1', 1500, 0.0045, 'sonnet')\n"
        f"print(ConcurrentTaskManager({idle.url!r}).add_task('Fix it', priority='high'))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=idle.folder, env=environment(),
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    wait_blocking(lambda: idle.ask("status")["tasks"]["submitted"] == 3, within=10)
    assert idle.ask("status")["tokens_used"] == 1500
    assert idle.ask("status")["cost"] == "$0.0045"
    assert idle.ask("tasks")[0]["task"] == said.stdout.strip()
