"""`asb fleet up` with agents in tmux, as people start it: what each does stands in `asb top` and on
the page in the same words."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Generator
from typing import Any

import pytest

from tests.agents.terminals import Terminal, terminal
from tests.e2e.cli import Up
from tests.e2e.test_watching import address
from tests.wait import wait_blocking

__all__ = ["terminal"]
pytestmark = pytest.mark.timeout(600)
FLEET = """
[[workers]]
driver = "tmux"
name = "coder"
count = 2
restart = true
[[workers]]
driver = "tmux"
name = "own"
session = "mine"
"""


@pytest.fixture
def fleet(terminal: Terminal) -> Generator[Up]:
    terminal.tmux("new-session", "-d", "-s", "mine", "-c", str(terminal.folder), "claude")
    (terminal.folder / "fleet.toml").write_text(FLEET)
    up = Up(terminal.folder, "fleet.toml", command=("fleet", "up"))
    try:
        up.start()
        wait_blocking(lambda: len(up.ask("status")["workers"]) == 3, within=60, what=up.said)
        yield up
    finally:
        up.end()


def words_of(up: Up) -> list[dict[str, str]]:
    """What `asb top` and the page say of each worker, and `asb top` as it is drawn."""
    overview: dict[str, Any] = up.ask("top")["overview"]
    top = {row["worker"]: row["word"] for row in overview["workers"]}
    moment = f"{address(up)}api/moment?at={overview['as_of']}"
    page: dict[str, Any] = json.load(urllib.request.urlopen(moment, timeout=10))["overview"]
    drawn = [line.split() for line in up.run("top", "--once").stdout.splitlines()]
    return [
        top,
        {row["worker"]: row["word"] for row in page["workers"]},
        {parts[1]: parts[2] for parts in drawn if len(parts) > 3 and parts[1] in top},
    ]


def test_the_words_of_a_fleet_in_tmux(terminal: Terminal, fleet: Up) -> None:
    def become(**wanted: str) -> None:
        def are() -> bool:
            return words_of(fleet) == [wanted] * 3

        wait_blocking(are, within=40, what=f"{wanted}; {fleet.run('top', '--once').stdout}")

    become(coder1="idle", coder2="idle", own="idle")
    terminal.tmux("send-keys", "-t", "=mine:", "-l", "play slow by hand")
    terminal.tmux("send-keys", "-t", "=mine:", "Enter")
    become(coder1="idle", coder2="idle", own="busy")
    done = fleet.run("submit", "play ask", "--worker", "coder1")
    assert done.returncode == 0, done.stderr
    become(coder1="asks", coder2="idle", own="busy")
    terminal.tmux("send-keys", "-t", "=mine:", "Escape")
    terminal.tmux("send-keys", "-t", "=coder2:", "-l", "play limit")
    terminal.tmux("send-keys", "-t", "=coder2:", "Enter")
    become(coder1="asks", coder2="limited", own="idle")
    assert "coder2 is refused by its provider" in fleet.run("status").stdout
    terminal.tmux("send-keys", "-t", "=coder1:", "Enter")
    name = done.stdout.strip()
    wait_blocking(lambda: fleet.ask("task", name)["status"] == "completed", within=30)
    assert "mine" in terminal.tmux("ls")
