"""The table of commands: what each does, and where it lives. Help needs no more."""

from __future__ import annotations

from typing import Final, NamedTuple

EVERYWHERE = (
    "Every command takes: --redis URL, --namespace NAME, --config FILE, --data-dir FOLDER, "
    "--log-format text|json."
)


class Place(NamedTuple):
    """Where a command lives: a function or, for a group of commands, a ``typer.Typer``."""

    module: str
    name: str
    summary: str


COMMANDS: Final[dict[str, dict[str, Place]]] = {
    "Run a bus": {
        "up": Place("up", "up", "Run a bus until Ctrl-C."),
        "fleet": Place("fleet", "app", "A bus with workers of several agents."),
        "demo": Place("demo", "demo", "See it at work, on a bus of its own."),
        "service": Place("up", "service", "Run some services alone."),
        "worker": Place("work", "worker", "Run a worker until Ctrl-C."),
        "attach": Place("hooks", "attach", "Look over an agent's shoulder, in tmux."),
        "hooks": Place("hooks", "app", "Hooks by which agents in tmux say what they do."),
        "agent-hook": Place("hooks", "agent_hook", "What stands in an agent's hook settings."),
        "telemetry": Place("telemetry", "app", "Count agents that asb did not start."),
        "pause": Place("work", "pause", "Give workers no new tasks."),
        "resume": Place("work", "resume", "Give paused workers tasks again."),
    },
    "Tasks": {
        "submit": Place("submit", "submit", "Submit tasks: arguments, a file, or lines."),
        "tasks": Place("tasks", "tasks", "List tasks, or say why they wait."),
        "task": Place("tasks", "task", "One task's whole history."),
        "cancel": Place("tasks", "cancel", "Cancel tasks."),
        "retry": Place("tasks", "retry", "Submit ended tasks again."),
        "forget": Place("forget", "forget", "What was written for tasks goes for good."),
        "manager": Place("manager", "manager", "The task manager's prompt."),
        "delegator": Place("delegator", "app", "Teach, check and ask the delegator."),
        "routes": Place("routes", "routes", "Where each kind of task goes."),
    },
    "See": {
        "top": Place("top", "top", "Watch the fleet, now or at any moment."),
        "status": Place("view", "status", "The bus on one screen."),
        "metrics": Place("view", "metrics", "Tokens and cost, in all and by worker."),
        "report": Place("reports", "report", "Tokens and cost of a day, week or month."),
        "throttle": Place("view", "throttle", "How far each budget is used."),
        "events": Place("log", "events", "What happened, in order."),
        "archive": Place("archive", "archive", "The log in files, with a hash chain."),
        "replay": Place("log", "replay", "The state at any moment, or its proof."),
        "doctor": Place("doctor", "doctor", "How things stand, and what to do."),
        "completion": Place("completion", "completion", "Commands and options, for your shell."),
        "config": Place("doctor", "config", "Every setting, and where it came from."),
    },
    "Budgets": {
        "limits": Place("limits", "app", "What may be used: show it, change it."),
        "policy": Place("policy", "app", "Limits, prices, saving, guard."),
        "alerts": Place("alerts", "alerts", "Levels reached, and budgets passed."),
        "account": Place("account", "app", "Provider limits: who waits, until when."),
        "prices": Place("prices", "prices", "What models cost."),
        "usage": Place("usage", "app", "What killed attempts used, by their transcripts."),
        "correct": Place("correct", "correct", "Put right what an attempt was charged."),
    },
    "Redis": {
        "redis": Place("redis_command", "redis", "Progress and messages, as agents use them."),
        "acl": Place("acl", "acl", "The ACL line of a foreign writer."),
        "deadletter": Place("deadletters", "deadletter", "Entries that were refused."),
    },
}
PLACES: Final = {name: place for group in COMMANDS.values() for name, place in group.items()}

_HEAD = """\
Usage: asb [OPTIONS] COMMAND [ARGS]...

  The bus for a fleet of AI agents: tasks go in, agents do them, budgets hold.

Options:
  --redis URL        Redis to use, instead of the embedded one.
  --namespace NAME   First part of every key: one bus each.
  --config FILE      The TOML file with the settings.
  --data-dir FOLDER  Folder of the embedded Redis.
  --log-format KIND  What services say on stderr: text, or json.
  --version          Print the version.
  -h, --help         Show this message and exit.
"""
_FOOT = "\nBegin with: asb demo\nOf one command: asb COMMAND --help\n"


def help_text() -> str:
    """What ``asb --help`` says."""
    width = max(map(len, PLACES)) + 2
    groups = (
        f"\n{title}:\n"
        + "".join(f"  {name.ljust(width)}{place.summary}\n" for name, place in group.items())
        for title, group in COMMANDS.items()
    )
    return _HEAD + "".join(groups) + _FOOT
