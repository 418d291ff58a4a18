"""The command line of a run: route and prompt put into the arguments that the user wrote. PURE.

A prompt in an argument is data for whoever wrote the command, and an instruction for the program
that reads it: ``--help`` is an option, ``@notes.md`` a file, ``review`` a subcommand. So a prompt
goes into an argument only where it cannot be one of these, and is refused otherwise, with the way
out: standard input takes every prompt as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from services.runtime.errors import ConfigError
from services.worker.task import PermanentError, Task

PROMPT = "{prompt}"
ROUTE = re.compile(r"(?<!\$)\{(model|agent)\}")  # "${model}" is a variable of some script
# Agents that have subcommands or commands of their own in a prompt: one word may be one.
_WITH_COMMANDS = frozenset(
    ("claude", "codex", "gemini", "opencode", "goose", "qwen", "amp", "copilot", "cursor-agent")
)
_SCRIPT_FLAGS = {
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"), r"-[a-z]*c"),
    **dict.fromkeys(("python", "python3"), r"-[A-Za-z]*c"),
    **dict.fromkeys(("perl", "ruby", "node", "lua"), r"-[a-z]*e|--eval"),
}
_STDIN = (
    f"leave out {PROMPT}, and the command reads every prompt, as it is, from its standard input"
)


def check(command: Sequence[str]) -> None:
    """Raises ConfigError where prompts would become code: within a script that a shell or an
    interpreter is given as an argument."""
    for n, part in enumerate(command):
        flag = _SCRIPT_FLAGS.get(PurePath(part).name)
        script = next((i for i in range(n + 1, len(command)) if command[i][:1] != "-"), 0)
        if (
            flag
            and script
            and re.fullmatch(flag, command[script - 1])
            and PROMPT in command[script]
        ):
            raise ConfigError(
                f"{PROMPT} stands in a script for {part}: every prompt would run as code",
                hint=f'{_STDIN}; or write "$1" there and put {PROMPT} behind the script',
            )


def filled(command: Sequence[str], task: Task) -> list[str]:
    """The command for ``task``. The prompt is put in last: what stands in it is never read as a
    placeholder. Raises PermanentError where the prompt cannot be an argument there."""
    route = {"model": task.model, "agent": task.agent}
    parts = [ROUTE.sub(lambda match: route[match[1]], part) for part in command]
    if not any(PROMPT in part for part in command):
        return parts
    text = task.text.encode("utf-8", "replace").decode()
    for n, part in enumerate(parts):
        wrong = _wrong(parts, n, text) if PROMPT in part else ""
        if wrong:
            raise PermanentError(f"{wrong}: {_STDIN}")
    return [part.replace(PROMPT, text) for part in parts]


def _wrong(parts: list[str], n: int, text: str) -> str:
    """Why the prompt may not stand in argument ``n``, "" where it may."""
    if "\0" in text:
        return "the prompt holds a NUL character, which an argument cannot"
    if not parts[n].startswith(PROMPT):
        return ""  # --prompt={prompt}: whatever it is, it is the value
    closed = "--" in parts[:n]  # what follows is no option and no subcommand
    start = text[:1]
    if start == "-" and (not closed or text == "-"):
        return f"the prompt begins with '-', and {parts[0]} would take it for an option"
    if start == "@":
        return f"the prompt begins with '@', and {parts[0]} may read it as the name of a file"
    known = PurePath(parts[0]).name in _WITH_COMMANDS
    if known and start == "/":
        return f"the prompt begins with '/', and {parts[0]} may take it for a command of its own"
    if known and not closed and parts[n] == PROMPT and not re.search(r"\s", text.strip()):
        return f"the prompt is one word, and {parts[0]} may take it for a subcommand"
    return ""
