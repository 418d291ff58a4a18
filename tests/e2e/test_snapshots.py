"""Snapshots as production writes them: by the process that `asb up` starts, from a source tree and
from the wheel in a fresh environment; and one that fails is told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.store.client import SyncClient
from services.store.heartbeat import beats
from services.store.snapshot_record import SnapshotRecord, decode_record
from tests.e2e.cli import AGENT, ROOT, Process, asb
from tests.servers import RedisServer
from tests.subscribers import subscriber
from tests.wait import wait_blocking

pytestmark = [pytest.mark.timeout(600)]

KEYS = Keys()
SUBMISSIONS = 20
EVERY = {"ASB_SNAPSHOTS_EVERY_EVENTS": "40"}
# All rights of a service, but that to the snapshot itself.
WITHOUT_SNAPSHOT = (
    *("resetkeys", "~asb:*", "~{asb:events}:[^s]*", "~{asb:[^e]*"),
    *(
        "~{asb:events}:services",
        "~{asb:events}:secret",
        "~{asb:events}:unregistered-intakes",
        "~{asb:events}:snapshot-record",
    ),
    "%R~{asb:events}:snapshot",
)


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    made = RedisServer(tmp_path / "redis").start()
    yield made
    made.stop()


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting as an operator gives it, in the environment of what the test starts."""
    for name, value in EVERY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tests.e2e.cli.environment", _environment)


def _environment() -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if not k.startswith("ASB_")}
    return {**found, **EVERY, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def agent(folder: Path) -> tuple[str, ...]:
    file = folder / "agent.py"
    file.write_text(AGENT)
    return (sys.executable, str(file))


def record(client: SyncClient) -> SnapshotRecord:
    return decode_record(client.call("GET", KEYS.snapshot_record))


def submit(folder: Path, redis: str) -> None:
    texts = [f"Fix bug {n} in the parser" for n in range(SUBMISSIONS)]
    done = asb("submit", redis, *texts, cwd=folder)
    assert done.returncode == 0, done.stderr


def snapshot_row(folder: Path, redis: str) -> dict[str, str]:
    checks: list[dict[str, str]] = json.loads(asb("doctor", redis, "--json", cwd=folder).stdout)[
        "checks"
    ]
    return next(check for check in checks if check["name"] == "snapshots")


@pytest.mark.usefixtures("lowered")
def test_asb_up_with_a_worker_writes_snapshots(tmp_path: Path, server: RedisServer) -> None:
    """Given `asb up` with a worker and a low threshold, when tasks run, then the snapshot that its
    process writes is the fold of the log up to there."""
    redis = f"--redis={server.url}"
    up = Process(tmp_path, "up", redis, "--workers=1", "--", *agent(tmp_path)).says("asb is up")
    try:
        with contextlib.closing(SyncClient(server.url)) as client:
            submit(tmp_path, redis)
            wait_blocking(lambda: record(client).events > 0, within=60, what="a snapshot")
            kept = record(client)
            assert kept.failures == 0, kept.error
            assert client.call("EXISTS", KEYS.snapshot) == 1
            assert snapshot_row(tmp_path, redis)["verdict"] == "ok"
            verified = asb("replay", redis, "--verify", "--until", kept.log_id, cwd=tmp_path)
            assert verified.returncode == 0, verified.stdout

            def reported() -> list[str]:
                found = [b.figures for b in beats(client, KEYS) if b.service == "snapshots"]
                return [f["snapshot_log_id"] for f in found if f["snapshot"] == "kept"]

            wait_blocking(reported, within=60, what="the heartbeat tells of it")
    finally:
        up.end()


@pytest.mark.usefixtures("lowered")
def test_a_snapshot_that_fails_is_one_alert_and_a_bad_row_until_one_succeeds(
    tmp_path: Path, server: RedisServer
) -> None:
    """Given a user without the right to write the snapshot, when it fails again and again, then it
    is said once on asb:alerts, and doctor shows it; with the right back all is well."""
    redis = f"--redis={server.url}"
    with contextlib.closing(SyncClient(server.url)) as operator:
        operator.call("ACL", "SETUSER", "asb", "on", ">pw", "&*", "+@all", *WITHOUT_SNAPSHOT)
        url = server.url.replace("://", "://asb:pw@")
        up = Process(tmp_path, "up", f"--redis={url}").says("asb is up")
        heard = subscriber(server.url)
        heard.subscribe(KEYS.alerts_channel)
        try:
            submit(tmp_path, redis)
            wait_blocking(lambda: record(operator).failures >= 2, within=60, what="two failures")
            row = snapshot_row(tmp_path, redis)
            assert row["verdict"] == "bad"
            assert "no permissions" in row["value"].lower()
            assert row["hint"]
            operator.call("ACL", "SETUSER", "asb", "~*")
            wait_blocking(lambda: record(operator).events > 0, within=60, what="a snapshot")
            assert record(operator).failures == 0
            assert snapshot_row(tmp_path, redis)["verdict"] == "ok"
            assert [alert["type"] for alert in alerts(heard)] == ["SNAPSHOT_FAILED"]
        finally:
            up.end()


def alerts(heard: Any) -> list[dict[str, Any]]:
    """The messages about snapshots that came in so far."""
    found: list[dict[str, Any]] = []
    while (message := heard.get_message(timeout=0.2)) is not None:
        if message["type"] == "message":
            found.append(json.loads(message["data"]))
    return [alert for alert in found if str(alert["type"]).startswith("SNAPSHOT")]


# -- from the wheel ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``asb`` as installed from the wheel into an environment of its own. What it depends on is
    lent by ours; asb itself is not: our sources are on no path there."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), ".")
    subprocess.run([*pip, *build], cwd=_copied(folder), check=True, timeout=240)
    home = folder / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    install = ("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    subprocess.run([*pip, *install], cwd=folder, check=True, timeout=240)
    [site] = home.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "asb"


def _copied(folder: Path) -> Path:
    """The sources, so that the build leaves nothing in the tree."""
    copy = folder / "sources"
    copy.mkdir()
    for name in ("events", "projections", "services"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "concurrent_task_manager.py"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def test_the_wheel_runs_a_bus_and_writes_snapshots_from_any_folder(
    installed: Path, tmp_path: Path, server: RedisServer
) -> None:
    """Given the wheel in a fresh environment, and a user's folder that has packages named as ours
    are, when `asb up` runs there with a worker, then tasks run and a snapshot is written."""
    for name in ("services", "events", "projections"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    environ = {k: v for k, v in _environment().items() if k != "PYTHONPATH"}
    command = [str(installed), "up", f"--redis={server.url}", "--workers=1", "--", *agent(tmp_path)]
    log = tmp_path / "up.log"
    with log.open("wb") as said:
        up = subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        with contextlib.closing(SyncClient(server.url)) as client:
            texts = [f"Fix bug {n} in the parser" for n in range(SUBMISSIONS)]
            done = subprocess.run(
                [str(installed), "submit", f"--redis={server.url}", *texts, "--wait"],
                cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr + log.read_text(errors="replace")
            wait_blocking(lambda: record(client).events > 0, within=60, what="a snapshot")
            assert record(client).failures == 0, record(client).error
    finally:
        up.terminate()
        up.wait(timeout=60)
