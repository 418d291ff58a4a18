"""The driver ``command``: one run of a command per task.

The prompt goes to its standard input, or replaces ``{prompt}`` wherever an argument holds it (see
``arguments``: there a prompt that the program could take for an option is refused), as ``{model}``
and ``{agent}`` are replaced by the route; nothing passes through a shell. Exit status 0 completes
the task with the standard output as its result.

What the command used it tells where its answer cannot reach: in the file that ``ASB_USAGE_FILE``
names, in a shell also by file descriptor 3, or in the ``format`` that the user named for its
standard output (see ``usage`` and ``formats``). Nothing else becomes usage.

What another status means (those of ``sysexits.h`` where they apply):

==================  ==========  ================================================================
64, 126, 127        permanent   used wrongly, not executable, not found: no attempt can differ
75, every other     retryable   agents fail of networks, limits and bad luck far more often than
                                for good, and ``max_attempts`` bounds what a wrong guess costs
death by a signal   retryable   somebody or the system ended it
==================  ==========  ================================================================
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
from collections.abc import Sequence

from services.runtime.errors import ConfigError
from services.worker.drivers import arguments
from services.worker.drivers.formats import FORMATS, TEXT, Text, output
from services.worker.process.supervised import Exit, Supervised
from services.worker.task import PermanentError, Result, RetryableError, Task
from services.worker.usage import VARIABLE, UsageFile, remove_left

log = logging.getLogger("asb.worker")

ERROR_CHARACTERS = (
    300  # the engine shows the first 500 of an error; the end of an output tells most
)
OUTPUT_CHARACTERS = 3000  # kept beside it
_PERMANENT = {64: "it was used wrongly", 126: "it is not executable", 127: "it was not found"}
_CANNOT_RUN = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class CommandDriver:
    """See the module."""

    def __init__(
        self, command: Sequence[str], *, format: str = TEXT, kill_grace_s: float = 5.0
    ) -> None:
        """``format``: what its standard output is, one of FORMATS. ``kill_grace_s``: between
        SIGTERM and SIGKILL; less where the lease ends sooner."""
        self._command = list(command)
        self._format = format
        self._in_arguments = any(arguments.PROMPT in part for part in command)
        self._grace = kill_grace_s
        self._lease = (math.inf, math.inf)
        self._runs: set[Supervised] = set()

    async def prepare(self) -> None:
        """Raises ConfigError when there is no such command or format, or when prompts would run as
        code."""
        if self._format not in FORMATS:
            raise ConfigError(
                f"no format is called {self._format!r}", hint=f"it is one of {', '.join(FORMATS)}"
            )
        if not self._command:
            raise ConfigError(
                "no command to run", hint="put it after --, as in: asb worker w1 -- my-agent -p"
            )
        if shutil.which(self._command[0]) is None:
            raise ConfigError(
                f"the command {self._command[0]!r} cannot be found or is not executable",
                hint="give its full path, or add its folder to PATH",
            )
        arguments.check(self._command)
        remove_left()

    def renewed(self, until: float, end: float, /) -> None:
        self._lease = (until, end)
        for run in self._runs:
            run.renew(until, end)

    async def run(self, task: Task, /) -> Result:
        task.calls = 0  # while nothing has been started
        command = arguments.filled(self._command, task)
        usage_file = _usage_file()
        try:
            return await self._run(task, command, usage_file)
        finally:
            if usage_file is not None:
                usage_file.remove()

    async def _run(self, task: Task, command: list[str], usage_file: UsageFile | None) -> Result:
        said = output(self._format)
        run = Supervised(
            command,
            env=environment(task, usage_file),
            stdin=None if self._in_arguments else task.text.encode("utf-8", "replace"),
            grace_s=self._grace,
            lease=self._lease,
            stdout=said,
        )
        self._runs.add(run)
        task.on_pause = run.pause
        if task.paused:
            run.pause(True)
        task.calls = None  # from here on nobody knows
        try:
            end = await run.wait()
        except ValueError as error:
            task.calls = 0
            raise PermanentError(
                f"{error}; leave out {arguments.PROMPT}: the command then reads it"
            ) from error
        finally:
            self._runs.discard(run)
            said.close()
            usage = usage_file.read() if usage_file is not None else said.report
            if not usage.reading.says_something:
                usage = said.report
            if usage.reading.says_something:
                task.spent = usage.raw
        self._raise_failure(task, end, run, said)
        if said.unreadable:
            log.warning("task %s: the output of %s is no %s", task.id, command[0], self._format)
        text, left_out = said.answer()
        return Result(text, model=usage.model, cost_usd=usage.cost_usd, left_out=left_out)

    def _raise_failure(self, task: Task, end: Exit, run: Supervised, said: Text) -> None:
        """Raise what the end of the command means, with the reason as far as it is told: by its
        format, on stderr, on stdout."""
        name = self._command[0]
        if end.code == 0 and not said.failed:
            return
        if end.errno is not None:
            task.calls = 0
            raise cannot_run(name, end.errno)
        outputs = {"stderr": run.stderr.text().strip(), "stdout": run.stdout.text().strip()}
        kept = {which: words[-OUTPUT_CHARACTERS:] for which, words in outputs.items() if words}
        task.extra = kept or None
        why = _reason(said.error, outputs["stderr"], outputs["stdout"])
        if end.signal is not None:
            ended = "" if end.why == "left behind" else f" ({end.why})"
            raise RetryableError(_joined(f"{name} was ended by signal {end.signal}{ended}", why))
        if end.code is None:
            raise RetryableError(_joined(f"{name}: its supervisor was killed", why))
        if end.code == 0:
            raise RetryableError(_joined(f"{name} says that it failed", why))
        text = f"{name} exited with status {end.code}"
        if end.code in _PERMANENT:
            raise PermanentError(_joined(f"{text} ({_PERMANENT[end.code]})", why))
        raise RetryableError(_joined(text, why))


def cannot_run(name: str, number: int) -> PermanentError | RetryableError:
    """What it means that the system would not start ``name``, and says ``number``."""
    text = f"{name} cannot be run: {os.strerror(number)}"
    return PermanentError(text) if number in _CANNOT_RUN else RetryableError(text)


def _reason(error: str, stderr: str, stdout: str) -> str:
    """Why a command failed, in its own words: those of its format, else the end of what it wrote.
    Agents differ in where they tell it, so both outputs have their say."""
    if error:
        return error[:ERROR_CHARACTERS]
    ends = [words for words in (stderr, stdout) if words]
    return " | ".join(words[-(ERROR_CHARACTERS // len(ends)) :] for words in ends)


def _joined(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def _usage_file() -> UsageFile | None:
    try:
        return UsageFile()
    except OSError as error:  # a full disk: the work can be done all the same
        log.warning("no file for usage can be made, so it stays unknown: %s", error)
        return None


def environment(task: Task, usage_file: UsageFile | None = None) -> dict[str, str]:
    """The worker's own environment and what a program may want to know of its task."""
    about = {
        "ASB_TASK": task.id,
        "ASB_ATTEMPT": str(task.attempt),
        "ASB_SESSION": task.session,
        "ASB_WORKER": task.worker,
        "ASB_MODEL": task.model,
        "ASB_AGENT": task.agent,
        "ASB_KIND": task.kind,
        VARIABLE: str(usage_file.path) if usage_file is not None else os.devnull,
    }
    if task.traceparent:
        about["TRACEPARENT"] = task.traceparent
    clean = {name: value.replace("\0", "") for name, value in about.items()}
    return {**os.environ, **clean}
