"""A real Prometheus for tests, with the rules and dashboards of ops/."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ports import free_port
from tests.wait import wait_blocking

ROOT = Path(__file__).resolve().parent.parent
OPS = ROOT / "ops"
DASHBOARDS = sorted((OPS / "grafana" / "dashboards").glob("*.json"))


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; a skip, which is counted, where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt install prometheus)")
    return path


def alerts() -> list[dict[str, Any]]:
    """The alert rules as they stand in the file."""
    groups: list[dict[str, Any]] = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())[
        "groups"
    ]
    return [rule for group in groups for rule in group["rules"]]


def records() -> list[dict[str, Any]]:
    """The recording rules."""
    groups: list[dict[str, Any]] = yaml.safe_load((OPS / "prometheus" / "rules.yml").read_text())[
        "groups"
    ]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Every expression of every dashboard, with where it stands."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


class Prometheus:
    """One process on a folder of its own, scraping ``targets`` every second."""

    def __init__(self, folder: Path, *targets: str, rules: Sequence[Path] = ()) -> None:
        """``rules``: files in the place of those of ops/ with the same names."""
        self.url = f"http://127.0.0.1:{free_port()}"
        folder.mkdir()  # files below are JSON, which is YAML
        config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        files = {Path(name).name: OPS / "prometheus" / name for name in config["rule_files"]}
        own = {path.name: path for path in rules}
        config["rule_files"] = [str(path) for path in {**files, **own}.values()]
        (folder / "targets.yml").write_text(json.dumps([{"targets": list(targets)}]))
        (folder / "prometheus.yml").write_text(json.dumps(config))
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query finds; nothing while it is not up."""
        words = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=20) as reply:
                return json.loads(reply.read())["data"]["result"]
        except OSError:
            return []

    def sees(self, expression: str, within: float = 90) -> list[dict[str, Any]]:
        """Wait until an expression finds something."""
        return wait_blocking(
            lambda: self.query(expression), within=within, what=f"Prometheus finds {expression}"
        )

    def end(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.wait()
