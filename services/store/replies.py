"""What Redis answers when it refuses, and which of our errors that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import hiredis

from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.store.address import SILENCE_SECONDS

_hiredis: Any = hiredis
Word = str | bytes | int | float
Command = Sequence[Word]
HELLO = ("HELLO",)  # every user may ask it, and a server says what it is
PING = ("PING",)

WRONG_TYPE = "WRONGTYPE"  # how Redis begins the error
WRONG_TYPE_HINT = (
    "somebody wrote something else there: look at it (redis-cli TYPE), then RENAME or DEL it; "
    "`asb doctor` shows every such key"
)

_RETRY_MAY_HELP = {
    "LOADING": "it is still loading its data: wait a moment",
    "READONLY": "it is a read-only replica: point --redis at the primary",
    "MISCONF": "it cannot persist to disk: free disk space, then try again",
    "OOM": "it is full: raise maxmemory, or trim old data",
    "MASTERDOWN": "its primary is down: wait for the failover",
    "CLUSTERDOWN": "the cluster is down: wait, or repair it",
    "TRYAGAIN": "the cluster is moving this slot: wait a moment",
    "MOVED": "the cluster does not agree yet who serves this slot: wait a moment",
    "ASK": "the cluster is moving this slot: wait a moment",
    "UNBLOCKED": "it has changed its role: wait for the failover",
    "BUSY": "a script is blocking it: wait, or SCRIPT KILL",
}
_ABSENT_HINT = "start it, or run `asb up` without --redis for an embedded one"
_SILENT_HINT = "it is stopped, overloaded or behind a firewall"
_WANTS_OURS = "may want to know who we are: ?ssl_certfile=FILE&ssl_keyfile=FILE"
_UNREADABLE = "?ssl_ca_certs, ssl_certfile or ssl_keyfile names no PEM file that can be read"
_TLS_HINTS = {
    "it says nothing": f"{_SILENT_HINT}, or speaks no TLS there",
    "certificate is not valid for": "its certificate names another host: ask it by that name",
    "Hostname mismatch": "its certificate names another host: ask it by that name",
    "certificate has expired": "have its certificate renewed",
    "CERTIFICATE_VERIFY_FAILED": "?ssl_ca_certs=FILE names who signed its certificate",
    "CERTIFICATE_REQUIRED": f"it {_WANTS_OURS}",
    "EOF occurred in violation of protocol": f"it was stopped, or {_WANTS_OURS}",
    "Connection reset": f"it was stopped, or {_WANTS_OURS}",
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: redis:// instead of rediss://",
    "No such file": _UNREADABLE,
    "Permission denied": _UNREADABLE,
    "PEM": _UNREADABLE,
}
_WILL_NOT_HELP = {
    "NOAUTH": "it wants a password: put it into the URL, redis://:PASSWORD@HOST",
    "WRONGPASS": "user or password is wrong: check the URL",
    "NOPERM": "this Redis user may not do that: see `asb acl`",
}
# Whoever is asked is no primary any more: the next connection may lead to the one that is.
_ROLE_CHANGED = frozenset(("READONLY", "MASTERDOWN", "UNBLOCKED"))
# A node of a Cluster that answers so did nothing; another may serve the key, or it itself soon.
_NOT_HERE = _ROLE_CHANGED | {"LOADING", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"}
_TOO_MANY = "max number of clients"
_SCRIPT_ERROR = re.compile(r"(?:ERR )?Error running script .* -([A-Z]+) ")


def classified(shown: str, text: str) -> Exception:
    """The error for one that the Redis at ``shown`` answered with ``text``: RedisUnavailable,
    RedisUnsuitable or, where it is about one command only, CommandRefused."""
    code = _code_of(text)
    if code in _RETRY_MAY_HELP:
        return RedisUnavailable(f"Redis at {shown}: {text}", hint=_RETRY_MAY_HELP[code])
    if code in _WILL_NOT_HELP:
        return RedisUnsuitable(f"Redis at {shown}: {text}", hint=_WILL_NOT_HELP[code])
    if _TOO_MANY in text:
        return RedisUnavailable(f"Redis at {shown}: {text}", hint="raise its maxclients")
    return CommandRefused(text)


def is_not_here(reply: Any) -> bool:
    """Whether a node of a Cluster that answers so did nothing: another node, or a later moment, is
    the right one."""
    return isinstance(reply, Exception) and _code_of(str(reply)) in _NOT_HERE


def _code_of(text: str) -> str:
    inner = _SCRIPT_ERROR.match(text)  # 6.2 wraps what a command in a script answered
    return inner[1] if inner else text.split(" ", 1)[0]


def has_changed_role(reply: Exception) -> bool:
    """Whether a server that answers so is no primary (any more)."""
    return _code_of(str(reply)) in _ROLE_CHANGED


def refused_login(shown: str, text: str) -> Exception:
    """The error for a login that the Redis at ``shown`` answered with ``text``."""
    error = classified(shown, text)
    if isinstance(error, RedisUnavailable):
        return error
    return RedisUnsuitable(
        f"Redis at {shown} refused the login: {text}", hint=_WILL_NOT_HELP["WRONGPASS"]
    )


def refused_opening(shown: str, command: Command, text: str) -> Exception:
    """The error for a ``command`` that opens a connection and was answered with ``text``."""
    return refused_login(shown, text) if command[0] == "AUTH" else classified(shown, text)


def no_answer(shown: str, error: Exception) -> RedisUnavailable:
    """The error for a connection that cannot be made, or was lost."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    hint = _ABSENT_HINT
    if isinstance(error, TimeoutError):
        reason, hint = "it says nothing", _SILENT_HINT
    if shown.startswith("rediss"):
        hint = next((hint for sign, hint in _TLS_HINTS.items() if sign in reason), hint)
    return RedisUnavailable(f"no Redis answers at {shown}: {reason}", hint=hint)


def limit_of(commands: Sequence[Command]) -> float:
    """Seconds of silence after which nobody answers ``commands``: what the last of them may block
    comes on top."""
    last = commands[-1]
    if last[0] in ("WAIT", "WAITAOF"):
        return SILENCE_SECONDS + float(last[-1]) / 1000
    if last[0] == "XREAD" and "BLOCK" in last:
        return SILENCE_SECONDS + float(last[list(last).index("BLOCK") + 1]) / 1000
    return SILENCE_SECONDS


def packed(commands: Sequence[Command]) -> bytes:
    """The commands as they are sent."""
    if len(commands) == 1:
        return _hiredis.pack_command(commands[0])
    return b"".join(map(_hiredis.pack_command, commands))


def is_cluster(hello: Any) -> bool:
    """Whether who answered ``HELLO`` so is a node of a Cluster. Who knows no HELLO is none."""
    return isinstance(hello, list) and b"cluster" in hello


# -- keys of another type --------------------------------------------------------------------------


def wrong_type(keys: Mapping[str, str]) -> CommandRefused:
    """The error for a key that holds something else than asb keeps there, among ``keys``, which
    are given with the types they are of."""
    named = " or ".join(f"{key} (a {kind})" for key, kind in keys.items())
    return CommandRefused(f"{WRONG_TYPE} {named} is not what asb keeps there")


def is_wrong_type(command: Command, error: Exception) -> bool:
    """Whether the key of a plain command is to be named; a script's keys are its caller's."""
    return str(error).startswith(WRONG_TYPE) and command[0] not in ("EVALSHA", "EVAL", "TYPE")


def key_of(command: Command) -> Word:
    """The (first) key of a plain command."""
    if "STREAMS" in command:
        return command[list(command).index("STREAMS") + 1]
    return command[2] if command[0] in ("XINFO", "XGROUP", "MEMORY", "OBJECT") else command[1]


def name_of(key: Word) -> str:
    """A key as text."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def info_of(reply: bytes) -> dict[str, str]:
    """What INFO answered, by name."""
    lines = bytes(reply).decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
