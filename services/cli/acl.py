"""acl: a Redis user for a named agent, and its own intake stream."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from events.keys import Keys
from services.cli import options
from services.cli.terminal import note, say
from services.intake import schema
from services.intake.schema import Rejected
from services.runtime.errors import RedisUnavailable, Refused
from services.store import acl as rules
from services.store.client import SyncClient
from services.store.embedded import resolve_url

ASSUMED = (7, 0)


def acl(
    name: Annotated[
        str, typer.Argument(help="Its name: user, intake, inbox and progress keys use it.")
    ],
    role: Annotated[str, typer.Option(help="agent, service or viewer.")] = "agent",
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="A viewer reads what people wrote, too.")
    ] = False,
    password_file: Annotated[
        str | None,
        typer.Option(
            help="Where its password stands; - is stdin. A file that does not exist is made, "
            "with a new password only you can read. Only its hash is printed."
        ),
    ] = None,
    redis_version: Annotated[
        str | None, typer.Option(help="6.2, 7.0, …: instead of asking the Redis of the bus.")
    ] = None,
    open_intake: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the agent's own intake stream.")
    ] = True,
) -> None:
    """Print the line for Redis' ACL file that lets NAME do its work and nothing else.

    For an agent this also opens its own intake stream on the bus: from then on the engine reads it.
    """
    if role not in rules.ROLES:
        raise typer.BadParameter(f"--role is one of {', '.join(rules.ROLES)}")
    if with_texts and role != "viewer":
        raise typer.BadParameter("--with-texts goes with --role viewer")
    try:
        schema.check_name(name, "name")
    except Rejected as error:
        raise Refused(str(error), hint="a short word: letters, digits, - _ .") from None
    version = _parsed(redis_version) if redis_version else None
    settings = options.settings()
    secret = rules.password_hash(_password(password_file)) if password_file else rules.PLACEHOLDER
    client, missing = _connected()
    try:
        server_version = version or _version(client) or ASSUMED
        keys = Keys(settings.namespace)
        say(rules.line(name, role, keys, secret, server_version, with_texts=with_texts))
        _notes(name, role, server_version, secret)
        if role == "agent" and open_intake:
            _open(name, client, missing)
    finally:
        if client is not None:
            client.close()


def _notes(name: str, role: str, version: tuple[int, ...], secret: str) -> None:
    if secret == rules.PLACEHOLDER:
        note("put the hash of a password there, or use --password-file FILE")
    for weakness in rules.weaknesses(role, version):
        note(f"not enforced on Redis {'.'.join(map(str, version[:2]))}: {weakness}")
    note("put the line into the server's aclfile, then: redis-cli ACL LOAD")
    if role == "agent":
        note(
            f"its worker: asb worker {name} --intake {name} --redis redis://{name}:PASSWORD@HOST …"
        )


def _connected() -> tuple[SyncClient | None, str]:
    """The Redis of the bus, or why there is none: the line can be printed without it."""
    try:
        client = SyncClient(resolve_url(options.settings()))
        client.call("PING")
    except RedisUnavailable as error:
        return None, str(error).splitlines()[0]
    return client, ""


def _version(client: SyncClient | None) -> tuple[int, ...] | None:
    if client is None:
        return None
    version = re.search(rb"redis_version:(\d+)\.(\d+)", client.call("INFO", "server"))
    return (int(version[1]), int(version[2])) if version else None


def _parsed(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", text):
        raise typer.BadParameter(f"--redis-version {text!r} is not a version like 7.0")
    version = tuple(int(part) for part in text.split("."))
    if version < (6, 2):
        raise typer.BadParameter("asb needs Redis 6.2 or newer")
    return version


def _password(file: str) -> str:
    if file == "-":
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        path = Path(file)
        try:
            if not path.exists():
                _new_password(path)
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"the password file {file}: {error}", hint="check the path") from None
    if not password:
        raise Refused("the password is empty", hint="give one, or name a file that does not exist")
    return password


def _new_password(path: Path) -> None:
    """A file with a new password that only its owner can read, from its first moment on."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as opened:
        opened.write(secrets.token_urlsafe(32) + "\n")
    note(f"a new password stands in {path}")


def _open(name: str, client: SyncClient | None, missing: str) -> None:
    if client is None:
        note(f"the intake of {name} is not open yet: {missing}")
        raise typer.Exit(1)
    with options.opened() as bus:
        bus.send("intake.opened", {"name": name})
    note(f"opened the intake {bus.keys.intake(name)}")
