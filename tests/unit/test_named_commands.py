"""Commands that hints, help and pages name are there, with the options they are named with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.cli.commands import COMMANDS, loaded

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = {name for group in COMMANDS.values() for name in group}
GLOBAL = ("--redis", "--namespace", "--config", "--data-dir", "--log-format", "--version")
QUOTED = re.compile(r"(?<![\w`/.-])`?asb ([a-z][^`\n|;&#]*)")


def texts(path: Path) -> Iterator[str]:
    """What people may read of a file: a page, or the strings of a module; what is filled in is …"""
    if path.suffix == ".md":
        yield path.read_text()
        return
    tree = ast.parse(path.read_text())
    filled = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in filled for part in node.values}
    for node in filled:
        yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in parts:
            yield str(node.value)


def missing(line: str) -> list[str]:
    """What there is not of a command line behind `asb`."""
    words = line.split()
    name = words.pop(0).strip(".,:)'\"")
    if name not in NAMES:
        return [name] if words and words[0].startswith("-") else []  # else a sentence about asb
    command: Any = loaded(name)
    known = {"--help", "-h", *GLOBAL}
    while True:
        known |= {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        inner: dict[str, Any] = getattr(command, "commands", {})
        if not words or words[0].strip(".,:)'\"") not in inner:
            break
        command = inner[words.pop(0).strip(".,:)'\"")]
    before = words[: words.index("--")] if "--" in words else words
    options = (re.match(r"\[?(--[a-z][a-z-]*)", word) for word in before)
    return [match[1] for match in options if match and match[1] not in known]


FILES = [
    *sorted((ROOT / "services").rglob("*.py")),
    *sorted((ROOT / "ops").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]


def test_every_command_that_is_named_is_there() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: asb {match[1]}: no {' '.join(what)}"
        for path in FILES
        for text in texts(path)
        for match in QUOTED.finditer(text)
        if (what := missing(match[1]))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("tasks --all", ["--all"]),
        ("limits set tokens/day 1 --reasn x", ["--reasn"]),
        ("limits guard pause --reason why", []),
        ("worker w1 --driver claude -- cmd --its-own", []),
        ("nothing --here", ["nothing"]),
    ],
)
def test_this_check_sees_what_it_looks_for(line: str, what: list[str]) -> None:
    assert missing(line) == what
