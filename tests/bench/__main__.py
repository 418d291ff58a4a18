"""``python -m tests.bench [NAMES…]``: measure, and print each figure with its aim.

``python -m tests.bench profile``: where the engine's time goes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tests.bench import table
from tests.bench.admission import admission
from tests.bench.bus_admission import bus_admission
from tests.bench.compare import compare
from tests.bench.footprint import fleet, idle, memory
from tests.bench.ground import Ground, machine
from tests.bench.measures import MEASURES, Figure, Plan, always
from tests.bench.page import page
from tests.bench.peers import peers
from tests.bench.profiling import profile
from tests.bench.reading import reading
from tests.bench.routing import delegate
from tests.bench.scraping import scraping
from tests.bench.several_buses import several_buses
from tests.bench.soak import million, soak
from tests.bench.turns import turns

EVERY = {
    "submit": MEASURES["submit"],
    "e2e": MEASURES["e2e"],
    "always": always,
    "latency": MEASURES["latency"],
    "peers": peers,
    **MEASURES,
    "delegate": delegate,
    "turns": turns,
    "admission": admission,
    "bus-admission": bus_admission,
    "idle": idle,
    "memory": memory,
    "fleet": fleet,
    "reading": reading,
    "scraping": scraping,
}
LONG = {"soak": soak, "million": million, "buses": several_buses}  # only by name: they take long
NAMES = (*EVERY, *LONG, "profile")


def main() -> None:
    asked = _arguments()
    plan = Plan(asked.repeats, asked.tasks, asked.events)
    with Ground.open(asked.fsync) as ground:
        about = machine(ground)
        print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
        if asked.names[:1] == ["profile"]:
            profile(ground, plan)
            return
        figures: list[Figure] = []
        if asked.base:
            table.show(compare(ground, plan, asked.base.resolve()))
            return
        for name in asked.names or EVERY:
            print(f"{name} …", flush=True)
            found = {**EVERY, **LONG}[name](ground, plan)
            table.show(found)
            figures += found
    if len(asked.names or EVERY) > 1:
        print()
        table.show(figures)
    if asked.page:
        command = " ".join(("python -m tests.bench", *sys.argv[1:]))
        asked.page.write_text(page(figures, about, command), encoding="utf-8")
    if asked.json:
        rows = [{**msgspec.structs.asdict(f), "reached": f.reached} for f in figures]
        asked.json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"machine": about, "figures": rows})) + b"\n"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--tasks", type=int, default=0, help="for submit, e2e, flat, soak and profile"
    )
    parser.add_argument("--events", type=int, default=200_000, help="on the log, for replay")
    parser.add_argument("--base", type=Path, help="another checkout: end to end, in paired waves")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write them as a page for people")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    asked = parser.parse_args()
    for name in asked.names:
        if name not in NAMES and asked.names[0] != "profile":
            parser.error(f"there is no measure {name!r}; one of {', '.join(NAMES)}")
    return asked


if __name__ == "__main__":
    main()
