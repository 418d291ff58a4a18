"""Which agents have a driver: a name and its file. A file is loaded when its agent is asked for."""

from __future__ import annotations

from importlib import import_module

from services.worker.drivers.agent import Agent

AGENTS = ("claude", "codex", "gemini")


def agent(name: str) -> Agent:
    """The table of the agent ``name``, one of AGENTS."""
    return import_module(f"services.worker.drivers.{name}").AGENT
