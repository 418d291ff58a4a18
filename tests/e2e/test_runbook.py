"""The runbook, walked: each alert is made to fire on a real Prometheus by what it is about, what
the runbook says is done, and it is over.

Prometheus has the very rules of ops/, but for time: what they wait for in minutes takes seconds
here. `make prove` walks all of them, CI those that need neither much time nor a clock that steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.store import rebuild
from services.store.client import SyncClient
from tests.e2e.cli import ASB, asb, environment
from tests.prometheus import Prometheus, alerts, program, records
from tests.servers import RedisServer
from tests.shifted import ShiftedServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

PROVE = os.environ.get("ASB_TEST_PROVE") == "1"
KEYS = Keys()
WITHIN = 90.0
LAG_EVENTS = 20_000
# Where a rule waits for so long that no test can: its figure, and the one that it has here.
SHORTER = {
    "asb_engine_stalled_seconds > 5": "asb_engine_stalled_seconds > 2",
    "p99 > 60": "p99 > 2",
    "asb_queue_oldest_seconds) > 1800": "asb_queue_oldest_seconds) > 4",
    "> 10)": "> 1)",
    "> 30)": "> 1)",
    "asb_hold_oldest_seconds > 10800": "asb_hold_oldest_seconds > 4",
    "[15m]": "[20s]",
    "[5m]": "[20s]",
}
SETTINGS = {
    "ASB_TASKS_LEASE_S": "3",
    "ASB_TASKS_HEARTBEAT_S": "1",
    "ASB_SNAPSHOTS_EVERY_EVENTS": "50",
    "ASB_ARCHIVE_KEEP_EVENTS": "1000",
    "ASB_ARCHIVE_SEGMENT_EVENTS": "50",
    "ASB_METRICS_PORT": "0",
}
AGENT = """
import os, sys, time
text = sys.stdin.read()
if "fail" in text:
    sys.exit("no luck")
while "slow" in text and not os.path.exists("go"):
    time.sleep(0.1)
print("did", text)
"""


def shortened(rules: Iterable[dict[str, Any]]) -> str:
    """Rules with short times; JSON, which is YAML."""
    rules = [dict(rule) for rule in rules]
    for rule in rules:
        if "for" in rule:
            rule["for"] = "0s"
        for long, short in SHORTER.items():
            rule["expr"] = rule["expr"].replace(long, short)
    return json.dumps({"groups": [{"name": "asb", "rules": rules}]})


class Ground:
    """A server, the services of a bus as processes, an exporter, and a Prometheus that scrapes."""

    def __init__(self, folder: Path) -> None:
        program("prometheus")
        self.folder = folder
        made = ShiftedServer if PROVE else RedisServer
        self.server = made(folder / "redis").start()
        self.client = SyncClient(self.server.url)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "agent.py").write_text(AGENT)
        for service in ("engine", "exporter", *PROJECTING):
            self.start(service)
        self.worker()
        listening = wait_blocking(self.address, within=60, what="metrics are served")
        rules = {folder / "alerts.yml": alerts(), folder / "rules.yml": records()}
        for path, of_ops in rules.items():
            path.write_text(shortened(of_ops))
        self.prometheus = Prometheus(folder / "prometheus", listening, rules=list(rules))
        self.prometheus.sees('up{job="asb"} == 1')

    def address(self) -> str:
        rows = [c for c in self.doctor() if c["name"] == "metrics"]
        return rows[0]["value"].partition("http://")[2].removesuffix("/metrics") if rows else ""

    def doctor(self) -> list[dict[str, Any]]:
        done = self.run("doctor", "--json")
        return json.loads(done.stdout)["checks"] if done.stdout else []

    def says(self, name: str) -> str:
        """The rows of doctor with this name, as text."""
        return "\n".join(f"{c['verdict']} {c['value']}" for c in self.doctor() if c["name"] == name)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return asb(arguments[0], f"--redis={self.server.url}", *arguments[1:], cwd=self.folder)

    def start(self, service: str, **settings: str) -> None:
        variables = {**SETTINGS, "ASB_ARCHIVE_FOLDER": str(self.folder / "archive"), **settings}
        with (self.folder / f"{service}.log").open("ab") as log:
            self.parts[service] = subprocess.Popen(
                [*ASB, "service", service, f"--redis={self.server.url}"],
                env={**environment(), **variables}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def worker(self) -> None:
        command = (sys.executable, str(self.folder / "agent.py"))
        with (self.folder / "worker.log").open("ab") as log:
            self.parts["worker"] = subprocess.Popen(
                [*ASB, "worker", "w1", f"--redis={self.server.url}", "--", *command],
                env={**environment(), **SETTINGS}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, part: str) -> None:
        process = self.parts.pop(part)
        process.kill()
        process.wait()

    def submit(self, *texts: str, wait: bool = False, **options: str) -> list[str]:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        done = self.run("submit", *texts, *words, *(["--wait"] if wait else []))
        return re.findall(r"^(\S*\d+-\d+)", done.stdout, re.MULTILINE)

    def fires(self, alert: str, **labels: str) -> None:
        self.prometheus.sees(firing(alert, **labels), within=WITHIN)

    def is_over(self, alert: str, **labels: str) -> None:
        wait_blocking(
            lambda: (
                self.prometheus.query('up{job="asb"}')
                and not self.prometheus.query(firing(alert, **labels))
            ),
            within=WITHIN,
            what=f"{alert} is over",
        )

    def end(self) -> None:
        self.prometheus.end()
        for part in list(self.parts):
            self.kill(part)
        self.client.close()
        self.server.stop()


def firing(alert: str, **labels: str) -> str:
    chosen = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'ALERTS{{alertname="{alert}",alertstate="firing"{chosen}}}'


PROJECTING = ("inbox", "usage", "throttle", "snapshots", "archive", "progress", "reports", "web")
Walk = Callable[[Ground], None]
WALKS: dict[str, Walk] = {}


def walks(alert: str) -> Callable[[Walk], Walk]:
    """Decorator: this function makes the alert fire, and does what the runbook says."""

    def register(walk: Walk) -> Walk:
        WALKS[alert] = walk
        return walk

    return register


@walks("AsbExporterDown")
def exporter_down(ground: Ground) -> None:
    address = ground.address()
    ground.kill("exporter")
    ground.fires("AsbExporterDown")
    assert "nobody serves them" in wait_blocking(
        lambda: ground.says("metrics") if "nobody" in ground.says("metrics") else "", within=40
    )
    ground.start("exporter", ASB_METRICS_PORT=address.rpartition(":")[2])
    ground.is_over("AsbExporterDown")


@walks("AsbRedisDown")
def redis_down(ground: Ground) -> None:
    ground.server.kill9()
    ground.fires("AsbRedisDown")
    ground.server.start()
    ground.is_over("AsbRedisDown")


@walks("AsbServiceMissing")
def service_missing(ground: Ground) -> None:
    ground.kill("usage")
    ground.fires("AsbServiceMissing", service="usage")
    assert "usage" in ground.says("services")
    ground.start("usage")
    ground.is_over("AsbServiceMissing", service="usage")


def obstructed(ground: Ground, alert: str) -> None:
    """A key of another type stands in the engine's way; it is renamed away, as doctor says."""
    day = int(ground.client.call("TIME")[0]) // 86_400
    key = KEYS.duplicates(day)
    ground.client.call("DEL", key)
    ground.client.call("SET", key, "mine")
    try:
        ground.client.call("XADD", KEYS.main_intake, "*", "type", "task.submitted", "id", alert,
                           "data", '{"text": "fix it"}')  # fmt: skip
        ground.fires(alert)
        said = json.dumps(ground.doctor())
        assert key in said
    finally:
        ground.client.call("RENAME", key, f"{key}:foreign")
    ground.is_over(alert)
    ground.client.call("DEL", f"{key}:foreign")


@walks("AsbEngineStalled")
def engine_stalled(ground: Ground) -> None:
    obstructed(ground, "AsbEngineStalled")


@walks("AsbServiceHeldUp")
def service_held_up(ground: Ground) -> None:
    obstructed(ground, "AsbServiceHeldUp")


@walks("AsbStartSlow")
def start_slow(ground: Ground) -> None:
    ground.run("pause", "w1")
    ground.submit("wait a while", "wait too")
    ground.fires("AsbOldestWaiting")
    ground.run("resume", "w1")
    ground.fires("AsbStartSlow")
    ground.is_over("AsbStartSlow")  # its rule looks back for twenty seconds here


@walks("AsbOldestWaiting")
def oldest_waiting(ground: Ground) -> None:
    [task] = ground.submit("nobody can take it", worker="nobody")
    ground.fires("AsbOldestWaiting")
    assert "nobody" in ground.run("tasks", "--waiting").stdout
    assert ground.run("cancel", task).returncode == 0
    ground.is_over("AsbOldestWaiting")


@walks("AsbHoldOld")
def hold_old(ground: Ground) -> None:
    [task] = ground.submit("a slow one")
    ground.fires("AsbHoldOld")
    assert task in ground.run("status").stdout or ground.run("task", task).returncode == 0
    assert ground.run("cancel", task).returncode == 0
    ground.is_over("AsbHoldOld")


@walks("AsbSnapshotOld")
def snapshot_old(ground: Ground) -> None:
    ground.kill("snapshots")
    open_tasks = len(rebuild.rebuild(ground.client, KEYS).tasks)
    data = json.dumps({"agent": "gemini", "total_tokens": 1})
    ground.client.pipeline(
        ("XADD", KEYS.main_intake, "*", "type", "usage.recorded", "data", data)
        for _ in range(3 * max(50, 2 * open_tasks) + 200)
    )
    ground.fires("AsbSnapshotOld")
    ground.start("snapshots")
    ground.is_over("AsbSnapshotOld")


def many(ground: Ground, count: int) -> None:
    """So many submissions that wait for nobody."""
    data = json.dumps({"text": "wait", "worker": "later"})
    ground.client.pipeline(
        ("XADD", KEYS.main_intake, "*", "type", "task.submitted", "data", data)
        for _ in range(count)
    )


@walks("AsbLogLong")
def log_long(ground: Ground) -> None:
    folder = ground.folder / "archive"
    aside = ground.folder / "aside"
    if folder.exists():
        folder.rename(aside)
    folder.write_text("no folder")
    ground.kill("archive")
    ground.start("archive")
    many(ground, 600)
    ground.fires("AsbLogLong")
    assert ground.says("archiving").startswith("bad")
    folder.unlink()
    if aside.exists():
        aside.rename(folder)
    ground.kill("archive")
    ground.start("archive")
    ground.is_over("AsbLogLong")


@walks("AsbBudgetHigh")
def budget_high(ground: Ground) -> None:
    ground.submit("spend", wait=True)
    buckets = rebuild.rebuild(ground.client, KEYS).scopes["global"].hours.values()
    nearly = sum(bucket.tokens for bucket in buckets) * 100 // 97
    assert ground.run("limits", "set", "global", "tokens", "hour", str(nearly)).returncode == 0
    ground.fires("AsbBudgetHigh")
    assert "HARD" in ground.run("throttle").stdout
    assert ground.run("limits", "set", "global", "tokens", "hour", "500K").returncode == 0
    ground.is_over("AsbBudgetHigh")


@walks("AsbDeadLetters")
def dead_letters(ground: Ground) -> None:
    ground.client.call("XADD", KEYS.main_intake, "*", "type", "task.submitted", "data", "{}")
    ground.fires("AsbDeadLetters")
    listed = json.loads(ground.run("deadletter", "list", "--json").stdout or "[]")
    assert listed
    ground.is_over("AsbDeadLetters")


@walks("AsbForeignEntries")
def foreign_entries(ground: Ground) -> None:
    ground.client.call("XADD", KEYS.log, "*", "hello", "world")
    ground.fires("AsbForeignEntries")
    assert "did not write" in ground.says("foreign entries")
    ground.is_over("AsbForeignEntries")


@walks("AsbWorkersLost")
def workers_lost(ground: Ground) -> None:
    ground.kill("worker")
    ground.fires("AsbWorkersLost")
    ground.worker()
    ground.is_over("AsbWorkersLost")


@walks("AsbTasksFailing")
def tasks_failing(ground: Ground) -> None:
    tasks = ground.submit(*(f"fail {n}" for n in range(4)), max_attempts="1", wait=True)
    ground.fires("AsbTasksFailing")
    assert "no luck" in ground.run("tasks", "--failed").stdout
    assert tasks
    ground.submit(*(f"good {n}" for n in range(30)), wait=True)
    ground.is_over("AsbTasksFailing")


@walks("AsbUsageDisputed")
def usage_disputed(ground: Ground) -> None:
    data = json.dumps({"agent": "codex", "total_tokens": 10**9})
    ground.client.call("XADD", KEYS.main_intake, "*", "type", "usage.recorded", "data", data)
    ground.fires("AsbUsageDisputed")
    [row] = json.loads(ground.run("correct", "--json").stdout)["disputed"]
    done = ground.run("correct", row["task"], "--drop", "--reason", "no such work")
    assert done.returncode == 0, done.stderr
    ground.is_over("AsbUsageDisputed")


@walks("AsbRedisMemory")
def redis_memory(ground: Ground) -> None:
    said: bytes = ground.client.call("INFO", "memory")
    used = int(said.decode().partition("used_memory:")[2].split()[0])
    ground.client.call("CONFIG", "SET", "maxmemory", used * 110 // 100)
    ground.fires("AsbRedisMemory")
    ground.client.call("CONFIG", "SET", "maxmemory", 0)
    ground.is_over("AsbRedisMemory")


@walks("AsbClockStepped")
def clock_stepped(ground: Ground) -> None:
    assert isinstance(ground.server, ShiftedServer)
    ground.server.shift("+2h")
    ground.submit("what time is it")
    ground.fires("AsbClockStepped")
    assert "confirm" in ground.run("doctor").stdout
    assert ground.run("policy", "clock", "confirm").returncode == 0
    ground.is_over("AsbClockStepped")


@contextlib.contextmanager
def starved(process: subprocess.Popen[bytes]) -> Generator[None]:
    """The process gets a hundredth of the processor's time, as on a host that has no more."""
    over = threading.Event()

    def starve() -> None:
        while not over.wait(0.002):
            process.send_signal(signal.SIGSTOP)
            over.wait(0.2)
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=starve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def lagging(ground: Ground, service: str, alert: str) -> None:
    """A service that is slower than its log is named, and has caught up where it is restarted."""
    report = json.dumps({"agent": "gemini", "total_tokens": 1})
    with starved(ground.parts[service]):
        ground.client.pipeline(
            ("XADD", KEYS.main_intake, "*", "type", "usage.recorded", "data", report)
            for _ in range(LAG_EVENTS)
        )
        ground.fires(alert)
        assert ground.doctor()
        ground.kill(service)
    ground.start(service)
    ground.is_over(alert)


@walks("AsbMeterLag")
def meter_lag(ground: Ground) -> None:
    lagging(ground, "usage", "AsbMeterLag")


@walks("AsbServiceLag")
def service_lag(ground: Ground) -> None:
    lagging(ground, "inbox", "AsbServiceLag")


# What a CI that has little time walks; the rest takes longer, or steps a clock.
QUICK = ("AsbServiceMissing", "AsbOldestWaiting", "AsbBudgetHigh", "AsbForeignEntries")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Generator[Ground]:
    made = Ground(tmp_path_factory.mktemp("runbook"))
    yield made
    made.end()


@pytest.mark.parametrize("alert", WALKS if PROVE else QUICK)
def test_an_alert_fires_and_what_the_runbook_says_ends_it(ground: Ground, alert: str) -> None:
    WALKS[alert](ground)


def test_every_alert_has_a_walk() -> None:
    assert {rule["alert"] for rule in alerts()} == set(WALKS)
    rules = shortened([*alerts(), *records()])
    assert [long for long in SHORTER if long in rules] == []
