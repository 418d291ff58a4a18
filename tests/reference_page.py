"""ops/reference.md, made from the code: `python -m tests.reference_page` writes it anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from events import keys
from events.envelope import known_types, payload_class
from projections import fold as _every_type  # pyright: ignore[reportUnusedImport] # noqa: F401
from services.cli.commands import COMMANDS, loaded
from services.exporter.catalogue import CATALOGUE
from services.runtime.settings import describe, load

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ops" / "reference.md"
HEAD = """# Reference

Made from the code by `python -m tests.reference_page`; a test holds it to that. Every command has
`--help` besides."""


def page() -> str:
    """The whole page."""
    sections = (
        ("Commands", commands()),
        ("Settings", settings()),
        ("Keys and channels", names()),
        ("Events", events()),
        ("Metrics", metrics()),
        ("Alerts", alerts()),
    )
    return "\n\n".join([HEAD, *(f"## {title}\n\n" + "\n".join(x) for title, x in sections)]) + "\n"


def row(*cells: str) -> str:
    """One row of a table; what stands in a cell stays in it."""
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"


def table(*heads: str) -> Iterator[str]:
    yield row(*heads)
    yield "|" + "---|" * len(heads)


def commands() -> Iterator[str]:
    for title, group in COMMANDS.items():
        yield f"### {title}\n"
        yield from table("command", "what it does", "options")
        for name in group:
            yield from _command(f"asb {name}", loaded(name))
        yield ""


def _command(path: str, command: Any) -> Iterator[str]:
    inner: dict[str, Any] = getattr(command, "commands", {})
    named = [p for p in command.params if not getattr(p, "hidden", False)]
    words = [p.metavar or p.name.upper() for p in named if p.param_type_name == "argument"]
    options = ["/".join(p.opts) for p in named if p.param_type_name == "option"]
    said = (command.help or "").strip().split("\n\n")[0]
    yield row(f"`{' '.join([path, *words])}`", said, " ".join(f"`{o}`" for o in options))
    for name, each in sorted(inner.items()):
        yield from _command(f"{path} {name}", each)


def settings() -> Iterator[str]:
    yield "A setting `tasks.lease_s` is `[tasks] lease_s` in asb.toml and `ASB_TASKS_LEASE_S`.\n"
    yield from table("setting", "default", "meaning")
    for known in describe(load(environ={"HOME": "/nowhere"}, cwd=ROOT / "tests")):
        yield row(f"`{known.name}`", known.default, known.meaning)


def names() -> Iterator[str]:
    lines = inspect.getdoc(keys) or ""
    yield from table("key or channel", "type", "what")
    for match in re.finditer(r"^(``\S+``) +(\w+) +(.+)$", lines, re.MULTILINE):
        yield row(match[1].replace("``", "`"), match[2], match[3])


def events() -> Iterator[str]:
    yield from table("type", "what it says", "fields")
    for name in known_types():
        kind = payload_class(name)
        assert kind is not None
        fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(kind))
        said = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("``", "`")
        yield row(f"`{name}`", said, fields)


def metrics() -> Iterator[str]:
    for title, group in CATALOGUE.items():
        yield f"### {title}\n"
        yield from table("metric", "type", "labels", "meaning")
        for known in group:
            labels = ", ".join(f"`{label}`" for label in known.labels)
            yield row(f"`{known.exposed}`", known.kind, labels, known.help)
        yield ""


def alerts() -> Iterator[str]:
    yield "What to do about each stands in `ops/runbook.md`.\n"
    yield from table("alert", "objective", "after", "severity")
    rules = yaml.safe_load((ROOT / "ops" / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in (rule for group in rules for rule in group["rules"]):
        objective = rule["annotations"]["objective"]
        yield row(f"`{rule['alert']}`", objective, str(rule["for"]), rule["labels"]["severity"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
