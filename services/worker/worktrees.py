"""A git worktree per task, for agents that would else work in each other's files.

It lies in ``.asb/worktrees/NAME`` of the repository that the worker runs in, on the branch
``asb/NAME``; both names are made of the task's id alone. ``NAME.json`` beside it is written before
anything else is made, so whatever a crash leaves behind is known as ours and taken up by the next
attempt; what was there without it is somebody else's and never touched. An attempt holds a lock on
that file, which ends with its worker.

Within the repository, because an agent asks whether it may trust a folder that it does not know;
what it trusts in a repository it trusts there.

After the end it stays for as long as there is something in it: changes, commits that no other
branch, tag or remote has, a process, a lock. git itself removes it, and refuses where it knows of
more. Of what git ignores (builds, caches) nothing is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import anyio.to_thread
import msgspec

from projections.format import count
from services.runtime.ending import to_its_end
from services.runtime.errors import ConfigError
from services.runtime.failpoints import point
from services.worker.task import PermanentError, RetryableError, Task

log = logging.getLogger("asb.worker")

FOLDER = Path(".asb", "worktrees")
BRANCHES = "asb/"
GIT_S = 600.0  # for one call: a checkout of a large repository takes its time
NAME_CHARACTERS = 40
T = TypeVar("T")
Given = TypeVarTuple("Given")
# Of whoever started the worker: they would lead git elsewhere (a hook of git has them).
_LEADING_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")


class GitError(Exception):
    """git refuses; in its own words."""


def git(folder: Path | str, *arguments: str) -> str:
    """What git answers in ``folder``. Raises GitError."""
    environ = {k: v for k, v in os.environ.items() if k not in _LEADING_ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**environ, "GIT_TERMINAL_PROMPT": "0"},
            timeout=GIT_S,
            check=False,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git {arguments[0]} did not end within {GIT_S:.0f} s") from error
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise GitError(words or f"git {arguments[0]} refuses")
    return done.stdout.decode("utf-8", "surrogateescape")


def name_of(task: str) -> str:
    """A name for files and branches, made of a task's id: small letters, digits, - and _."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", task.lower()).strip("-_")[:NAME_CHARACTERS]
    if plain == task:
        return plain
    return f"{plain or 'task'}-{hashlib.sha256(task.encode('utf-8', 'replace')).hexdigest()[:8]}"


class Ownership(msgspec.Struct, frozen=True):
    """That a worktree is ours: whose it is, and whether it was whole once (``made``)."""

    task: str
    made: bool = False


class Worktree(msgspec.Struct, frozen=True):
    """A task's worktree: its folder and its branch."""

    path: Path
    branch: str

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")


class Worktrees:
    """Those of the repository in which ``cwd`` lies ("": the folder that the worker runs in)."""

    def __init__(self, cwd: str) -> None:
        self._cwd = Path(cwd or os.getcwd())
        self._top = self._within = Path()

    def check(self) -> None:
        """Raises ConfigError where no worktree can be made."""
        try:
            self._top = Path(git(self._cwd, "rev-parse", "--show-toplevel").removesuffix("\n"))
            self._within = Path(git(self._cwd, "rev-parse", "--show-prefix").removesuffix("\n"))
        except GitError as error:
            raise ConfigError(
                f"--worktree: {self._cwd} lies in no git repository with files: {error}",
                hint="start the worker in one, or name it with --cwd",
            ) from error
        try:
            git(self._top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except GitError as error:
            raise ConfigError(
                f"--worktree: the repository {self._top} has no commit to begin with",
                hint="commit something there first",
            ) from error
        try:
            self._make_folder()
        except OSError as error:
            raise ConfigError(
                f"--worktree: {self._folder}: {error.strerror}", hint="may it be written?"
            ) from error

    @property
    def _folder(self) -> Path:
        return self._top / FOLDER

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._folder.resolve() != self._top.resolve() / FOLDER:
            raise ConfigError(
                f"--worktree: {self._folder} leads elsewhere",
                hint="it has to be a folder, not a link",
            )
        with contextlib.suppress(FileExistsError), (self._folder / ".gitignore").open("x") as file:
            file.write("*\n")  # so that nobody commits another one's worktree

    def of(self, task: str) -> Worktree:
        """The one of a task, whether it is there or not."""
        name = name_of(task)
        return Worktree(self._folder / name, BRANCHES + name)

    def folder(self, tree: Worktree) -> Path:
        """Where an agent works in it: the same folder of the repository in which the worker is."""
        return tree.path / self._within if (tree.path / self._within).is_dir() else tree.path

    def holding(self, folder: str) -> Worktree | None:
        """The worktree of ours in which ``folder`` lies."""
        with contextlib.suppress(ValueError, IndexError):
            name = Path(folder).relative_to(self._folder).parts[0]
            return Worktree(self._folder / name, BRANCHES + name)
        return None

    @contextlib.asynccontextmanager
    async def used_by(self, task: Task) -> AsyncGenerator[str]:
        """The folder for an attempt, in its task's worktree, which is there for as long as this
        lasts. Its report tells of both. Raises PermanentError where something else is in the way,
        RetryableError where git fails, or another attempt is still there."""
        tree, calls = self.of(task.id), task.calls
        _tell(task, tree)  # at once: the report of the start, which is sent next, names the folder
        task.calls = 0  # if it ends here
        with _lock(tree.record) as lock:
            try:
                await _in_thread(self._open, tree, task.id, lock)
                task.calls = calls
                yield str(self.folder(tree))
            except GitError as error:
                raise RetryableError(f"git worktree: {error}") from error
            finally:
                if (record := _read(lock)) is not None and record.task == task.id:
                    _tell(task, tree, await _in_thread(self._close, tree))

    async def leave(self, folder: str) -> None:
        """Remove the worktree in which ``folder`` lies, unless something is in it or at work
        there."""
        tree = self.holding(folder)
        if tree is not None and tree.record.exists():
            await _in_thread(self._close_if_free, tree)

    async def sweep(self) -> None:
        """Remove what attempts whose worker was killed have left behind, and nothing is in."""
        for record in sorted(self._folder.glob("*.json")):
            await self.leave(str(record.with_suffix("")))

    def _close_if_free(self, tree: Worktree) -> None:
        with contextlib.suppress(GitError, RetryableError, OSError), _lock(tree.record):
            self._close(tree)

    # -- made and found again ------------------------------------------------------------------

    def _open(self, tree: Worktree, task: str, lock: int) -> None:
        git(self._top, "worktree", "prune")  # what somebody removed by hand
        record = _read(lock)
        listed, has_branch = self._is_listed(tree), self._tip(tree.branch) is not None
        if record is None:
            if has_branch or listed or tree.path.exists():
                tree.record.unlink()
                thing = f"a branch {tree.branch}" if has_branch else f"a folder {tree.path}"
                raise PermanentError(f"{thing} was there before, so this task gets no worktree")
            _write(lock, Ownership(task))
        elif record.task != task:
            raise PermanentError(f"the worktree {tree.path} is that of task {record.task}")
        point("worktree.recorded")
        if listed and record is not None and not record.made:
            listed = self._finish(tree)
        if not listed:
            branch = (tree.branch,) if has_branch else ("HEAD",)
            new = () if has_branch else ("-b", tree.branch)
            git(self._top, "worktree", "add", "--quiet", *new, "--", str(tree.path), *branch)
        point("worktree.added")
        _write(lock, Ownership(task, made=True))
        point("worktree.made")

    def _finish(self, tree: Worktree) -> bool:
        """What git was making when it was killed, and nobody has worked in; whether it is there."""
        with contextlib.suppress(GitError):
            git(self._top, "worktree", "unlock", str(tree.path))
        if not (tree.path / ".git").exists():
            return False
        git(tree.path, "reset", "--hard", "--quiet")
        return True

    def _is_listed(self, tree: Worktree) -> bool:
        """Whether git knows of it."""
        return f"worktree {tree.path.resolve()}" in self._listed()

    def _listed(self) -> list[str]:
        return git(self._top, "worktree", "list", "--porcelain").splitlines()

    def _tip(self, branch: str) -> str | None:
        with contextlib.suppress(GitError):
            return git(
                self._top, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"
            ).strip()
        return None

    # -- kept or removed -----------------------------------------------------------------------

    def _close(self, tree: Worktree) -> str:
        """Remove it; why it is kept, "" where it is gone."""
        try:
            tip, listed = self._tip(tree.branch), self._is_listed(tree)
            if why := self._worth(tree, tip, listed):
                return why
            if listed:
                git(self._top, "worktree", "remove", "--", str(tree.path))
            point("worktree.removed")
            if f"branch refs/heads/{tree.branch}" in self._listed():
                return "its branch is checked out elsewhere"
            if tip is not None:  # unless somebody has committed there meanwhile
                git(self._top, "update-ref", "-d", f"refs/heads/{tree.branch}", tip)
            point("worktree.branch_removed")
            tree.record.unlink(missing_ok=True)
        except (GitError, OSError) as error:
            return f"it cannot be removed: {error}"
        return ""

    def _worth(self, tree: Worktree, tip: str | None, listed: bool) -> str:
        """What is in it that would be lost, "" for nothing."""
        heads = [tip] if tip is not None else []
        if listed and tree.path.is_dir():
            changed = git(tree.path, "status", "--porcelain", "--untracked-files=all").splitlines()
            if changed:
                return count(len(changed), "changed file")
            heads.append(git(tree.path, "rev-parse", "HEAD").strip())
        elsewhere = ("--not", "--remotes", "--tags", f"--exclude={BRANCHES}*", "--branches")
        if heads and (number := int(git(self._top, "rev-list", "--count", *heads, *elsewhere))):
            return f"{count(number, 'commit')} that {'is' if number == 1 else 'are'} nowhere else"
        process = _process_in(tree.path)
        return f"{process} is in it" if process else ""


async def _in_thread(work: Callable[[*Given], T], *given: *Given) -> T:
    """``work``, to its end: git is not to be left in the middle of something."""
    return await to_its_end(anyio.to_thread.run_sync(work, *given))


def _tell(task: Task, tree: Worktree, kept: str | None = None) -> None:
    """In the task's next report. ``kept``: why it is kept after the end, "" where it is gone."""
    facts: dict[str, Any] = {"path": str(tree.path), "branch": tree.branch}
    if kept is not None:
        facts["kept"] = kept
    task.extra = {**(task.extra or {}), "worktree": facts}


def _process_in(folder: Path) -> str:
    """A process that works in ``folder``, in words; "" where none is seen."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                return f"{(entry / 'comm').read_text().strip()} (process {entry.name})"
    return ""


@contextlib.contextmanager
def _lock(record: Path) -> Generator[int]:
    """The record, opened for us alone. Raises RetryableError while another has it."""
    descriptor = _locked(record)
    while not os.fstat(descriptor).st_nlink:  # whoever had it has removed it
        os.close(descriptor)
        descriptor = _locked(record)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(record: Path) -> int:
    try:
        descriptor = os.open(record, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RetryableError(f"{record}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise RetryableError(f"another attempt is in {record.with_suffix('')}") from error
    return descriptor


def _read(descriptor: int) -> Ownership | None:
    """None where nothing was written yet."""
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(os.pread(descriptor, 64 * 1024, 0), type=Ownership)
    return None


def _write(descriptor: int, record: Ownership) -> None:
    data = msgspec.json.encode(record)
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
