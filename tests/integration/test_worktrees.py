"""A git worktree per task, over real git: made, found again, kept, removed, and what is not ours
left alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from events.keys import Keys
from services.runtime.errors import ConfigError
from services.store.client import Client
from services.worker.task import PermanentError, RetryableError, Task
from services.worker.worktrees import Worktree, Worktrees, name_of
from tests.agents.playing import Stage, stage
from tests.agents.terminals import SESSION, Terminal, terminal
from tests.e2e.cli import ROOT
from tests.integration.test_agents import driver, end_of, ended
from tests.integration.test_worker_session import options, working
from tests.wait import wait_until

__all__ = ["stage", "terminal"]
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
ME = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")


class Repository:
    """A repository of a user's, with one commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (path / "sub").mkdir()
        (path / "sub" / "file.txt").write_text("as it was\n")
        (path / ".gitignore").write_text("*.log\n")
        self.commit(path)

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder or self.path), *ME, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, folder: Path, words: str = "A commit") -> str:
        self.git("add", "--all", folder=folder)
        self.git("commit", "--quiet", "--allow-empty", "-m", words, folder=folder)
        return self.git("rev-parse", "HEAD", folder=folder)

    @property
    def branches(self) -> list[str]:
        return self.git("branch", "--format=%(refname:short)").split()

    @property
    def trees(self) -> int:
        return len(self.git("worktree", "list").splitlines()) - 1

    def worktrees(self, within: str = "") -> Worktrees:
        made = Worktrees(str(self.path / within))
        made.check()
        return made


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def task(name: str = "t1", attempt: int = 1) -> Task:
    async def nothing(*_: object) -> None: ...

    fields = {b"task": name.encode(), b"attempt": str(attempt).encode()}
    return Task(fields, worker="w1", send=nothing)


def told(one_task: Task) -> dict[str, str]:
    assert one_task.extra is not None
    return one_task.extra["worktree"]


async def test_a_task_has_its_own_folder_and_branch_which_are_gone_where_nothing_came_of_it(
    repository: Repository,
) -> None:
    trees, attempt = repository.worktrees("sub"), task()
    async with trees.used_by(attempt) as folder:
        assert folder == str(repository.path / ".asb/worktrees/t1/sub")
        assert (Path(folder) / "file.txt").read_text() == "as it was\n"
        assert repository.git("branch", "--show-current", folder=Path(folder)) == "asb/t1"
        assert repository.git("status", "--porcelain") == ""  # nothing is seen of it outside
        assert told(attempt)["path"] == str(repository.path / ".asb/worktrees/t1")
        (Path(folder) / "build.log").write_text("what git ignores")
    assert told(attempt) == {**told(attempt), "branch": "asb/t1", "kept": ""}
    assert (repository.branches, repository.trees) == (["main"], 0)
    assert os.listdir(repository.path / ".asb/worktrees") == [".gitignore"]


async def test_it_stays_while_there_is_work_in_it_and_the_next_attempt_finds_that(
    repository: Repository,
) -> None:
    trees, first = repository.worktrees(), task()
    async with trees.used_by(first) as folder:
        (Path(folder) / "new.txt").write_text("half done")
    assert told(first)["kept"] == "1 changed file"
    second = task(attempt=2)
    async with trees.used_by(second) as again:
        assert again == folder
        assert (Path(again) / "new.txt").read_text() == "half done"
        repository.commit(Path(again))
        repository.commit(Path(again))
    assert told(second)["kept"] == "2 commits that are nowhere else"
    await trees.sweep()
    assert repository.trees == 1
    repository.git("merge", "--quiet", "asb/t1")
    await trees.sweep()
    assert (repository.branches, repository.trees) == (["main"], 0)
    assert (repository.path / "new.txt").exists()


async def test_commits_that_a_remote_has_are_somewhere_else(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("init", "--quiet", "--bare", str(tmp_path / "remote"))
    repository.git("remote", "add", "origin", str(tmp_path / "remote"))
    attempt = task()
    async with repository.worktrees().used_by(attempt) as folder:
        repository.commit(Path(folder))
        repository.git("push", "--quiet", "origin", "asb/t1", folder=Path(folder))
    assert told(attempt)["kept"] == ""
    assert repository.branches == ["main"]


async def test_two_tasks_with_the_same_commits_do_not_remove_each_others_last_copy(
    repository: Repository,
) -> None:
    trees, first, second = repository.worktrees(), task("a"), task("b")
    async with trees.used_by(first) as here, trees.used_by(second) as there:
        repository.commit(Path(here))
        repository.git("reset", "--quiet", "--hard", "asb/a", folder=Path(there))
    assert told(first)["kept"] == told(second)["kept"] == "1 commit that is nowhere else"


async def test_commits_without_a_branch_are_kept(repository: Repository) -> None:
    attempt = task()
    async with repository.worktrees().used_by(attempt) as folder:
        repository.git("checkout", "--quiet", "--detach", folder=Path(folder))
        repository.commit(Path(folder))
    assert told(attempt)["kept"] == "1 commit that is nowhere else"


async def test_one_that_a_person_is_in_or_has_locked_stays(repository: Repository) -> None:
    trees, attempt = repository.worktrees(), task()
    async with trees.used_by(attempt) as folder:
        person = await asyncio.create_subprocess_exec("sleep", "600", cwd=folder)
    try:
        assert told(attempt)["kept"] == f"sleep (process {person.pid}) is in it"
    finally:
        person.kill()
        await person.wait()
    repository.git("worktree", "lock", folder)
    await trees.sweep()
    assert repository.trees == 1
    repository.git("worktree", "unlock", folder)
    await trees.sweep()
    assert repository.trees == 0


@pytest.mark.parametrize("theirs", ["branch", "folder", "worktree"])
async def test_what_was_there_before_is_somebody_elses(
    repository: Repository, theirs: str, tmp_path: Path
) -> None:
    trees = repository.worktrees()
    place = repository.path / ".asb/worktrees/t1"
    if theirs == "branch":
        repository.git("branch", "asb/t1")
    elif theirs == "folder":
        place.mkdir()
        (place / "notes").write_text("mine")
    else:
        repository.git("worktree", "add", "--quiet", "-b", "mine", str(place))
    before = (repository.branches, repository.trees, place.exists())
    attempt = task()
    with pytest.raises(PermanentError, match="was there before"):
        async with trees.used_by(attempt):
            pytest.fail("it works in another one's")
    assert attempt.calls == 0  # nothing is charged
    await trees.sweep()
    assert (repository.branches, repository.trees, place.exists()) == before


async def test_a_branch_that_a_person_looks_at_elsewhere_is_not_taken_away(
    repository: Repository, tmp_path: Path
) -> None:
    trees, attempt = repository.worktrees(), task()
    async with trees.used_by(attempt) as folder:
        repository.git("switch", "--quiet", "-c", "other", folder=Path(folder))
        repository.git("worktree", "add", "--quiet", str(tmp_path / "mine"), "asb/t1")
    assert told(attempt)["kept"] == "its branch is checked out elsewhere"
    assert repository.git("rev-parse", "HEAD", folder=tmp_path / "mine")


async def test_no_two_attempts_work_in_one(repository: Repository) -> None:
    trees = repository.worktrees()
    async with trees.used_by(task()):
        with pytest.raises(RetryableError, match="another attempt"):
            async with repository.worktrees().used_by(task(attempt=2)):
                pytest.fail("both work in it")
    assert repository.trees == 0


KILLED = ("recorded", "added", "made", "removed", "branch_removed")
ATTEMPT = """\
import anyio, sys
from services.worker.worktrees import Worktrees
from tests.integration.test_worktrees import task
async def main():
    trees = Worktrees(sys.argv[1])
    trees.check()
    async with trees.used_by(task()):
        print("worked")
anyio.run(main)
"""


@pytest.mark.parametrize("place", KILLED)
async def test_a_worker_that_is_killed_between_any_two_steps_leaves_nothing_that_stays(
    repository: Repository, place: str
) -> None:
    environ = {**os.environ, "ASB_TEST_DIE_AT": f"worktree.{place}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ATTEMPT, str(repository.path)]
    done = await asyncio.to_thread(subprocess.run, command, env=environ, cwd=ROOT)
    assert done.returncode == -9
    trees, attempt = repository.worktrees(), task(attempt=2)
    async with trees.used_by(attempt) as folder:
        assert (Path(folder) / "sub" / "file.txt").exists()
        assert repository.git("status", "--porcelain", folder=Path(folder)) == ""
    assert told(attempt)["kept"] == ""
    assert (repository.branches, repository.trees) == (["main"], 0)
    await asyncio.to_thread(subprocess.run, command, env=environ, cwd=ROOT)
    await trees.sweep()  # the task is not given out again
    assert (repository.branches, repository.trees) == (["main"], 0)
    assert os.listdir(repository.path / ".asb/worktrees") == [".gitignore"]


async def test_a_checkout_that_was_cut_short_is_made_whole(repository: Repository) -> None:
    trees = repository.worktrees()
    tree = trees.of("t1")
    tree.record.write_text('{"task":"t1","made":false}')
    repository.git("worktree", "add", "--quiet", "--no-checkout", "-b", "asb/t1", str(tree.path))
    repository.git("worktree", "lock", "--reason", "initializing", str(tree.path))
    attempt = task()
    async with trees.used_by(attempt) as folder:
        assert (Path(folder) / "sub" / "file.txt").exists()
    assert told(attempt)["kept"] == ""


async def test_one_whose_folder_somebody_removed_is_made_again_with_its_commits(
    repository: Repository,
) -> None:
    trees = repository.worktrees()
    async with trees.used_by(task()) as folder:
        commit = repository.commit(Path(folder))
    shutil.rmtree(folder)
    async with trees.used_by(task(attempt=2)) as again:
        assert repository.git("rev-parse", "HEAD", folder=Path(again)) == commit


@pytest.mark.parametrize(
    "name", ["../../out", "--force", "a/b", "ünï", "A", "x" * 300, ".", "a.lock", "@{-1}"]
)
async def test_no_name_of_a_task_leads_elsewhere(repository: Repository, name: str) -> None:
    trees, attempt = repository.worktrees(), task(name)
    async with trees.used_by(attempt) as folder:
        assert Path(folder).parent == repository.path / ".asb/worktrees"
        assert repository.git("branch", "--show-current", folder=Path(folder)) == (
            f"asb/{name_of(name)}"
        )
    assert repository.trees == 0


def test_names_of_two_tasks_differ() -> None:
    names = ["a/b", "a b", "a-b", "A-b", "x" * 300, "x" * 301]
    assert len({name_of(name) for name in names}) == len(names)


def test_where_no_worktree_can_be_made_is_said_before_a_task_is_taken(
    tmp_path: Path, stage: Stage
) -> None:
    with pytest.raises(ConfigError, match="no git repository") as error:
        driver("claude", worktree=True, cwd=str(tmp_path)).check()
    assert "--cwd" in (error.value.hint or "")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(ConfigError, match="no commit"):
        Worktrees(str(tmp_path)).check()


def test_a_link_in_the_way_leads_nowhere(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repository.path / ".asb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads elsewhere"):
        Worktrees(str(repository.path)).check()


def test_a_folder_within_is_known_as_the_worktrees(repository: Repository) -> None:
    trees = repository.worktrees()
    place = repository.path / ".asb/worktrees/t1"
    assert trees.holding(str(place / "sub")) == Worktree(place, "asb/t1")
    assert trees.holding(str(repository.path)) is None


# -- agents in them ------------------------------------------------------------------------------


async def test_an_agent_works_in_its_tasks_worktree_and_its_reports_say_where(
    client: Client, keys: Keys, stage: Stage, repository: Repository
) -> None:
    said = await end_of(
        client, keys, "claude", "subagents", worktree=True, cwd=str(repository.path / "sub")
    )
    place = repository.path / ".asb/worktrees/t1"
    assert said["worktree"] == {"path": str(place), "branch": "asb/t1", "kept": ""}
    assert stage.starts()[0]["cwd"] == str(place / "sub")
    assert repository.trees == 0


async def test_it_is_told_at_the_start_and_a_cancelled_attempt_removes_it(
    client: Client, keys: Keys, stage: Stage, repository: Repository
) -> None:
    chosen = driver("claude", worktree=True, cwd=str(repository.path))
    async with working(client, keys, options(chosen)) as engine:
        await engine.dispatch("t1", "play hang")
        started = await engine.report("task.started", "t1")
        assert started["worktree"]["path"] == str(repository.path / ".asb/worktrees/t1")

        async def runs() -> bool:
            return bool(stage.starts())

        await wait_until(runs, within=20)
        assert repository.trees == 1
        await engine.cancel("t1")
        said = await ended(engine)
    assert said["worktree"]["kept"] == ""
    assert repository.trees == 0


# -- an agent in tmux, whose session the worker started ------------------------------------------


async def test_an_agent_in_tmux_is_started_anew_in_each_tasks_worktree(
    client: Client, keys: Keys, terminal: Terminal, repository: Repository
) -> None:
    folder = repository.path / ".asb/worktrees"
    settings = options(terminal.driver(worktree=True, cwd=str(repository.path)), capacity=1)
    async with working(client, keys, settings) as engine:
        await engine.dispatch("t1", "Say hello.")
        said = await ended(engine)
        assert said["result"] == "Did: 10 characters."
        assert said["worktree"]["branch"] == "asb/t1"
        assert said["worktree"]["kept"].endswith("is in it")  # a person may look at it there
        assert repository.trees == 1
        await engine.dispatch("t2", "Say hello again.")
        said = await ended(engine, "t2")
        assert said["result"] == "Did: 16 characters."
        assert repository.branches == ["asb/t2", "main"]  # the first one is gone with its agent
    here = str(repository.path)
    assert terminal.entries("cwd") == [here, f"{folder}/t1", f"{folder}/t2"]
    assert not any("--resume" in start for start in terminal.entries("start"))
    assert terminal.tmux("list-sessions").count(SESSION) == 1


async def test_a_second_attempt_finds_the_agent_in_its_worktree(
    client: Client, keys: Keys, terminal: Terminal, repository: Repository
) -> None:
    place = repository.path / ".asb/worktrees/t1"
    settings = options(terminal.driver(worktree=True, cwd=str(repository.path)), capacity=1)
    async with working(client, keys, settings) as engine:
        await engine.dispatch("t1", "play overloaded")
        assert "529" in (await ended(engine))["error"]
        (place / "new.txt").write_text("half done")
        await engine.dispatch("t1", "Say hello.", attempt=2)

        async def completed() -> bool:
            return bool(await engine.reports("task.completed", "t1"))

        await wait_until(completed, within=20)
    (said,) = await engine.reports("task.completed", "t1")
    assert said["worktree"]["kept"] == "1 changed file"
    assert terminal.entries("cwd") == [str(repository.path), str(place)]


async def test_an_agent_whose_worker_wants_no_worktrees_any_more_leaves_its_own(
    client: Client, keys: Keys, terminal: Terminal, repository: Repository
) -> None:
    for name, wanted in (("t1", True), ("t2", False)):
        chosen = terminal.driver(worktree=wanted, cwd=str(repository.path))
        async with working(client, Keys(f"{keys.namespace}-{name}"), options(chosen)) as engine:
            await engine.dispatch(name, "Say hello.")
            assert (await ended(engine, name))["result"]
    place = repository.path / ".asb/worktrees/t1"
    assert terminal.entries("cwd") == [str(repository.path), str(place), str(repository.path)]


async def test_a_session_that_somebody_else_started_stays_where_it_is(
    terminal: Terminal, repository: Repository
) -> None:
    terminal.tmux("new-session", "-d", "-s", SESSION, "-c", str(repository.path), "claude")
    with pytest.raises(ConfigError, match="started by somebody else") as error:
        await terminal.driver(worktree=True, cwd=str(repository.path)).prepare()
    assert "name a session that is not there" in (error.value.hint or "")
