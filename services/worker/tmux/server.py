"""tmux itself: sessions, panes, keys and pastes, by its own command line.

Which server it is says the environment, as for everybody (``TMUX``, ``TMUX_TMPDIR``). A pane is
named by its id; the name of a session is taken exactly, never as a beginning or a pattern.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence

import anyio.to_thread
import msgspec

from services.runtime.agent_hook import OPTION
from services.runtime.errors import ConfigError

CALL_S = 10.0  # a server that does not answer for so long is as good as none
WIDTH, HEIGHT = "200", "50"  # of a session that nobody looks at
STARTED = "@asb_started"  # of a session that a worker made
_SESSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_GROUP = "#{session_group}"
_FIELDS = "#{pane_id}\t#{pane_pid}\t#{pane_dead}\t#{pane_in_mode}"


class NoServer(Exception):
    """tmux does not answer, or has no such session."""


class Pane(msgspec.Struct, frozen=True):
    """A pane: its id, the process that it began with, and whether that is gone."""

    id: str
    pid: int
    dead: bool
    scrolled: bool  # a person looks at its past: keys would not reach the agent


def check_session(name: str) -> None:
    """Raises ConfigError for a name that tmux would read in another way."""
    if not _SESSION.fullmatch(name):
        raise ConfigError(
            f"--session {name[:60]!r} cannot be a session of tmux",
            hint="letters, digits, _ and -, at most 100 of them",
        )


async def call(*arguments: str, stdin: bytes = b"") -> str:
    """What tmux answers. Raises NoServer where it refuses, cannot be run or does not answer.

    In a thread: a server that is started by the way would keep an event loop's pipes open.
    """
    return await anyio.to_thread.run_sync(_call, arguments, stdin)


def _call(arguments: Sequence[str], stdin: bytes) -> str:
    try:
        done = subprocess.run(
            ["tmux", *arguments], input=stdin, capture_output=True, timeout=CALL_S, check=False
        )
    except OSError as error:
        raise NoServer(f"tmux cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NoServer(f"tmux does not answer within {CALL_S:.0f} s") from error
    if done.returncode:
        raise NoServer(done.stderr.decode("utf-8", "replace").strip() or "tmux refuses")
    return done.stdout.decode("utf-8", "replace")


async def pane_of(session: str) -> Pane | None:
    """The pane that a session shows; None where there is no such session."""
    try:
        line = await call("display-message", "-p", "-t", f"={session}:", _FIELDS)
    except NoServer:
        return None
    fields = line.strip("\n").split("\t")
    if len(fields) != 4 or not fields[1].isdigit():
        return None
    return Pane(fields[0], int(fields[1]), fields[2] == "1", fields[3] == "1")


async def start(session: str, command: Sequence[str], cwd: str, environ: Mapping[str, str]) -> Pane:
    """A session of its own for ``command``; what stood under that name and is dead gives way.
    Raises NoServer."""
    old = await pane_of(session)
    if old is not None and old.dead:
        await call("kill-session", "-t", f"={session}")
    size = ("-x", WIDTH, "-y", HEIGHT, "-c", cwd or os.getcwd())
    await call("new-session", "-d", "-s", session, *size, *_given(environ), "--", *command)
    pane = await pane_of(session)
    if pane is None:
        raise NoServer(f"{command[0]} ended at once")
    await call("set-option", "-t", pane.id, STARTED, "1")
    return pane


def _given(environ: Mapping[str, str]) -> list[str]:
    return [part for name, value in environ.items() for part in ("-e", f"{name}={value}")]


async def started_by_us(pane: Pane) -> bool:
    """Whether ``start`` made its session. Raises NoServer."""
    return bool((await call("show-options", "-qv", "-t", pane.id, STARTED)).strip())


async def start_anew(
    pane: Pane, command: Sequence[str], cwd: str, environ: Mapping[str, str]
) -> None:
    """``command`` in place of what runs in ``pane``, which is ended. Raises NoServer."""
    await call("respawn-pane", "-k", "-t", pane.id, "-c", cwd, *_given(environ), "--", *command)


async def sessions() -> set[str]:
    """The names of all sessions; none where there is no server, or no tmux."""
    try:
        return set((await call("list-sessions", "-F", "#{session_name}")).splitlines())
    except NoServer:
        return set()


async def mark(pane: Pane, signs: str) -> None:
    """Tell the hooks of the agent in ``pane`` where to write. Raises NoServer."""
    await call("set-option", "-p", "-t", pane.id, OPTION, signs)


async def paste(pane: Pane, text: str) -> None:
    """Put ``text`` into the input box, in one bracketed paste. Raises NoServer."""
    if pane.scrolled:
        await call("send-keys", "-t", pane.id, "-X", "cancel")
    buffer = f"asb-{secrets.token_hex(8)}"
    await call("load-buffer", "-b", buffer, "-", stdin=text.encode("utf-8", "replace"))
    await call("paste-buffer", "-p", "-d", "-b", buffer, "-t", pane.id)


async def press(pane: Pane, key: str) -> None:
    """Press one key, by its name in tmux. Raises NoServer."""
    await call("send-keys", "-t", pane.id, key)


async def end(session: str) -> None:
    """End a session, with all that runs in it. Raises NoServer."""
    await call("kill-session", "-t", f"={session}")


async def group_of(session: str) -> str:
    """The group of sessions that show the same panes; the session's own name where it has none."""
    group = ""
    with contextlib.suppress(NoServer):
        group = (await call("display-message", "-p", "-t", f"={session}:", _GROUP)).strip()
    return group or session


def default_socket() -> str:
    """Where the server of our environment listens, or would, if there is none yet."""
    if inside := os.environ.get("TMUX", "").rsplit(",", 2)[0]:
        return os.path.realpath(inside)
    folder = os.path.realpath(os.environ.get("TMUX_TMPDIR") or "/tmp")
    return f"{folder}/tmux-{os.getuid()}/default"


async def socket() -> str:
    """Where the server listens, for whoever asks from elsewhere. Raises NoServer."""
    return (await call("display-message", "-p", "#{socket_path}")).strip()
