"""What `asb --help` and `--version` say, and that they say it at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.cli.table import PLACES, help_text
from services.runtime import VERSION

ROOT = Path(__file__).parents[2]
WHAT_TAKES_LONG = {"typer", "msgspec", "rich", "redis", "anyio", "asyncio", "importlib.metadata"}


def test_help_names_every_command_and_fits() -> None:
    lines = help_text().splitlines()
    assert all(len(line) <= 80 for line in lines)
    for name, place in PLACES.items():
        assert any(line.split() == [name, *place.summary.split()] for line in lines)


def test_the_version_is_the_packages() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["version"] == VERSION
    assert package["scripts"]["asb"] == "services.cli.entry:main"


@pytest.mark.parametrize("asked", ["--help", "-h", "--version"])
def test_help_and_version_load_nothing_that_takes_long(asked: str) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['asb', {asked!r}]\n"
        "from services.cli.entry import main\n"
        "main()\n"
        "sys.stderr.write(' '.join(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said = f"asb {VERSION}\n" if asked == "--version" else help_text()
    assert done.stdout == said
    assert not WHAT_TAKES_LONG & set(done.stderr.split())


def test_the_parser_says_the_same_help() -> None:
    """Behind other options the parser answers."""
    command = [sys.executable, "-m", "services.cli.main", "--namespace=x", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip() == help_text().rstrip()
