"""The server's clock steps under a bus as users start it: `asb up`, `asb worker`, real processes.

What the log says is judged by the audit, which forgets nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.envelope import Event, text_of
from events.keys import Keys
from projections.state import State
from services.store import rebuild
from services.store.client import SyncClient
from services.store.heartbeat import Beat, beats
from tests.budget.ground import audit_of, raw_log, say
from tests.conservation import conserved_over_http
from tests.e2e.cli import ASB, asb, environment
from tests.examples import HOUR, MINUTE, SECOND
from tests.integration.test_engine_ground import settings_for
from tests.shifted import LossyProxy, ShiftedServer
from tests.subscribers import subscriber
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

SOON_S = 60  # "within seconds", on a machine that does other things besides
KEYS = Keys("asb")
AGENT = ("sh", "-c", "cat >/dev/null; echo done")


class Ground:
    """One shifted server and the processes of a bus on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ShiftedServer(folder / "redis")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._submitted: list[str] = []

    def start(self, *arguments: str, url: str = "", **settings: str) -> subprocess.Popen[bytes]:
        """One command line of asb, running on beside the test."""
        command = [*ASB, arguments[0], f"--redis={url or self.server.url}", *arguments[1:]]
        names = {f"ASB_{name.upper()}": value for name, value in settings.items()}
        log = self.folder / f"{len(self._processes)}-{arguments[0]}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.folder,
                env={**environment(), **names}, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def asb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return asb(arguments[0], f"--redis={self.server.url}", *arguments[1:], cwd=self.folder)

    def submit(self, count: int = 1, **fields: Any) -> list[str]:
        """Tasks, submitted beside the bus; their ids."""
        found = [f"t{len(self._submitted) + n}" for n in range(count)]
        for task in found:
            data = json.dumps({"text": "fix the login form", "task": task, **fields})
            self.server.call("XADD", KEYS.main_intake, "*", "type", "task.submitted", "data", data)
        self._submitted += found
        return found

    def events(self, *kinds: str) -> list[Event]:
        with contextlib.closing(SyncClient(self.server.url)) as client:
            found = [e for events in rebuild.read_log(client, KEYS) for e in events]
        return [e for e in found if not kinds or e.type in kinds]

    def state(self) -> State:
        with contextlib.closing(SyncClient(self.server.url)) as client:
            return rebuild.rebuild(client, KEYS)

    def done(self, *tasks: str) -> bool:
        return {e.data.task for e in self.events("task.completed")} >= set(tasks)

    def wait_done(self, *tasks: str) -> None:
        wait_blocking(lambda: self.done(*tasks), SOON_S, f"{len(tasks)} tasks done")

    def stepped(self, count: int) -> list[int]:
        """Wait until so many steps stand on the log; by how much each was, µs."""

        def found() -> list[Event]:
            steps = self.events("clock.stepped")
            return steps if len(steps) >= count else []

        return [e.data.by for e in wait_blocking(found, SOON_S, f"{count} steps on the log")]

    def beats(self) -> list[Beat]:
        """The heartbeats of the engines."""
        with contextlib.closing(SyncClient(self.server.url)) as client:
            return [beat for beat in beats(client, KEYS) if beat.service == "intake"]

    def roles(self) -> list[str]:
        return sorted(beat.figures.get("role", "") for beat in self.beats())

    def proven(self) -> None:
        """No promise is broken on this log, and no worker was lost."""
        audit = audit_of(raw_log(self.server.url, KEYS.log))
        assert audit.findings == []
        assert audit.checked["dispatches"] > 0
        assert self.events("worker.lost") == []

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.server.stop()


class Heard:
    """What a subscriber of asb:alerts is told."""

    def __init__(self, url: str) -> None:
        self._pubsub = subscriber(url)
        self._pubsub.subscribe(KEYS.alerts_channel)

    def all(self) -> list[dict[str, Any]]:
        """Every alert that has come so far."""
        found: list[dict[str, Any]] = []
        while (message := self._pubsub.get_message(timeout=2)) is not None:
            if message["type"] == "message":
                found.append(json.loads(message["data"]))
        return found


@pytest.fixture
def ground(tmp_path: Path) -> Generator[Ground]:
    made = Ground(tmp_path)
    made.server.start()
    try:
        yield made
    finally:
        made.end()


def test_one_host_goes_on_within_seconds_after_a_lost_reply_20_minutes_back(
    ground: Ground,
) -> None:
    """A host that folds a turn of its own, whose reply was lost, is not another one's standby."""
    proxy = LossyProxy(ground.server.port)
    ground.start("up", url=proxy.url)
    ground.start("worker", "w1", "--", *AGENT)
    ground.wait_done(*ground.submit())
    ground.server.shift("-20m")
    assert abs(ground.stepped(1)[0] + 20 * MINUTE) < SECOND
    proxy.lose(b"task.delegated")
    first = ground.submit()
    assert proxy.lost.wait(SOON_S)
    ground.wait_done(*first, *ground.submit(3))
    assert len(ground.events("clock.stepped")) == 1
    ground.proven()
    proxy.close()


@pytest.mark.parametrize("what", ["clock", "id"])
def test_the_standby_takes_over_within_seconds_whatever_ids_and_clock_say(
    ground: Ground, what: str
) -> None:
    hosts = [ground.start("up"), ground.start("up")]
    ground.start("worker", "w1", "--", *AGENT)
    # Who decides is settled by the first turn that both see.
    wait_blocking(lambda: len(ground.roles()) == 2, SOON_S, "both are up")
    ground.wait_done(*ground.submit(3))
    wait_blocking(lambda: ground.roles() == ["active", "standby"], SOON_S, "one is the standby")
    if what == "clock":
        ground.server.shift("-20m")
        ground.stepped(1)
    else:
        ahead = f"{(ground.server.now() + 50 * MINUTE) // 1000}-0"
        ground.server.call("XADD", KEYS.main_intake, ahead, "type", "task.submitted", "data", "{}")
        wait_blocking(lambda: ground.server.call("XLEN", KEYS.deadletter), SOON_S, "a dead letter")
    ground.wait_done(*ground.submit(3))
    wait_blocking(lambda: ground.roles() == ["active", "standby"], SOON_S, "one is the standby")
    active = next(b for b in ground.beats() if b.figures["role"] == "active")
    next(host for host in hosts if str(host.pid) == active.figures["pid"]).kill()
    ground.wait_done(*ground.submit(3))
    ground.proven()
    assert len(ground.events("clock.stepped")) == (1 if what == "clock" else 0)


def test_ids_ahead_leave_the_intake_and_everything_goes_on(ground: Ground) -> None:
    ground.start("up")
    ground.start("worker", "w1", "--", *AGENT)
    ground.wait_done(*ground.submit())
    for minutes in range(50, 350, 50):
        ahead = f"{(ground.server.now() + minutes * MINUTE) // 1000}-0"
        with contextlib.suppress(Exception):
            ground.server.call("XADD", KEYS.main_intake, ahead, "type", "x", "data", "{}")
    wait_blocking(lambda: ground.server.call("XLEN", KEYS.deadletter), SOON_S, "a dead letter")
    ground.wait_done(*ground.submit(3))
    state = ground.state()
    cursor_ms = int(state.intakes[KEYS.main_intake].partition("-")[0])
    assert cursor_ms <= (ground.server.now() + MINUTE) // 1000
    ground.proven()


@pytest.mark.parametrize("window", ["24h", "day"])
def test_limits_hold_there_and_back(ground: Ground, window: str) -> None:
    """Each window lets nine tasks of about 1,000 tokens pass below its gate, whenever it is."""
    ground.start("up")
    wait_blocking(lambda: ground.events("policy.changed"), SOON_S, "the bus is up")
    assert ground.asb("limits", "set", "global", "tokens", window, "10000").returncode == 0
    for name in ("w1", "w2"):
        ground.start("worker", name, "--", *AGENT)
    ground.submit(60, estimate_tokens=1_000)

    def admitted(count: int) -> None:
        wait_blocking(lambda: len(ground.events("task.dispatched")) >= count, SOON_S)
        wait_blocking(lambda: _rests(ground), SOON_S, "it comes to rest")
        assert len(ground.events("task.dispatched")) == count

    heard = Heard(ground.server.url)
    admitted(9)
    expected, steps = 9, 0
    for offset in ("+26h", "+70d", "-26h"):
        ground.server.shift(offset)
        steps += 1
        ground.stepped(steps)
        expected += 9
        admitted(expected)
        ground.server.shift("+0")
        steps += 1
        ground.stepped(steps)
        admitted(expected)  # what was used before the step counts again
    ground.proven()
    conserved_over_http(ground.server.url, settings_for("asb"))
    steps_heard = [a["by_us"] for a in heard.all() if a["type"] == "CLOCK_STEPPED"]
    assert steps_heard == [e.data.by for e in ground.events("clock.stepped")]
    lines = [json.loads(x) for x in ground.asb("alerts", "--json").stdout.splitlines()]
    assert sum(line["type"] == "CLOCK_STEPPED" for line in lines) == steps
    _judge_screens(ground)
    say(f"limits through 6 steps of the clock: {expected} dispatches, overshoot 0")


def _rests(ground: Ground) -> bool:
    """Whether no task runs, and none is given out in the two seconds after."""
    before = ground.state()
    if any(task.session for task in before.tasks.values()):
        return False
    until = time.monotonic() + 2
    wait_blocking(lambda: time.monotonic() > until)
    return ground.state().meta.events == before.meta.events


def _judge_screens(ground: Ground) -> None:
    view = json.loads(ground.server.call("GET", KEYS.throttle))
    now = ground.asb("policy", "clock", "--json")
    reported = json.loads(now.stdout)
    assert view["at"] <= reported["at"]  # it does not stay in the future
    assert reported["confirmed"] is False
    assert abs(reported["step_us"] - 26 * HOUR) < SECOND
    rows = {r["name"]: r for r in json.loads(ground.asb("doctor", "--json").stdout)["checks"]}
    assert rows["clock"]["verdict"] == "warn"
    assert "asb policy clock confirm" in rows["clock"]["hint"]
    done = ground.asb("policy", "clock", "confirm", "--reason", "set right")
    assert done.returncode == 0, done.stderr
    rows = {r["name"]: r for r in json.loads(ground.asb("doctor", "--json").stdout)["checks"]}
    assert rows["clock"]["verdict"] == "ok"


@pytest.mark.parametrize("offset", ["-20m", "+26h"])
def test_a_task_in_backoff_is_tried_again_in_its_time(ground: Ground, offset: str) -> None:
    ground.start("up", tasks_backoff_s="5")
    marker = ground.folder / "failed-once"
    agent = f"cat >/dev/null; test -e {marker} && exit 0; touch {marker}; exit 1"
    ground.start("worker", "w1", "--", "sh", "-c", agent)
    [task] = ground.submit()
    wait_blocking(lambda: ground.events("task.failed"), SOON_S, "the first attempt failed")
    ground.server.shift(offset)
    ground.wait_done(task)
    events = ground.events("task.failed", "task.requeued", "clock.stepped")
    assert [e.type for e in events] == ["task.failed", "clock.stepped", "task.requeued"]
    failed, stepped, again = events
    assert 4 * SECOND < again.at - failed.at - stepped.data.by < 30 * SECOND
    ground.proven()


def test_a_step_loses_no_worker_and_a_killed_one_is_lost_after_a_lease_whatever_the_clock_does(
    ground: Ground,
) -> None:
    """Every heartbeat is gone at once when the clock steps 26 hours forward; back again, the key of
    the dead worker would live for as long, were that step not seen."""
    lease_s = 12
    settings = {"tasks_lease_s": str(lease_s), "tasks_heartbeat_s": "3"}
    ground.start("up", **settings)
    agent = ("sh", "-c", "cat >/dev/null; sleep 100")
    worker = ground.start("worker", "w1", "--", *agent, **settings)
    [task] = ground.submit()
    wait_blocking(lambda: ground.events("task.started"), SOON_S, "it runs")
    ground.server.shift("+26h")
    ground.stepped(1)
    stepped = time.monotonic()
    wait_blocking(lambda: time.monotonic() - stepped > lease_s + 2, SOON_S)
    assert ground.events("worker.lost") == []
    left_ms = ground.server.call("PTTL", KEYS.worker("w1"))
    assert 0 < left_ms <= lease_s * 500  # half a lease
    os.killpg(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    ground.server.shift("+0")
    [lost] = wait_blocking(lambda: ground.events("worker.lost"), SOON_S, "the worker is lost")
    assert lease_s / 2 < time.monotonic() - killed < 2 * lease_s
    assert "absent at every look" in text_of(lost, "evidence")
    [again] = wait_blocking(lambda: ground.events("task.requeued"), SOON_S, "it is given out again")
    assert again.data.task == task
    assert audit_of(raw_log(ground.server.url, KEYS.log)).findings == []
    conserved_over_http(ground.server.url, settings_for("asb"))
