"""What every command is, and the register of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import msgspec

from events.words import private_fields, public_fields


class Command(msgspec.Struct, gc=False):
    """An entry of an intake as it is written: its ``data``. ``type`` is its wire name."""

    type: ClassVar[str]
    private: ClassVar[frozenset[str]] = frozenset()
    public: ClassVar[frozenset[str]] = frozenset()


C = TypeVar("C", bound=Command)
COMMANDS: dict[str, type[Command]] = {}


def command(name: str) -> Callable[[type[C]], type[C]]:
    """Class decorator: entries of type ``name`` are written so."""

    def register(cls: type[C]) -> type[C]:
        cls.type = name
        cls.private, cls.public = frozenset(private_fields(cls)), public_fields(cls) | {"v"}
        COMMANDS[name] = cls
        return cls

    return register
