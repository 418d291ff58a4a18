"""redis: what agents say to Redis, with the rules of the bus around it.

Reading is free. Writing stays within the bus's own namespace and away from what only services
write; a progress document goes to its key and to the intake in one step, so it can be read at once
and is taken exactly once, whoever runs or does not run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, cast

import msgspec
import typer

from events import document
from events.keys import Keys
from events.secrets import masked_json
from services.cli import options
from services.cli.terminal import note, say, say_json
from services.client.bus import Bus
from services.progress import marks
from services.runtime.errors import CommandRefused, RedisUnavailable, Refused
from services.store.replies import Command

GLOB = frozenset("*?[")
RETRY_S = 1.0


class RedisCall(msgspec.Struct, frozen=True):
    """The options of one call; "" or None where one was not given."""

    key: str = ""
    value: str | None = None
    pattern: str = ""
    channel: str = ""

    @property
    def raw(self) -> bytes:
        """The value as it stood on the command line, byte for byte."""
        if self.value is None:
            raise typer.BadParameter("--value is missing")
        return os.fsencode(self.value)

    def need(self, name: str) -> str:
        value: str = getattr(self, name)
        if not value:
            raise typer.BadParameter(f"--{name} is missing")
        return value


def redis(
    command: Annotated[
        str,
        typer.Option(help="set, get, keys, publish, subscribe, del, xadd or ttl."),
    ],
    key: Annotated[str, typer.Option(help="The key: asb:progress:<agent>:<task>, …")] = "",
    value: Annotated[
        str | None, typer.Option(help="What to set, publish or add; JSON for documents.")
    ] = None,
    pattern: Annotated[
        str, typer.Option(help="Which keys: asb:progress:*; all of this bus without it.")
    ] = "",
    channel: Annotated[
        str, typer.Option(help="The channel; with * it is a pattern to subscribe to.")
    ] = "",
) -> None:
    """Progress documents, messages and keys, as agents use them.

    `set` on asb:progress:<agent>:<task> tells the bus about progress; `subscribe` prints a JSON
    line a message until Ctrl-C; `keys` never holds up the server.
    """
    chosen = COMMANDS.get(command.strip().lower())
    if chosen is None:
        raise typer.BadParameter(f"--command {command} is none of {', '.join(COMMANDS)}")
    asked = RedisCall(key, value, pattern, channel)
    with options.opened() as bus:
        chosen(bus, asked)


# -- reading -----------------------------------------------------------------------------------


def _get(bus: Bus, asked: RedisCall) -> None:
    key = asked.need("key")
    try:
        value = bus.client.call("GET", key)
    except CommandRefused as error:
        kind = bus.client.call("TYPE", key).decode()
        raise Refused(
            f"{key} is a {kind}, not a string ({str(error).split(' ', 1)[0]})",
            hint="asb events shows the log, asb task ID one task, asb deadletter what was refused",
        ) from error
    if value is None:
        raise Refused(f"{key} does not exist", hint=f"asb redis --command keys: {_all(bus.keys)}")
    if sys.stdout.isatty():
        say(value.decode("utf-8", "backslashreplace"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(value + b"\n")  # to a program exactly
    sys.stdout.buffer.flush()


def _keys(bus: Bus, asked: RedisCall) -> None:
    pattern = asked.pattern or asked.key or _all(bus.keys)
    for key in sorted(set(bus.client.scan(pattern))):
        say(key.decode("utf-8", "backslashreplace"))


def _ttl(bus: Bus, asked: RedisCall) -> None:
    key = asked.need("key")
    seconds = bus.client.call("TTL", key)
    if seconds == -2:
        raise Refused(f"{key} does not exist")
    say(str(seconds))


def _all(keys: Keys) -> str:
    return f"{keys.namespace}:*"


# -- writing -----------------------------------------------------------------------------------


def _set(bus: Bus, asked: RedisCall) -> None:
    key, raw = asked.need("key"), asked.raw
    if key.startswith(bus.keys.progress_prefix):
        _set_progress(bus, key, raw)
    else:
        _check_may_write(bus.keys, key, "set")
        bus.client.call("SET", key, raw)
    say("OK")


def _set_progress(bus: Bus, key: str, raw: bytes) -> None:
    """The key, and the intake with it: whoever sees the one sees the other, or will. Who may write
    only its own progress key is heard too: the bus looks at the key."""
    agent, _, task = key.removeprefix(bus.keys.progress_prefix).partition(":")
    raw = masked_json(document.as_json(raw))
    wrong = document.problem(agent, task, raw, bus.settings.tasks.result_max_bytes)
    if wrong:
        raise Refused(
            f"{key} was not set: {wrong}",
            hint='quote JSON for the shell: --value \'{"status": "in_progress", "progress": 60}\'',
        )
    named: dict[str, str] = {"agent": agent, "task": task}
    if len(bus.client.together([bus.keys.main_intake, key])) > 1:
        return _set_on_two_nodes(bus, key, raw, named)
    entry = _document_entry(bus.keys, raw, named)
    replies = bus.client.pipeline([("MULTI",), entry, ("SET", key, raw), ("EXEC",)])
    if isinstance(replies[-1], CommandRefused):
        if not _may_not(replies[1]):
            raise replies[-1]
        bus.client.call("SET", key, raw)
    return None


def _set_on_two_nodes(bus: Bus, key: str, raw: bytes, named: dict[str, str]) -> None:
    """On a Cluster no transaction spans both. The services see the key as soon as it is set, and
    may send the document, too: so it is taken only if it follows the one whose view it replaced.
    What replaces a document that nobody has looked at yet follows that, whatever becomes of it."""
    before: bytes | None = bus.client.call("SET", key, raw, "GET")
    view = marks.ours(key, before) if before else marks.Ours()
    if view is not None:
        named["newest"] = view.document
    (reply,) = bus.client.pipeline([_document_entry(bus.keys, raw, named)])
    if isinstance(reply, CommandRefused) and not _may_not(reply):
        raise reply


def _document_entry(keys: Keys, raw: bytes, named: dict[str, str]) -> Command:
    data = msgspec.json.encode(named)[:-1] + b',"document":' + raw + b"}"
    return ("XADD", keys.main_intake, "*", "type", "progress.updated", "data", data)


def _may_not(reply: object) -> bool:
    return "permission" in str(reply)


def _del(bus: Bus, asked: RedisCall) -> None:
    key = asked.need("key")
    _check_may_write(bus.keys, key, "del")
    if not bus.client.call("DEL", key):
        raise Refused(f"{key} does not exist")
    say("1")


def _xadd(bus: Bus, asked: RedisCall) -> None:
    """``--value`` is a JSON object: a field each; what is no text goes in as JSON."""
    key = asked.need("key")
    if key != bus.keys.main_intake and not key.startswith(bus.keys.main_intake + ":"):
        _check_may_write(bus.keys, key, "xadd")
    try:
        fields = msgspec.json.decode(asked.raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refused(
            f"--value is no JSON object: {error}",
            hint='--value \'{"type": "usage.recorded", "agent": "codex", "input_tokens": 1500}\'',
        ) from error
    if not fields:
        raise Refused("--value has no fields: an entry needs at least one")
    flat: list[str | bytes] = []
    for name, value in fields.items():
        flat += [name, value if isinstance(value, str) else msgspec.json.encode(value)]
    if fields.get("type") != "task.submitted":  # a prompt is handed to its agent as it is
        flat = [masked_json(x if isinstance(x, bytes) else x.encode()) for x in flat]
    say(bus.client.call("XADD", key, "*", *flat).decode())


def _check_may_write(keys: Keys, key: str, command: str) -> None:
    """Refuse keys that are not this bus's, and those that only its services write."""
    if key.startswith("{"):
        raise Refused(f"{key} is internal to asb: {command} would break the bus")
    if not key.startswith(f"{keys.namespace}:"):
        raise Refused(
            f"{key} is not a key of this bus, whose keys begin with {keys.namespace}:",
            hint="--namespace NAME (or ASB_NAMESPACE) names another bus; redis-cli writes anything",
        )
    for owned, hint in _owned(keys).items():
        if key == owned or (owned.endswith(":") and key.startswith(owned)):
            raise Refused(f"{key} is kept by asb's services: no {command} there", hint=hint)


def _owned(keys: Keys) -> dict[str, str]:
    """What only services write, with the way to do what was probably meant."""
    intake = f"agents write to the intake: asb redis --command xadd --key {keys.main_intake}"
    return {
        keys.log: f"the log is never changed; {intake}",
        keys.main_intake: intake,
        keys.main_intake + ":": intake,
        keys.deadletter: "see asb deadletter",
        keys.inbox(""): "asb submit and asb cancel speak to workers",
        keys.worker(""): "a worker renews its heartbeat itself: SET … EX with its own client",
        keys.report(""): "asb report --publish issues it anew",
        keys.throttle: "it is rewritten from the log; see asb throttle",
        keys.token_usage: "it is rewritten from the log; usage goes to the intake",
    }


# -- messages ----------------------------------------------------------------------------------


def _publish(bus: Bus, asked: RedisCall) -> None:
    """How many were listening."""
    say(str(bus.client.call("PUBLISH", asked.need("channel"), asked.raw)))


def _subscribe(bus: Bus, asked: RedisCall) -> None:
    """A JSON line a message until SIGINT or SIGTERM; over outages of Redis too."""
    channel = asked.channel or asked.pattern
    if not channel:
        raise typer.BadParameter("--channel is missing")
    with _until_signal():
        while True:
            try:
                _listen(bus, channel)
            except RedisUnavailable as error:
                note(f"{str(error).splitlines()[0]}; waiting for it")
                time.sleep(RETRY_S)


def _listen(bus: Bus, channel: str) -> None:
    for kind, *where, message in bus.client.messages(channel, pattern=bool(GLOB & set(channel))):
        name = where[-1].decode("utf-8", "replace")
        if kind in (b"message", b"pmessage"):
            say_json({"channel": name, "message": _parsed(message)}, pretty=False)
        else:
            note(f"listening on {name}; Ctrl-C stops")


def _parsed(data: bytes) -> Any:
    """A message as JSON where it is JSON, else as text."""
    try:
        msgspec.json.decode(data)
        return msgspec.Raw(msgspec.json.format(data, indent=-1))  # on one line
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data.decode("utf-8", "replace")


@contextmanager
def _until_signal() -> Generator[None]:
    """Leave the block, quietly, at SIGINT or SIGTERM."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, cast("Any", handler))


COMMANDS: dict[str, Callable[[Bus, RedisCall], None]] = {
    "set": _set,
    "get": _get,
    "keys": _keys,
    "publish": _publish,
    "subscribe": _subscribe,
    "del": _del,
    "xadd": _xadd,
    "ttl": _ttl,
}
