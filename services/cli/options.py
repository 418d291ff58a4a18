"""From the options of the command line to a Redis, its keys and its state."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING

from services.cli.arguments import OPTIONS, given
from services.runtime import logs
from services.runtime.settings import Settings, load
from services.runtime.urls import redacted

if TYPE_CHECKING:
    from services.client.bus import Bus


def settings(**more: object) -> Settings:
    """The settings, with this command line's on top. Raises ConfigError."""
    return load({**given, **{name: value for name, value in more.items() if value is not None}})


def arguments() -> list[str]:
    """The same options again, for a process of ours that shall see the same bus."""
    names = {name: option for option, name in OPTIONS.items()}
    return [f"{names[name]}={value}" for name, value in given.items()]


def for_another_terminal() -> str:
    """The options with which a command typed elsewhere, without our environment, sees this bus: as
    words before others, "" for none."""
    chosen = settings()
    names = {name: option for option, name in OPTIONS.items()}
    from_here = {
        name: getattr(chosen, name)
        for name, origin in chosen.origins.items()
        if name in names and name not in given and origin == "environment"
    }
    words = [f"{names[name]}={value}" for name, value in {**from_here, **given}.items()]
    return "".join(f" {redacted_option(word)}" for word in words)


def redacted_option(word: str) -> str:
    """An option as it may be shown: an address without its password."""
    name, _, value = word.partition("=")
    return f"{name}={redacted(value)}" if name == "--redis" else word


@contextlib.contextmanager
def opened(**more: object) -> Generator[Bus]:
    """The bus that the options name. Raises AsbError where there is none."""
    from services.client import bus  # with all that reading a log needs

    with bus.opened(settings(**more)) as opened_bus:
        yield opened_bus


def logs_to_stderr(level: int = logging.INFO) -> None:
    """What services and workers have to say goes to stderr, one line each."""
    logs.to_stderr(settings().log_format, level)
