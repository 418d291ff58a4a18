"""What a worker has started, so that it can be found and ended when nobody looks after it any more.

Each run of a command has a mark in its environment, which all its descendants inherit, however they
detach themselves. The marks of one worker's process begin alike, and that beginning stands in the
data folder while the process lives. Where it was killed together with a supervisor, the next start
of asb finds the record without its process and ends whatever carries such a mark. Nothing else is
ever touched. Linux only; a process that cleans its environment is not found.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path

from services.worker import identity

log = logging.getLogger("asb.worker")

MARK = "ASB_RUN_ID"
SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))
FORGOTTEN_S = 7 * 24 * 3600  # a record of another place, which nobody there has swept
_LOOKS = 20  # again, until a look finds nothing: a fork may be faster than one look

_ours = os.urandom(12).hex()
_count = itertools.count(1)


def new_mark() -> str:
    """The mark of a new run of this process."""
    return f"{_ours}.{next(_count)}"


def sweep(mark: str) -> int:
    """Kill everything of the run ``mark``, whose supervisor was itself killed; how many."""
    return _kill(lambda other: other == mark)


@contextlib.contextmanager
def recorded(data_dir: Path) -> Generator[None]:
    """While the block runs, ``data_dir`` names this process as one that starts runs. A folder that
    cannot be written to is no reason not to work."""
    folder = data_dir.expanduser() / "runs"
    record = folder / _ours
    place = identity.place()
    if not place:
        yield
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = folder / f".{_ours}"
        fresh.write_text(f"{place} {os.getpid()} {identity.stat(os.getpid())[1]}\n")
        fresh.replace(record)
    except OSError as error:
        log.warning("should it be killed, what this worker starts may go on: %s", error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)


def sweep_left_behind(data_dir: Path) -> int:
    """End what killed workers of this data folder left running on this machine; how many processes.
    Those below a living supervisor are its to end."""
    ended = 0
    for record in sorted((data_dir.expanduser() / "runs").glob("[0-9a-f]*")):
        try:
            place, pid, since = record.read_text().split()
            old = time.time() - record.stat().st_mtime > FORGOTTEN_S
        except (OSError, ValueError):
            continue
        if place != identity.place():
            if old:
                record.unlink(missing_ok=True)
        elif not identity.runs(int(pid), since):
            killed, left = _sweep_worker(record.name)
            ended += killed
            if not left:
                record.unlink(missing_ok=True)
    if ended:
        log.warning("ended %d processes that a killed worker had left behind", ended)
    return ended


def _sweep_worker(beginning: str) -> tuple[int, bool]:
    """Kill the runs of a worker that is gone; how many processes, and whether supervisors live."""
    supervised: set[str] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        mark = _mark_of(entry)
        if mark.partition(".")[0] == beginning and _is_supervisor(entry):
            supervised.add(mark)
    killed = _kill(lambda m: m.partition(".")[0] == beginning and m not in supervised)
    return killed, bool(supervised)


def _is_supervisor(entry: Path) -> bool:
    try:
        return SUPERVISOR.encode() in (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _mark_of(entry: Path) -> str:
    """The mark of a process, by its folder in /proc; "" for one that is not of a run."""
    try:
        for word in (entry / "environ").read_bytes().split(b"\0"):
            name, _, value = word.partition(b"=")
            if name == MARK.encode():
                return value.decode("utf-8", "replace")
    except OSError:
        pass  # it has ended, or is another user's
    return ""


def _kill(wanted: Callable[[str], bool]) -> int:
    killed: set[int] = set()
    for _ in range(_LOOKS):
        alive = 0
        for entry in Path("/proc").glob("[0-9]*"):
            mark = _mark_of(entry)
            if mark and wanted(mark):
                with contextlib.suppress(OSError):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.add(int(entry.name))
                    alive += 1
        if not alive:
            break
    return len(killed)
