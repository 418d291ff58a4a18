"""Every command of the table is there, says what it does, and is loaded only when it is called."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.core import TyperGroup

from services.cli.commands import COMMANDS, loaded
from tests.e2e.cli import ASB, ROOT, environment

NAMES = [name for group in COMMANDS.values() for name in group]


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_where_the_table_says(name: str) -> None:
    assert loaded(name).help


def modules_of(*arguments: str) -> tuple[str, list[str]]:
    """What a command says, and the modules that it has loaded at its end."""
    code = (
        f"import sys; sys.argv = {['asb', *arguments]}\n"
        "from services.cli.main import main\n"
        "try: main()\n"
        "finally: print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    text, _, modules = done.stdout.partition("LOADED")
    return text, modules.split()


def test_help_names_every_command_and_loads_none() -> None:
    text, modules = modules_of("--help")
    assert [line.split()[0] for line in text.splitlines() if line.split()[:1] and
            line.split()[0] in NAMES] == NAMES  # fmt: skip
    assert "redis" not in modules
    assert "rich" not in modules
    assert not any(m.startswith("services.") and m.split(".")[1] not in ("cli", "runtime")
                   for m in modules)  # fmt: skip


def test_a_command_with_options_loads_no_library_of_validators() -> None:
    """The parser's newer editions do, and take longer over it than a whole command."""
    text, modules = modules_of("config", "--redis", "redis://127.0.0.1:1")
    assert "redis://127.0.0.1:1" in text
    assert "pydantic" not in modules


@pytest.mark.parametrize("name", ["status", "tasks", "task", "limits", "submit", "cancel"])
def test_a_command_that_asks_and_ends_loads_no_event_loop(name: str) -> None:
    _, modules = modules_of(name, "--help")
    assert "services.store.client" in modules
    assert not {"asyncio", "anyio", "ssl"} & set(modules)


def test_first_lines_of_help_are_whole_at_80_columns() -> None:
    places = [place for group in COMMANDS.values() for place in group.values()]
    assert max(len(place.summary) for place in places) <= 80 - 15
    for name in NAMES:
        command = loaded(name)
        if isinstance(command, TyperGroup):
            for below, inner in command.commands.items():
                first = (inner.help or "").partition("\n\n")[0]
                assert 0 < len(first) <= 65, f"{name} {below}: {first}"


def test_completion_knows_commands_and_options_in_each_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [*ASB, "completion", shell], capture_output=True, text=True, check=True,
            env=environment(),
        )  # fmt: skip
        assert "--waiting" in done.stdout or "-l waiting" in done.stdout
        assert "min-priority" in done.stdout
    ask = """source /dev/stdin; complete_it() { COMP_WORDS=(asb "$@"); COMP_CWORD=$#
        COMPREPLY=(); _asb; echo "${COMPREPLY[*]}"; }
        complete_it stat; complete_it tasks --w; complete_it limits min
        complete_it limits set --r"""
    script = subprocess.run(
        [*ASB, "completion", "bash"], capture_output=True, text=True, check=True, env=environment()
    ).stdout
    said = subprocess.run(
        ["bash", "-c", ask], input=script, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["status", "--waiting", "min-priority", "--reason", "--redis"]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_name_that_is_no_command_ends_with_2() -> None:
    done = subprocess.run(
        [*ASB, "statsu"], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2
    assert "statsu" in done.stderr
    assert "Did you mean status" in done.stderr
