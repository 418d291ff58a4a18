"""The file of a fleet: what it names, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli.drivers import Chosen
from services.cli.fleet import EXAMPLE, read
from services.runtime.errors import ConfigError
from services.runtime.settings import load


def fleet(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_a_mixed_fleet(tmp_path: Path) -> None:
    text = EXAMPLE + (
        '[[workers]]\ndriver = "codex"\nname = "cx"\ncapacity = 2\naccount = "team"\n'
        'arguments = ["-c", "x=1"]\n'
        '[[workers]]\nname = "mine"\ncommand = ["my-agent", "-p"]\nformat = "json"\n'
    )
    specs = [spec for hands in read(fleet(tmp_path, text)).workers for spec in hands.specs()]
    assert [spec.name for spec in specs] == ["claude1", "claude2", "cx", "mine"]
    assert "--permissions=edit" in specs[0].arguments
    assert specs[2].arguments[-3:] == ("--", "-c", "x=1")
    assert {"--capacity=2", "--account=team", "--driver=codex"} <= set(specs[2].arguments)
    assert specs[3].arguments[-3:] == ("--", "my-agent", "-p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "workers"),
        ("workers = 3", "workers"),
        ("[[workers]]\ncount = 2", "neither"),
        ('[[workers]]\ndriver = "claude"\ncolour = "red"', "colour"),
        ('[[workers]]\ndriver = "claude"\ncommand = ["x"]', "no place"),
        ('[[workers]]\ndriver = "claude"\n[[workers]]\ndriver = "claude"', "claude1"),
        ('[[workers]]\ndriver = "claude"\ncount = 0', "count"),
        ("not toml [", "fleet.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(fleet(tmp_path, text))


def test_a_command_with_an_agents_program_gets_models_that_it_knows(tmp_path: Path) -> None:
    settings = load({"data_dir": str(tmp_path)}, environ={})
    command = ("/usr/bin/codex", "exec", "-m", "{model}", "-")
    worker = Chosen(words=command).worker(settings, "w1")
    assert (worker.agent, worker.cheap, worker.capable) == (None, "gpt-6-luna", "gpt-6.1-sol")
    assert "haiku" not in worker.models
    assert Chosen(words=command).worker(settings, "w1", models=("mine",)).cheap == ""
    assert Chosen(words=("codex", "exec", "-")).worker(settings, "w1").models == ()
    assert Chosen(words=("my-agent", "{model}")).worker(settings, "w1").models == ()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "none.toml")
