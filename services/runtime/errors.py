"""What can go wrong, as a person should read it.

::

    AsbError                 what, why, and a hint of what to do next
    ├── ConfigError          a setting is unknown, of the wrong type or out of range
    ├── Refused              the input cannot be accepted as it is; nothing was written
    ├── RedisUnavailable     no answer, loading, read-only, full: retry may help
    ├── RedisUnsuitable      too old, wrong role, evicts keys: retry does not help
    └── LogError             the log holds something this version must not go past
        └── BeginningLost    its beginning was cut off, and no snapshot covers that
"""

from __future__ import annotations


class AsbError(Exception):
    """An error shown to a person: one sentence, then ``hint: …`` on a line of its own."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\nhint: {self.hint}" if self.hint else message


class ConfigError(AsbError):
    """A setting is unknown, of the wrong type or out of range; the message names it."""


class Refused(AsbError):
    """The input cannot be accepted as it is; nothing was written."""


class RedisUnavailable(AsbError):
    """Redis does not answer, is loading, read-only or full: trying again may help."""


class RedisUnsuitable(AsbError):
    """This Redis cannot carry a bus: trying again does not help."""


class LogError(AsbError):
    """The log holds an event that this version must not go past."""


class BeginningLost(LogError):
    """The log was cut, and no snapshot covers what stood before."""


class CommandRefused(Exception):
    """Redis answered one command with an error; ``str()`` is Redis' own text, but for a key of
    another type, which is named."""
