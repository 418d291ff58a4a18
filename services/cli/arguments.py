"""The command line before a command sees it: options that hold everywhere, and texts."""

from __future__ import annotations

import sys

from events.harmless import harmless
from services.cli.terminal import note

# Options that may stand without their value, and which that is then.
UNSAID = {"--watch": "2", "--week": "this", "--month": "this"}

# Options that every command takes; `main` fills this before the command runs.
given: dict[str, str] = {}
OPTIONS = {
    "--redis": "redis_url",
    "--namespace": "namespace",
    "--config": "config",
    "--data-dir": "data_dir",
    "--log-format": "log_format",
}


def take_options(arguments: list[str]) -> list[str]:
    """Move the options that hold everywhere into ``given``, wherever they stand before ``--``.

    ``--watch``, ``--week`` and ``--month`` may stand without a value, which the parser does not
    know: it is put in.
    """
    given.clear()
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return [*rest, argument, *waiting]
        name, equals, value = argument.partition("=")
        if name in OPTIONS:
            text = value if equals else next(waiting, None)
            if text is None:
                note(f"error: {name} needs a value")
                sys.exit(2)
            given[OPTIONS[name]] = text
        else:
            rest.append(argument)
    return _with_values(rest)


def check_texts(arguments: list[str]) -> None:
    """A task's text that begins like an option is none: say where it goes. Ends with 2."""
    for argument in arguments:
        if argument == "--":
            break
        if not argument.isascii() and harmless(argument).count("\\udc"):
            note(f"error: {argument[:40]!r} is not UTF-8\nhint: give it another name")
            sys.exit(2)
    before = ""
    for argument in arguments if arguments[:1] == ["submit"] else ():
        if argument == "--":
            return
        is_text = argument.startswith("-") and " " in argument.partition("=")[0]
        if is_text and not before.startswith("-"):
            note(
                f"error: {argument[:40]!r} looks like an option\n"
                "hint: texts that begin with '-' go behind --: asb submit -- '- [ ] do it'"
            )
            sys.exit(2)
        before = argument


def _with_values(arguments: list[str]) -> list[str]:
    for name, value in UNSAID.items():
        if name in arguments:
            place = arguments.index(name) + 1
            if place == len(arguments) or arguments[place].startswith("-"):
                arguments.insert(place, value)
    return arguments
