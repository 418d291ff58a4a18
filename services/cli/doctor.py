"""doctor, config: is all well, and what is set."""

from __future__ import annotations

from typing import Annotated

import anyio
import typer

from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.queries.doctor.checks import CHECKS, sums
from services.queries.doctor.findings import Look, rows
from services.runtime.settings import describe
from services.screens.doctor import doctor_text
from services.screens.text import folded, table
from services.store.client import Client
from services.store.health import ServerFacts, read_facts


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Add up the whole log: is every sum the same?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same findings as JSON.")] = False,
) -> None:
    """Say how things stand: Redis and what it promises, the log, the engine, workers, policy.

    --deep compares the sum of all charges on the raw log with every window, the totals by agent
    and by day, the reports, and the views as they stand in Redis.

    Exit code 1 when something is bad.
    """
    with options.opened() as bus:
        look = Look(bus, anyio.run(_facts, bus.client.url, bus.keys.log))
        facts = list(rows(look, CHECKS))
        if deep:
            facts += rows(look, [("sums", sums)])
    bad = any(row[2] == "bad" for row in facts)
    if as_json:
        checks = [
            dict(zip(("name", "value", "verdict", "hint"), row, strict=True)) for row in facts
        ]
        say_json({"good": not bad, "checks": checks})
    else:
        say(doctor_text(facts, width()))
    if bad:
        raise typer.Exit(1)


async def _facts(url: str, home: str) -> ServerFacts:
    client = Client(url, home)
    try:
        return await read_facts(client)
    finally:
        await client.close()


def config(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Every setting: its value, where that came from, and what it means."""
    chosen = options.settings()
    facts = describe(chosen)
    if as_json:
        rows = [
            {
                "name": r.name,
                "value": r.raw,
                "origin": r.origin,
                "default": r.default,
                "meaning": r.meaning,
            }
            for r in facts
        ]
        say_json({"file": str(chosen.file) if chosen.file else None, "settings": rows})
        return
    note(f"file: {chosen.file}" if chosen.file else "no configuration file")
    heads, columns = ("SETTING", "VALUE", "FROM", "MEANING"), width()
    cells = [(r.name, r.value, r.origin, r.meaning) for r in facts]
    if not columns:
        say(table(heads, cells))
        return
    for name, value, origin, meaning in cells:
        say(folded(f"{name} = {value or '(nothing)'} ({origin})", columns))
        say(folded(meaning, columns, "    "))
