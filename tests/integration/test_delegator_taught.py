"""Teaching the delegator on a running bus: by a file, by a correction, and what it then says."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.cli import Up

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    """A bus without workers."""
    up = Up(tmp_path_factory.mktemp("bus")).start()
    yield up
    up.end()


def why(bus: Up, text: str) -> str:
    return str(json.loads(bus.run("delegator", "why", text, "--json").stdout)["kind"])


def test_examples_in_a_file_teach_every_host_of_the_bus(bus: Up, tmp_path: Path) -> None:
    text = "Groom the quokka shelf"
    assert why(bus, text) != "database"
    file = tmp_path / "examples.tsv"
    file.write_text(f"kind\ttext\ndatabase\t{text}\ndatabase\tGroom the quokka row\n")
    done = bus.run("delegator", "learn", str(file), "--reason", "house words")
    assert done.returncode == 0, done.stderr
    assert "2 examples" in done.stdout
    assert "2 have it now" in done.stdout
    assert why(bus, text) == "database"
    checked = bus.run("delegator", "check", str(file))
    assert "right kinds: 2 of 2" in checked.stdout
    events = bus.run("events", "--type", "delegator.learnt").stdout
    assert "house words" in events


def test_a_correction_is_one_command(bus: Up) -> None:
    text = "Sing to the numbat until it sleeps"
    task = bus.run("submit", text).stdout.strip()
    done = bus.run("task", task, "--was", "automation")
    assert done.returncode == 0, done.stderr
    assert why(bus, text) == "automation"
    again = bus.run("delegator", "learn")
    assert again.returncode == 0, again.stderr
    assert why(bus, text) == "automation"


def test_what_cannot_be_learnt_is_said(bus: Up, tmp_path: Path) -> None:
    file = tmp_path / "bad.tsv"
    file.write_text("kind\ttext\ncooking\tsoup\n")
    done = bus.run("delegator", "learn", str(file))
    assert done.returncode == 1
    assert "line 2" in done.stderr
    assert "cooking" in done.stderr
    assert bus.run("task", "nothing", "--was", "ui").returncode == 1
    assert bus.run("task", "nothing", "--was", "cooking").returncode == 2


def test_routes_are_shown_with_how_they_fare(bus: Up) -> None:
    view = bus.ask("routes")
    assert view["routes"]["ui"] == ["comet", "haiku"]
    assert view["escalate"] is False
    shown = bus.run("routes").stdout
    assert "documentation" in shown
    assert "claude/haiku" in shown
