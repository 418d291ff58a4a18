"""Runs one command and answers for everything it starts. A program, not a module to import.

    python -I -S supervisor.py CONTROL INTERRUPT GRACE UNTIL END COMMAND [ARG…]

Standard input, output and error are the command's. ``CONTROL`` is a socket to the worker:

==============================  ====================================================================
from the worker                 ``K``, a line: end everything. ``L UNTIL END``: the new ones.
                                ``S``: stop everything where it is; ``C``: let it go on
                                End of file, whatever the reason: the worker is gone, end everything
to the worker                   one line when all is over: ``exit CODE``, ``signal NUMBER`` or
                                ``error ERRNO``, then how many processes had to be ended, and why
==============================  ====================================================================

``INTERRUPT`` is the time in seconds between a SIGINT to the command alone, after which an agent
still tells what it used, and SIGTERM to everything; 0 for no SIGINT at all. ``GRACE`` is the time
between SIGTERM and SIGKILL. After ``UNTIL`` (on the machine's
monotonic clock) everything is ended unasked: a worker that hangs cannot renew its lease either.
``END`` is when the lease ends: both are cut short where they would reach so far.
When the command has ended by itself, what it left in the background is ended too.

It is the subreaper of what it starts, so a daemon that forked twice into a session of its own
becomes its child and is found. Where there is no such thing (not Linux), the command's process
group is all that is reached. When this process is killed the command is, too (Linux); what that
had started is found by a mark in its environment (``runs.py``).

Standard library only, and few imports: it starts once per task.
"""

# ruff: noqa: SIM105 - importing contextlib takes longer than most of what is done here

from __future__ import annotations

import ctypes
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # ``signal`` builds enums for longer than everything else here takes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
LOOK_S = 1.0  # how often the parent is looked at: a fork of the worker may keep CONTROL open
STOP_LOOKS = 100  # a millisecond apart: a fork may be faster than one look
GIVE_UP_S = 10.0  # after SIGKILL: what is still there sleeps in the kernel or belongs to another


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(but: bytes = b"") -> list[int]:
    """Every living process below this one, parents first; not those in the states ``but``."""
    children: dict[int, list[int]] = {}
    left_out: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    # The command's name, in brackets, may hold anything, brackets too.
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue  # it has just ended
            if state not in b"ZX":
                children.setdefault(int(parent), []).append(int(name))
            if state in but:
                left_out.add(int(name))
    pids: list[int] = []
    below = [os.getpid()]
    while below:
        below = [child for parent in below for child in children.get(parent, ())]
        pids += below
    return [pid for pid in pids if pid not in left_out]


def usage_path() -> str:
    """The file for the command's usage, which is also its descriptor 3, for shells: ``echo … >&3``.
    "" where there is none."""
    path = os.environ.get("ASB_USAGE_FILE", "")
    return path if os.path.exists(path) else ""


def spawn(command: list[str], defaults: tuple[int, ...]) -> int:
    """Start ``command`` in a process group of its own; its pid. Raises OSError."""
    path = usage_path()
    usage = [(os.POSIX_SPAWN_OPEN, 3, path, os.O_WRONLY | os.O_APPEND, 0)] if path else []
    return os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=usage,
        setpgroup=0,
        setsigmask=(),
        setsigdef=defaults,
    )


def spawn_bound(command: list[str], defaults: tuple[int, ...]) -> int:
    """``spawn`` for Linux: should this process be killed, the command is, too. Nobody else could
    end it then, and it would go on at somebody's cost. Raises OSError."""
    ours, parent = os.getpid(), os.pipe()  # close on exec: the pipe ends without a word
    pid = os.fork()
    if pid:
        os.close(parent[1])
        error = os.read(parent[0], 16)
        os.close(parent[0])
        if error:
            os.waitpid(pid, 0)
            raise OSError(int(error), os.strerror(int(error)))
        return pid
    failed = parent[1] if parent[1] != 3 else os.dup(parent[1])
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != ours:  # killed before it was asked for
            os._exit(127)
        if path := usage_path():
            os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), 3)
            os.set_inheritable(3, True)  # where it was opened as 3 nothing was duplicated
        for number in defaults:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    finally:
        os._exit(127)


def remove_usage_file() -> None:
    path = os.environ.get("ASB_USAGE_FILE", "")
    folder = os.path.dirname(path)
    if os.path.basename(folder).startswith("asb-usage-"):
        try:
            os.unlink(path)
            os.rmdir(folder)
        except OSError:
            pass  # the command has put something else there


class Supervisor:
    """See the module."""

    def __init__(
        self, control: int, interrupt: float, grace: float, until: float, end: float
    ) -> None:
        self.control = control
        self.interrupt = interrupt
        self.grace = grace
        self.until = until
        self.end = end
        self.main = 0
        self.status: int | None = None  # of the main command, once it has ended
        self.childless = False
        self.ended: set[int] = set()
        self.parent = os.getppid()
        self.heard = b""
        self.wake, wake_write = os.pipe()
        for end in (self.wake, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.asked_by_signal = False
        signal.signal(signal.SIGCHLD, self._heed)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._asked)
        self.poll = select.poll()
        self.poll.register(self.wake, select.POLLIN)
        self.poll.register(control, select.POLLIN)

    def _heed(self, *_: object) -> None:
        """Nothing to do: that it came is written to ``wake``, and the loop looks around."""

    def _asked(self, *_: object) -> None:
        self.asked_by_signal = True

    def start(self, command: list[str]) -> None:
        """Raises OSError when the command cannot be run."""
        defaults = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these, a command must not
        self.main = (spawn_bound if LINUX else spawn)(command, defaults)
        # The worker shall see the end of the output when the command's side ends, not ours.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)

    def run(self) -> str:
        """Wait until the command ends or must be ended; then why everything is ended."""
        while True:
            self.reap()
            if self.status is not None:
                return "left behind"
            now = time.monotonic()
            if now >= self.until:
                return "the lease is over"
            ready = self.poll.poll(min(LOOK_S, self.until - now) * 1000 + 1)
            self._drain_wake()
            if any(fd == self.control for fd, _ in ready) and self._hear():
                return "asked to"
            if self.asked_by_signal or os.getppid() != self.parent:
                return "the worker is gone"

    def _drain_wake(self) -> None:
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass

    def _hear(self) -> bool:
        """Read what the worker says; is it to end everything?"""
        try:
            said = os.read(self.control, 4096)
        except OSError:
            return True
        if not said:
            return True
        *lines, self.heard = (self.heard + said).split(b"\n")
        for line in lines:
            if line == b"K":
                return True
            if line in (b"S", b"C"):
                self.stop_all() if line == b"S" else self.tell_all(signal.SIGCONT)
            if line.startswith(b"L "):
                self.until, self.end = map(float, line.split()[1:])
        return False

    def reap(self) -> None:
        """Collect what has ended, adopted processes among it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if not pid:
                self.childless = False
                return
            if pid == self.main:
                self.status = status

    def end_all(self) -> None:
        """SIGINT for the command, SIGTERM, the grace, then SIGKILL until nothing is left."""
        self.reap()
        if self.everything_over():
            return
        self.poll.unregister(self.control)  # nothing the worker says changes what follows
        if self.interrupt and self.status is None:
            self.interrupt_main()
        self.signal_all(signal.SIGTERM)
        self.signal_all(signal.SIGCONT)  # what is stopped could not answer
        if self.over_within(min(self.grace, (self.end - time.monotonic()) * 0.8)):
            return
        give_up = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up:  # again and again: a fork may be faster than one look
            self.signal_all(signal.SIGKILL)
            if self.over_within(0.02):
                return

    def interrupt_main(self) -> None:
        """Let the command end itself: what it starts it knows best, and it has something to say."""
        for number in (signal.SIGINT, signal.SIGCONT):
            try:
                os.kill(self.main, number)
            except OSError:
                pass  # it has ended
        seconds = min(self.interrupt, (self.end - time.monotonic()) * 0.4)
        self.over_within(seconds, lambda: self.status is not None)

    def everything_over(self) -> bool:
        """As the subreaper, this process has a child as long as it has any descendant."""
        if LINUX or not self.childless:
            return self.childless
        try:
            os.killpg(self.main, 0)
        except OSError:
            return True
        return False

    def over_within(self, seconds: float, enough: Callable[[], bool] | None = None) -> bool:
        """Wait until everything is over, or ``enough`` is."""
        end = time.monotonic() + seconds
        while True:
            self.reap()
            if self.everything_over() or (enough is not None and enough()):
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.poll.poll(min(left, 0.1) * 1000 + 1)
            self._drain_wake()

    def signal_all(self, number: int) -> None:
        self.ended.update(self.tell_all(number))

    def tell_all(self, number: int, but: bytes = b"") -> list[int]:
        """Send a signal to everything below; whom it was sent to."""
        pids = descendants(but) if LINUX else [-self.main]  # minus: the process group
        for pid in pids:
            try:
                os.kill(pid, number)
            except OSError:
                pass  # gone, or another user's
        return [abs(pid) for pid in pids]

    def stop_all(self) -> None:
        """Until a look finds none that could still fork; not for ever, for who sleeps in the kernel
        stops only when it wakes, and another user's process never does."""
        for _ in range(STOP_LOOKS):
            if not self.tell_all(signal.SIGSTOP, b"Tt") or not LINUX:
                return
            time.sleep(0.001)

    def report(self, text: str) -> None:
        try:
            os.write(self.control, text.encode() + b"\n")
        except OSError:
            pass  # nobody listens any more


def main(argv: list[str]) -> int:
    control = int(argv[1])
    interrupt, grace, until, end = map(float, argv[2:6])
    os.set_inheritable(control, False)
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(control, interrupt, grace, until, end)
    try:
        supervisor.start(argv[6:])
    except OSError as error:
        supervisor.report(f"error {error.errno} 0 not started")
        return 127
    why = supervisor.run()
    supervisor.end_all()
    if why == "the worker is gone":
        remove_usage_file()  # nobody is left to read it
    status = supervisor.status
    if status is None:
        supervisor.report(f"signal 9 {len(supervisor.ended)} {why}; it does not end")
        return 137
    code = os.waitstatus_to_exitcode(status)
    word, figure = ("exit", code) if code >= 0 else ("signal", -code)
    supervisor.report(f"{word} {figure} {len(supervisor.ended)} {why}")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main(sys.argv))  # nothing to clean up, and every millisecond is a task's
