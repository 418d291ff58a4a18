"""Every command of the table is there, says what it does, and is loaded only when it is called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.cli.commands import COMMANDS, loaded
from tests.e2e.cli import ASB, ROOT, environment

NAMES = [name for group in COMMANDS.values() for name in group]


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_where_the_table_says(name: str) -> None:
    assert loaded(name).help


def test_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys; sys.argv = ['asb', '--help']\n"
        "from services.cli.main import main\n"
        "try: main()\n"
        "finally: print('LOADED', *(m for m in sys.modules if m.split('.')[0] in"
        " ('services', 'redis', 'rich')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    text, _, modules = done.stdout.partition("LOADED")
    assert [line.split()[0] for line in text.splitlines() if line.split()[:1] and
            line.split()[0] in NAMES] == NAMES  # fmt: skip
    assert "redis" not in modules.split()
    assert "rich" not in modules.split()
    assert not any(m.startswith("services.") and m.split(".")[1] not in ("cli", "runtime")
                   for m in modules.split())  # fmt: skip


def test_a_name_that_is_no_command_ends_with_2() -> None:
    done = subprocess.run(
        [*ASB, "statsu"], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2
    assert "statsu" in done.stderr
