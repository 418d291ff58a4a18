"""The driver ``command``: one run of a command per task.

The prompt goes to its standard input, or replaces ``{prompt}`` wherever an argument holds it, as
``{model}`` and ``{agent}`` are replaced by the route; nothing passes through a shell. Exit status 0
completes the task with the standard output as its result; the last line of it may be a JSON object
that tells the usage.

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
import math
import os
import re
import shutil
from collections.abc import Sequence

from services.runtime.errors import ConfigError
from services.worker.supervised import Exit, Supervised
from services.worker.task import PermanentError, Result, RetryableError, Task
from services.worker.usage import told_by

PROMPT = "{prompt}"
ROUTE = re.compile(r"(?<!\$)\{(model|agent)\}")  # "${model}" is a variable of some script
ERROR_CHARACTERS = 300  # the desk shows the first 500 of an error; the end of stderr tells most
STDERR_CHARACTERS = 3000  # kept beside it
_PERMANENT = {64: "it was used wrongly", 126: "it is not executable", 127: "it was not found"}
_CANNOT_RUN = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class CommandDriver:
    """See the module."""

    def __init__(self, command: Sequence[str], *, kill_grace_s: float = 5.0) -> None:
        """``kill_grace_s``: between SIGTERM and SIGKILL; less where the lease ends sooner."""
        self._command = list(command)
        self._in_arguments = any(PROMPT in part for part in command)
        self._grace = kill_grace_s
        self._lease = (math.inf, math.inf)
        self._runs: set[Supervised] = set()

    async def prepare(self) -> None:
        """Raises ConfigError when there is no such command."""
        if not self._command:
            raise ConfigError(
                "no command to run", hint="put it after --, as in: asb worker w1 -- my-agent -p"
            )
        if shutil.which(self._command[0]) is None:
            raise ConfigError(
                f"the command {self._command[0]!r} cannot be found or is not executable",
                hint="give its full path, or add its folder to PATH",
            )

    def renewed(self, until: float, end: float, /) -> None:
        self._lease = (until, end)
        for run in self._runs:
            run.renew(until, end)

    async def run(self, task: Task, /) -> Result:
        run = Supervised(
            self._arguments(task),
            env=environment(task),
            stdin=None if self._in_arguments else task.text.encode("utf-8", "replace"),
            grace_s=self._grace,
            lease=self._lease,
        )
        self._runs.add(run)
        task.on_pause = run.pause
        if task.paused:
            run.pause(True)
        try:
            end = await run.wait()
        except ValueError as error:
            raise PermanentError(
                f"{error}; leave out {PROMPT}: the command then reads it"
            ) from error
        finally:
            self._runs.discard(run)
        told = told_by(run.stdout.bytes())
        if told.usage is not None:
            task.spent = told.usage
        self._raise_failure(task, end, run)
        return Result(
            run.stdout.text(),
            model=told.model,
            cost_usd=told.cost_usd,
            left_out=run.stdout.left_out,
        )

    def _arguments(self, task: Task) -> list[str]:
        """The command for ``task``. The prompt is put in last: what stands in it is never read
        as a placeholder."""
        route = {"model": task.model, "agent": task.agent}
        command = [ROUTE.sub(lambda found: route[found[1]], part) for part in self._command]
        if not self._in_arguments:
            return command
        if "\0" in task.text:
            raise PermanentError(
                f"the prompt holds a NUL character, which an argument cannot: leave out {PROMPT}, "
                "and the command reads it from its standard input"
            )
        text = task.text.encode("utf-8", "replace").decode()
        return [part.replace(PROMPT, text) for part in command]

    def _raise_failure(self, task: Task, end: Exit, run: Supervised) -> None:
        name = self._command[0]
        if end.code == 0:
            return
        if end.errno is not None:
            text = f"{name} cannot be run: {os.strerror(end.errno)}"
            raise (PermanentError if end.errno in _CANNOT_RUN else RetryableError)(text)
        said = run.stderr.text().strip()
        if said:
            task.extra = {"stderr": said[-STDERR_CHARACTERS:]}
        if end.signal is not None:
            why = "" if end.why == "left behind" else f" ({end.why})"
            raise RetryableError(_joined(f"{name} was ended by signal {end.signal}{why}", said))
        if end.code is None:
            raise RetryableError(_joined(f"{name}: its supervisor was killed", said))
        text = f"{name} exited with status {end.code}"
        if end.code in _PERMANENT:
            raise PermanentError(_joined(f"{text} ({_PERMANENT[end.code]})", said))
        raise RetryableError(_joined(text, said))


def _joined(what: str, said: str) -> str:
    return f"{what}: {said[-ERROR_CHARACTERS:]}" if said else what


def environment(task: Task) -> dict[str, str]:
    """The worker's own environment and what a program may want to know of its task."""
    about = {
        "ASB_TASK": task.id,
        "ASB_ATTEMPT": str(task.attempt),
        "ASB_SESSION": task.session,
        "ASB_WORKER": task.worker,
        "ASB_MODEL": task.model,
        "ASB_AGENT": task.agent,
        "ASB_KIND": task.kind,
    }
    clean = {name: value.replace("\0", "") for name, value in about.items()}
    return {**os.environ, **clean}
