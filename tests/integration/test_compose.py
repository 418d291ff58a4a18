"""compose.yaml without a Docker engine: its own commands as processes, against a real server."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from services import assembly
from services.runtime.errors import RedisUnavailable
from services.store.client import SyncClient
from tests.e2e.cli import ASB, ROOT, environment
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.servers import server_program
from tests.wait import wait_blocking

FILE = ROOT / "compose.yaml"
WORKER_COMMAND = "cat"
EXPORTER_PORT = "9464"
PROJECTING = (*assembly.PROJECTORS, *assembly.READERS)
TOGETHER = ("engine", *PROJECTING)
ASB_SERVICES = (*TOGETHER, "worker")
APART = tuple(name for name in assembly.DECIDERS if name not in PROJECTING)
OTHERS = ("redis", "prometheus", "grafana")


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of compose.yaml, its variables filled in as compose does."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1]) or found[2]

    text = re.sub(r"\$\{(\w+):-([^}]*)\}", value, FILE.read_text(encoding="utf-8"))
    assert "${" not in text
    return yaml.safe_load(text)["services"]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return read({"WORKER_COMMAND": WORKER_COMMAND})


def words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


class Running:
    """The services of compose.yaml as processes of this machine."""

    def __init__(self, services: dict[str, Any], folder: Path) -> None:
        self._services, self._folder = services, folder
        self._port, self.metrics_port = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def redis(self) -> None:
        """The command of ``redis``, where its volumes are folders of this machine."""
        service = self._services["redis"]
        (self._folder / "redis-data").mkdir(exist_ok=True)
        places = {"redis-data": self._folder / "redis-data"}
        command = words(service["command"])
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            here = str(places.get(source, ROOT / source))
            command = [here if word == target else word for word in command]
        assert command[0] == "redis-server"
        self._start("redis", [str(server_program().path), *command[1:], "--port", str(self._port)])
        wait_blocking(self._answers, within=30, what="the Redis of compose.yaml answers")

    def asb(self, name: str) -> None:
        """The command of a service that is built from ops/Dockerfile, whose entrypoint is asb."""
        self._start(name, [*ASB, *words(self._services[name]["command"])], self.environment(name))

    def prometheus(self) -> Prometheus:
        """A real one with the very files that are mounted into its container."""
        mounted = dict(v.split(":")[:2] for v in self._services["prometheus"]["volumes"])
        files = {source: target for source, target in mounted.items() if source.startswith("./")}
        assert files["./ops/prometheus/targets-compose.yml"] == "/etc/asb/targets.yml"
        [group] = yaml.safe_load((ROOT / "ops/prometheus/targets-compose.yml").read_text())
        assert group["targets"] == [f"exporter:{EXPORTER_PORT}"]
        return Prometheus(self._folder / "prometheus", f"127.0.0.1:{self.metrics_port}")

    def environment(self, name: str) -> dict[str, str]:
        """What the service is given, with this machine's addresses in place of the network's."""
        given: dict[str, str] = dict(self._services[name]["environment"])
        host = "//redis:6379/"  # the name and port of the service within compose's network
        assert host in given["ASB_REDIS_URL"]
        given["ASB_REDIS_URL"] = self.url
        given["ASB_ARCHIVE_FOLDER"] = str(self._folder / self.archive_volume(name))
        if name == "exporter":
            assert given["ASB_METRICS_HOST"] == "0.0.0.0"
            assert given["ASB_METRICS_PORT"] == EXPORTER_PORT
            given |= {"ASB_METRICS_HOST": "127.0.0.1", "ASB_METRICS_PORT": str(self.metrics_port)}
        if name == "web":
            assert given["ASB_WEB_HOST"] == "0.0.0.0"
            given |= {"ASB_WEB_HOST": "127.0.0.1", "ASB_WEB_PORT": "0", "ASB_WEB_TOKEN": ""}
        return {**environment(), **given}

    def archive_volume(self, name: str) -> str:
        """The volume that is mounted where the service looks for the archive; one may write it."""
        mounted = self._services[name]["environment"]["ASB_ARCHIVE_FOLDER"]
        writes = name == "archive"
        volume = f"archive:{mounted}" if writes else f"archive:{mounted}:ro"
        assert volume in self._services[name]["volumes"]
        return "archive"

    def revive(self, name: str) -> None:
        """What ``restart: unless-stopped`` does to a container that was killed."""
        assert self._services[name]["restart"] == "unless-stopped"
        killed = self.processes.pop(name)
        killed.kill()
        killed.wait()
        if name == "redis":
            self.redis()
        else:
            self.asb(name)

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, program, *arguments = self._services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "asb")
        done = subprocess.run(
            [*ASB, *arguments], env=self.environment(name), cwd=self._folder,
            capture_output=True, timeout=50, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def _start(
        self, name: str, command: list[str], variables: Mapping[str, str] | None = None
    ) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, env=variables, cwd=self._folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _answers(self) -> bool:
        assert self.processes["redis"].poll() is None, self.said("redis")
        with contextlib.closing(SyncClient(self.url)) as client:
            try:
                return client.call("PING") == b"PONG"
            except RedisUnavailable:
                return False

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> int:
        """SIGTERM, as ``docker stop`` sends it; the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout=40)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def running(services: dict[str, Any], tmp_path: Path) -> Generator[Running]:
    made = Running(services, tmp_path)
    yield made
    made.end()


def submit(running: Running, text: str) -> None:
    """A task, from its submission to its result."""
    done = subprocess.run(
        [*ASB, "submit", "--redis", running.url, text, "--wait"],
        capture_output=True, text=True, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + running.said("worker")
    assert done.stdout.splitlines()[-1] == text


@pytest.mark.timeout(600)
def test_its_commands_carry_tasks_and_recover_from_kills(running: Running) -> None:
    """Given every container's command as a process and a real Prometheus that scrapes, when
    some of them are killed at random and started again as their containers would be, then all are
    healthy, tasks are done and Prometheus sees it."""
    running.redis()
    for name in ASB_SERVICES:
        running.asb(name)
    prometheus = running.prometheus()
    try:
        submit(running, "Echo this")
        prometheus.sees('asb_tasks_ended_total{outcome="completed"} == 1')
        for name in ("redis", "engine", "worker", *random.sample(PROJECTING, 3)):
            running.revive(name)
        submit(running, "And this")
        for name in ASB_SERVICES:
            wait_blocking(
                lambda name=name: running.is_healthy(name), within=60, what=f"{name} is well"
            )
        prometheus.sees('asb_tasks_ended_total{outcome="completed"} == 2')
        prometheus.sees("count(asb_service_processes > 0) == count(asb_service_processes)")
    finally:
        prometheus.end()
    codes = {name: running.stop(name) for name in reversed(ASB_SERVICES)}
    assert codes == dict.fromkeys(codes, 0)
    assert running.stop("redis") == 0


@pytest.mark.timeout(600)
def test_each_decider_in_a_container_of_its_own_does_the_same(running: Running) -> None:
    """Given the profile apart with no engine, then a task is done; the decider that was killed
    comes back, and another is done."""
    running.redis()
    for name in (*APART, "throttle", "reports", "inbox", "worker"):
        running.asb(name)
    submit(running, "Echo this")
    running.revive("dispatcher")
    submit(running, "And this")
    for name in APART:
        wait_blocking(lambda name=name: running.is_healthy(name), within=60, what=name)


@pytest.mark.timeout(600)
def test_the_health_check_fails_where_redis_is_away(running: Running) -> None:
    assert not running.is_healthy("engine")


def test_a_worker_without_a_command_says_so(tmp_path: Path) -> None:
    command = read({})["worker"]["command"]
    done = subprocess.run(
        [*ASB, *words(command)], capture_output=True, text=True, cwd=tmp_path,
        env=environment(), timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "what it runs is missing" in done.stderr


def test_every_service_has_a_container_of_its_own(services: dict[str, Any]) -> None:
    assert set(services) == {*ASB_SERVICES, *APART, *OTHERS}
    for name in (*TOGETHER, *APART):
        assert words(services[name]["command"]) == ["service", name]
        check = services[name]["healthcheck"]["test"]
        assert check == ["CMD", "asb", "service", name, "--check"]
    assert {name for name in services if services[name].get("profiles") == ["apart"]} == {*APART}
    assert set(assembly.DECIDERS) <= {*APART, *PROJECTING}


def test_prometheus_and_grafana_get_what_ops_holds(services: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        sources = [volume.split(":")[0] for volume in services[name]["volumes"]]
        assert all((ROOT / source).exists() for source in sources if source.startswith("./"))
    board = yaml.safe_load((ROOT / "ops/grafana/provisioning/dashboards/asb.yml").read_text())
    path = board["providers"][0]["options"]["path"]
    assert f"./ops/grafana/dashboards:{path}:ro" in services["grafana"]["volumes"]
    [source] = yaml.safe_load((ROOT / "ops/grafana/provisioning/datasources/asb.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"


def test_only_this_machine_reaches_it_and_everything_comes_back(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}
    assert all(service["healthcheck"]["test"] for service in services.values())
    for name in (*ASB_SERVICES, *APART):
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert "redis-data:/data" in services["redis"]["volumes"]


def test_the_image_holds_what_the_project_is_built_from(services: dict[str, Any]) -> None:
    build = services["engine"]["build"]
    lines = (ROOT / build["context"] / build["dockerfile"]).read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {*packages, "pyproject.toml", "README.md", "concurrent_task_manager.py"} <= {*copied}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= {*ignored}
    assert 'ENTRYPOINT ["asb"]' in lines


@pytest.mark.parametrize("worker", ["", WORKER_COMMAND])
def test_compose_itself_accepts_the_file(tmp_path: Path, worker: str) -> None:
    """Debian's docker-compose 1.29, or the current one where that is installed."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [program, "-f", str(FILE), "--profile", "worker", "--profile", "apart", "config"],
        capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path,
        env={**os.environ, "WORKER_COMMAND": worker},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accepted = cast("dict[str, Any]", yaml.safe_load(done.stdout)["services"])
    assert set(accepted) == {*OTHERS, *ASB_SERVICES, *APART}
    assert words(accepted["worker"]["command"])[:3] == ["worker", "worker1", "--"]
