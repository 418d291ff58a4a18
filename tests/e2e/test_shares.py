"""One budget over two buses, by the commands of the operators' page."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import ROOT, Process, asb
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.timeout(600)]
DAY = ("global", "tokens", "day")


class Page:
    """The page's section with its addresses those of real servers."""

    def __init__(self, folder: Path, servers: list[RedisServer]) -> None:
        page = (ROOT / "ops" / "topologies.md").read_text(encoding="utf-8")
        section = page.partition("## One budget over several buses")[2].partition("\n## ")[0]
        for n, server in enumerate(servers, 1):
            section = section.replace(f"redis://10.0.0.{n}:6379/0", server.url)
        blocks = re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)
        (self.settings,) = (text for kind, text in blocks if kind == "toml")
        self.commands = [
            line.split()[1:] for kind, text in blocks if not kind for line in text.splitlines()
        ]
        self.folder = folder
        self.processes: list[Process] = []

    def write(self, settings: str) -> None:
        (self.folder / "asb.toml").write_text(settings)

    def start(self, *which: str) -> None:
        """Start what runs for long: ``up`` or ``service``."""
        for command in self.commands:
            if command[0] in which:
                self.processes.append(Process(self.folder, *command))

    def bus(self, name: str) -> list[str]:
        """The options that lead to a bus."""
        (command,) = (x for x in self.commands if x[0] == "up" and x[-1] == name)
        return command[1:]

    def limits(self, name: str) -> dict[str, Any]:
        """The limit that is divided, as ``asb limits --json`` has it."""
        done = asb("limits", "--json", *self.bus(name), cwd=self.folder)
        if done.returncode:
            return {}
        wanted = dict(zip(("scope", "unit", "window"), DAY, strict=True))
        rows: list[dict[str, Any]] = json.loads(done.stdout)["limits"]
        return ([row for row in rows if wanted.items() <= row.items()] or [{}])[0]


@pytest.fixture
def page(tmp_path: Path) -> Generator[Page]:
    servers = [RedisServer(tmp_path / f"redis-{n}").start() for n in range(2)]
    made = Page(tmp_path, servers)
    yield made
    for process in made.processes:
        process.stop(signal.SIGINT)
    for server in servers:
        server.stop()


def test_the_commands_of_the_page_divide_a_budget_and_a_bus_leaves(page: Page) -> None:
    page.write(page.settings)
    page.start("up", "service")

    def shares() -> list[int]:
        rows = [page.limits(name) for name in ("north", "south")]
        return [row["amount"] for row in rows if row.get("share")]

    wait_blocking(lambda: sum(shares()) == 5_000_000 and min(shares()) > 0, within=120)
    assert page.limits("south")["share"]["whole"] == 5_000_000
    for command in page.commands:
        if command[0] in ("limits", "doctor"):
            done = asb(*command, cwd=page.folder)
            assert done.returncode == 0, done.stdout + done.stderr
            said = done.stdout
            assert " of 5M" in said
            assert ("share of south" if command[0] == "doctor" else "south has") in said
    by_hand = ("set", *DAY, "1M", *page.bus("south"))
    refused = asb("limits", *by_hand, cwd=page.folder)
    assert refused.returncode == 1
    assert "is the share of south" in refused.stderr

    leaving = page.settings.replace('namespace = "south"', 'namespace = "south", leaving = true')
    page.write(leaving)
    for process in page.processes:  # two `asb up` and a service: each has the settings of its start
        process.stop(signal.SIGINT)
    page.processes.clear()
    page.start("up", "service")
    wait_blocking(lambda: page.limits("south").get("share", "") == "", within=120)
    assert page.limits("north")["amount"] == 5_000_000
    assert asb("limits", *by_hand, cwd=page.folder).returncode == 0
    assert page.limits("south")["amount"] == 1_000_000


def test_what_is_wrong_with_a_table_is_said_before_anything_starts(page: Page) -> None:
    twice = page.settings.replace('name = "south"', 'name = "north"')
    page.write(twice)
    done = asb("limits", *page.bus("north"), cwd=page.folder)
    assert done.returncode != 0
    assert "two of its buses have the same name" in done.stderr
    page.write(page.settings * 2)
    done = asb("limits", *page.bus("north"), cwd=page.folder)
    assert "two of them divide tokens/day" in done.stderr
    page.write("")
    done = asb("service", "shares", *page.bus("north"), cwd=page.folder)
    assert done.returncode == 1
    assert "[[shares]] is not set" in done.stderr


def test_doctor_names_who_moves_nothing_and_who_cannot_be_read(page: Page) -> None:
    page.write("")  # so that `asb up` starts no service of shares
    page.start("up")
    wait_blocking(lambda: page.limits("north") and page.limits("south"), within=120)
    page.write(page.settings)
    said = asb("doctor", *page.bus("north"), cwd=page.folder).stdout
    assert "share of south" in said
    assert "tokens/day: none yet" in said
    assert "no service moves them" in said
    gone = page.settings.replace(page.bus("south")[1], "redis://127.0.0.1:1/0")
    page.write(
        gone + '[[policy.limits]]\nscope = "global"\nunit = "tokens"\nwindow = "day"\namount = 1\n'
    )
    done = asb("doctor", *page.bus("north"), cwd=page.folder)
    assert "it cannot be read: no Redis answers at redis://127.0.0.1:1/0" in done.stdout
    assert "tokens/day overall is set in [policy] limits, too" in done.stdout
    assert done.returncode == 1
