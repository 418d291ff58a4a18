"""Which process a worker is, and whether the one that held its name before still runs.

A name belongs to its holder while that is seen alive, and the heartbeat of a process that was
killed stays for half a lease. So whoever takes the name again looks for itself: the heartbeat says
where the holder runs, and in the same place it can be seen whether it does.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from events.worker import WorkerHeartbeat

_PROC = Path("/proc")
_ENDED = ("Z", "X")  # a zombie only waits to be collected


@cache
def place() -> str:
    """Host, boot and PID namespace: where a pid means one process. "" where that cannot be told."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    return f"{platform.node()}/{boot}/{namespace}".replace(" ", "_")


def heartbeat(session: str, instance: str, keeper: str = "") -> WorkerHeartbeat:
    """That of a worker in this process; ``instance`` and ``keeper``: see ``WorkerHeartbeat``."""
    pid = os.getpid()
    return WorkerHeartbeat(session, instance, place(), str(pid), stat(pid)[1], keeper)


def stat(pid: int) -> tuple[str, str]:
    """State (a letter) and start (clock ticks since the boot) of a process; "" twice where there
    is nothing to be seen of it."""
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return "", ""
    # The command's name, in brackets, may hold anything, brackets too.
    fields = line.rpartition(b")")[2].decode().split()
    return fields[0], fields[19]


def runs(pid: int, since: str) -> bool:
    """Whether the process ``pid`` of this place that started at ``since`` may still be there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's, but there
    state, began = stat(pid)
    return not state or (state not in _ENDED and began == since)  # hidden from us: it may be


def death_of(holder: WorkerHeartbeat, keeper: str = "") -> str:
    """What shows that ``holder`` is dead, as a sentence; "" where it may be alive.

    ``keeper`` is our own: whoever has the lock that the holder's `asb up` held knows it is gone.
    """
    lock, _, nonce = holder.keeper.rpartition(".")
    our_lock, _, our_nonce = keeper.rpartition(".")
    if lock and lock == our_lock and nonce != our_nonce:
        return "the asb up that ran it is gone, another has the lock of its data folder"
    if not holder.place or holder.place != place() or not holder.pid.isdigit():
        return ""
    return "" if runs(int(holder.pid), holder.started) else f"its process {holder.pid} is gone"
