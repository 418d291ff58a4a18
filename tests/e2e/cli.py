"""The command line as people use it: real processes, a data folder and a port of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from services.store.embedded import address_of
from tests.ports import free_port
from tests.wait import wait_blocking

ASB = (sys.executable, "-m", "services.cli.main")
ROOT = Path(__file__).resolve().parent.parent.parent
BYTECODE = str(ROOT / ".pytest_cache" / "bytecode")
AGENT = """\
import json, os, sys
text = sys.stdin.read()
print("did:", text)
with open(os.environ["ASB_USAGE_FILE"], "a") as usage:
    usage.write(json.dumps({"input_tokens": 1000, "output_tokens": 200}))
"""


def environment() -> dict[str, str]:
    """Ours, without settings of asb that happen to be there. As where asb is installed its bytecode
    is kept: else each of these processes would compile every module anew, for 0.1 s."""
    mine = ("ASB_", "PYTHONDONTWRITEBYTECODE")
    found = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    return {
        "PYTHONPYCACHEPREFIX": BYTECODE,
        **found,
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }


def asb(
    *arguments: str, stdin: str | bytes = "", cwd: Path, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [*ASB, *arguments],
        input=stdin if isinstance(stdin, str) else stdin.decode("utf-8", "surrogateescape"),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=cwd,
        env=environment(),
        timeout=seconds,
        check=False,
    )


class Up:
    """``asb up`` (or another command that runs a bus) on a folder of its own, as a process."""

    def __init__(self, folder: Path, *arguments: str, command: tuple[str, ...] = ("up",)) -> None:
        self.folder, self._arguments, self._command = folder, arguments, command
        self.data = folder / "data"
        self.log = folder / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._port = free_port()

    def start(self) -> Up:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(*ASB, *self._command, f"--data-dir={self.data}", f"--port={self._port}"),
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder, env=environment(), start_new_session=True,
            )  # fmt: skip
        wait_blocking(self._is_up, within=20, what="asb is up")
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said
        return "asb is up" in self.said

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        found = address_of(self.data)
        assert found is not None
        return found

    def run(self, *arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """A command on this bus."""
        return asb(
            *arguments[:1], f"--data-dir={self.data}", *arguments[1:], stdin=stdin, cwd=self.folder
        )

    def ask(self, *arguments: str) -> Any:
        """A command's ``--json``."""
        done = self.run(*arguments[:1], "--json", *arguments[1:])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self, sign: int = signal.SIGINT) -> int:
        """Ask it to stop; its exit code."""
        assert self.process is not None
        self.process.send_signal(sign)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever a test did."""
        if self.process is not None:
            _end(self.process)

    def processes(self) -> list[str]:
        """Command lines of all processes that name this folder."""
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.data) in words:
                found.append(words)
        return found


class Process:
    """A command of ``asb`` that runs until it is told to stop: ``service``, ``worker``, ``up``."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        program: tuple[str, ...] = ASB,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=folder, env=environ or environment(), start_new_session=True,
            )  # fmt: skip

    def says(self, text: str) -> Process:
        """Wait until it has said so."""
        wait_blocking(lambda: text in self._alive(), within=90, what=f"it says {text!r}")
        return self

    def _alive(self) -> str:
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        return self.log.read_text(errors="replace")

    def stop(self, sign: int = signal.SIGINT) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(sign)
        return self.process.wait(timeout=90)

    def end(self) -> None:
        """Leave nothing behind, whatever a test did."""
        _end(self.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order where it can be: an embedded server outlives an `asb up` that is killed."""
    process.terminate()  # nothing, where it has ended
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=30)
