"""manager: the seed's prompt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from services.cli import options
from services.cli.terminal import note, say
from services.concurrent_task_manager import ConcurrentTaskManager
from services.runtime.errors import AsbError, RedisUnavailable

AUTO_S = 10
HELP = """\
add TEXT     submit a task
status       queue, totals, throttle, workers
metrics      tokens and cost in detail
throttle     limits and levels
distribute   what has moved since the last look (the bus dispatches by itself)
auto         distribute every 10 seconds, until Ctrl-C
quit         leave; the bus goes on"""


def manager(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks to add; without any, a prompt.")
    ] = None,
) -> None:
    """The task manager's prompt: add, status, metrics, throttle, distribute, auto, quit."""
    found = ConcurrentTaskManager(settings=options.settings())
    try:
        if tasks:
            for text in tasks:
                say(f"{found.add_task(text)}  {text}")
            time.sleep(0.2)  # so that the screen shows them where they went
            say()
            say(found.status())
        else:
            _prompt(found)
    finally:
        found.close()


def _prompt(found: ConcurrentTaskManager) -> None:
    commands: dict[str, Callable[[], object]] = {
        "status": found.status,
        "metrics": found.metrics,
        "throttle": found.throttle,
        "distribute": found.distribute_tasks,
        "help": lambda: HELP,
    }
    person = sys.stdin.isatty()
    if person:
        note("add TEXT, status, metrics, throttle, distribute, auto, quit; help explains")
    while True:
        line = _read(person)
        if line is None or line in ("quit", "exit"):
            return
        word, _, rest = line.partition(" ")
        try:
            if word == "add":
                say(f"Added {found.add_task(rest.strip())}")
            elif word == "auto":
                _auto(found)
            elif word in commands:
                say(str(commands[word]()))
            elif word:
                note(f"{word}? one of add, {', '.join(commands)}, auto, quit")
        except RedisUnavailable:
            raise
        except AsbError as error:
            note(f"error: {error}")
        sys.stdout.flush()


def _read(person: bool) -> str | None:
    """The next line, None at the end of the input."""
    if person:
        sys.stderr.write("> ")
        sys.stderr.flush()
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    return line.strip() if line else None


def _auto(found: ConcurrentTaskManager) -> None:
    note(f"every {AUTO_S} s; Ctrl-C ends it")
    try:
        while True:
            say(str(found.distribute_tasks()))
            sys.stdout.flush()
            time.sleep(AUTO_S)
    except KeyboardInterrupt:
        note("")
