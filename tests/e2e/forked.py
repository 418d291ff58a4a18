"""Hundreds of command lines in seconds: one process loads asb once and forks for each of them.

    python -m tests.e2e.forked

Reads a line of JSON per command (`Line`), runs `asb` in a child with the streams and variables that
it names, and answers with a line of JSON (`Answer`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from tests.e2e.cli import ROOT, environment

SECONDS = 2  # until a command that runs on is interrupted, as by Ctrl-C


class Line(msgspec.Struct):
    """A command line. ``out``: where stdout goes: file, closed, full; ``encoding`` of it."""

    arguments: list[str]
    out: str = "file"
    encoding: str = "utf-8"
    variables: dict[str, str] = {}
    folder: str = "."
    stdin: str = ""


class Answer(msgspec.Struct):
    """How it ended: its exit code (negative: the signal), and what it wrote."""

    code: int
    out: str
    err: str


def serve() -> None:
    """Answer line by line, until the input ends."""
    import services.cli.main
    from services.cli.commands import COMMANDS

    for group in COMMANDS.values():
        for place in group.values():
            __import__(f"services.cli.{place.module}")
    for line in sys.stdin.buffer:
        answer = _run(Line(**json.loads(line)), services.cli.main.main)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def _run(line: Line, main: Any) -> Answer:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.setsid()
            code = 70
            try:
                _streams(line, out, err)
                main(line.arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException as error:
                os.write(err.fileno(), f"Traceback: it raised {error!r}".encode())
            finally:
                with contextlib.suppress(Exception):
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return Answer(code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    return file.read().decode("utf-8", "replace")


def _interrupt(_number: int, _frame: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _streams(line: Line, out: IO[bytes], err: IO[bytes]) -> None:
    """Standard streams as a fresh Python would have them."""
    os.environ.update(line.variables)
    os.chdir(line.folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    with tempfile.TemporaryFile() as given:
        given.write(line.stdin.encode())
        given.seek(0)
        os.dup2(given.fileno(), 0)
    os.dup2(err.fileno(), 2)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=line.encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    if line.out == "closed":
        os.close(1)
        sys.stdout = None
        return
    where = os.open("/dev/full", os.O_WRONLY) if line.out == "full" else out.fileno()
    os.dup2(where, 1)
    sys.stdout = open(1, "w", encoding=line.encoding, closefd=False)  # noqa: SIM115


class Forks:
    """The process that runs command lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forked"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment(),
        )  # fmt: skip

    def run(self, arguments: Sequence[str], **options: Any) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = {"arguments": list(arguments), "folder": str(self._folder), **options}
        self._process.stdin.write(json.dumps(line).encode() + b"\n")  # bytes that are no text, too
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Answer)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


@contextlib.contextmanager
def forks(folder: Path) -> Generator[Forks]:
    """A process for command lines that run in ``folder``."""
    opened = Forks(folder)
    try:
        yield opened
    finally:
        opened.end()


if __name__ == "__main__":
    serve()
