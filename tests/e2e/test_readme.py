"""Every command line of the README, run as it is written, by one shell in one fresh home."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.agents.playing import Stage
from tests.e2e.cli import ROOT, environment
from tests.wait import wait_blocking

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What stands for something of the reader's own, and what it is here.
OWN = {
    "CMD…": "./my-agent.sh",
    "FOLDER": ".",
    "FILE": "examples.tsv",
    "URL": "$ADDRESS",
    "NAME": "reader",
    "TIME": "-1s",
    "'{…}'": '\'{"status": "in_progress", "progress": 60}\'',
    '"…"': '"Write the changelog"',
    "field=value": "text=Mended",
}
IDS = {
    "asb cancel ID": "waits",
    "asb forget ID": "private",
    "asb deadletter retry ID": "$LETTER",
}  # else: ended
BESIDE = "asb worker NAME --driver codex"  # what options without a command go with
LASTING = ("asb up", "asb worker", "asb service", "asb fleet", "--watch", "--follow")
# What other tests run, which take minutes or an engine for containers.
ELSEWHERE = {"make demo": "test_demo", "make test": "this suite", "make bench": "tests.bench",
             "docker compose up -d": "test_compose",
             "prometheus --config.file=ops/prometheus/prometheus.yml "
             "--web.listen-address=127.0.0.1:9090": "test_prometheus"}  # fmt: skip
# What ends with 1 on a healthy bus, since there is nothing to do, and the word it says.
REFUSED = {"tmux capture-pane -p -t worker1": "", "asb account release NAME": "is not limited",
           "asb service shares": "[[shares]] is not set"}  # fmt: skip


def block_lines() -> Iterator[str]:
    """The lines of console blocks behind their prompt."""
    for block in re.findall(r"```console\n(.*?)```", README, re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield line.removeprefix("$ ").partition("  #")[0].rstrip()


def table_lines() -> Iterator[str]:
    """The commands of the Everyday table; an option on its own goes with the command before it."""
    for row in README.partition("## Everyday")[2].partition("\n\n(")[0].splitlines():
        command = BESIDE if "--permissions" in row else "asb status"
        for said in re.findall(r"`([^`]+)`", row.rpartition(" | ")[2].replace("\\|", "|")):
            words = re.sub(r"(\w+)(\|\w+)+", r"\1", said)
            if words.startswith(("asb ", "python3 ", "docker ")):
                command = words
                yield command
            elif words.startswith("-- "):
                yield f"asb worker NAME {words}"
            elif words.startswith("--"):
                yield f"{command} {words}"


def manual_lines() -> Iterator[str]:
    """The lines of the shell blocks of the manual for troubles."""
    manual = (ROOT / "ops" / "troubleshooting.md").read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", manual, re.S):
        for line in block.splitlines():
            if command := line.strip().partition("  #")[0].rstrip():
                yield command


LINES = list(dict.fromkeys([*block_lines(), *table_lines(), *manual_lines()]))


AUTHOR = ("-c", "user.name=reader", "-c", "user.email=reader@localhost")


class Reader:
    """A person with a fresh clone, a home of their own and agents on PATH."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "asb"
        self.clone.mkdir()
        for path in ROOT.iterdir():
            if path.name not in ("asb.toml", ".git"):
                (self.clone / path.name).symlink_to(path)
        if not (self.clone / ".venv").exists():
            (self.clone / ".venv").symlink_to(sys.prefix)
        for words in (("init", "-q"), ("add", "README.md"), (*AUTHOR, "commit", "-qm", "cloned")):
            subprocess.run(["git", *words], cwd=self.clone, check=True)
        self._files()
        stage = Stage(folder)
        home = folder / "home"
        home.mkdir()
        self.log = folder / "up.log"
        self.environment = {**environment(), **stage.environment, "HOME": str(home)}
        self.environment["PATH"] = f"{stage.bin}:{sys.prefix}/bin:{os.environ['PATH']}"
        with self.log.open("wb") as log:
            self.up = subprocess.Popen(
                ["bash", "-c", "exec asb up --workers 3 --driver claude"], cwd=self.clone,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_blocking(lambda: "asb is up" in self.said, within=60, what="asb is up")
        self.environment["ADDRESS"] = re.findall(r"redis://\S+", self.said)[0]
        # The README's `redis-cli` means the port that is free on the reader's machine.
        by_hand = re.findall(r"By hand +(.*)", self.said)[0]
        wrapper = stage.bin / "redis-cli"
        wrapper.write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]}\nexec {by_hand} "$@"\n')
        wrapper.chmod(0o755)
        self._tasks()

    def _files(self) -> None:
        (self.clone / "tasks.jsonl").write_text('{"text": "Add a test"}\nFix the typo\n')
        (self.clone / "TODO.md").write_text("- [ ] Rename the module\n- [x] done\n")
        (self.clone / "examples.tsv").write_text("kind\ttext\ndocumentation\tWrite a guide\n")
        (self.clone / "fleet.toml").write_text('[[workers]]\ndriver = "codex"\ncount = 1\n')
        (self.clone / "my-agent.sh").write_text("#!/bin/sh\ntr a-z A-Z\n")
        (self.clone / "my-agent.sh").chmod(0o755)

    def _tasks(self) -> None:
        self.must("asb submit --id ended --wait 'Write documentation for the API'")
        self.must("asb submit --id runs --worker nobody 'Never begun'")
        self.must("asb submit --id private --worker nobody 'Call Mrs. Abernathy'")
        self.must("asb submit --id waits --after runs 'Not yet'")
        self.must("redis-cli XADD asb:intake '*' type task.submitted data '{\"text\": 5}'")
        wait_blocking(lambda: "-" in self.run("asb deadletter").stdout, within=20, what="a letter")
        letter = self.run("asb deadletter").stdout.splitlines()[1].split()[0]
        self.environment["LETTER"] = letter

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def run(self, line: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        lasts = line not in REFUSED and any(word in line for word in LASTING)
        shell = ["timeout", "-s", "INT", "-k", "20", "3", "bash", "-c", f"exec {line}"]
        return subprocess.run(
            shell if lasts else ["bash", "-c", line], cwd=self.clone, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def must(self, line: str) -> None:
        done = self.run(line)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self) -> None:
        self.up.terminate()
        self.up.wait(timeout=30)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Generator[Reader]:
    made = Reader(tmp_path_factory.mktemp("reader"))
    try:
        yield made
    finally:
        made.end()


def typed(line: str) -> str:
    """The line with the reader's own things in it."""
    given = next((IDS[start] for start in IDS if line.startswith(start)), "ended")
    line = re.sub(r"\b(ID|\d{13}-\d)\b", given, line)
    for word, own in OWN.items():
        line = line.replace(word, own)
    return line


def test_the_readme_has_command_lines() -> None:
    assert len(LINES) > 50
    assert all(shlex.split(typed(line)) for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_of_the_readme_runs_as_written(line: str, reader: Reader) -> None:
    if line in ELSEWHERE:
        if line.startswith("make"):
            subprocess.run(["make", "-n", *line.split()[1:]], cwd=ROOT, check=True)
        return
    done = reader.run(typed(line))
    said = f"{typed(line)}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in said
    if line in REFUSED:
        assert done.returncode == 1, said
        assert REFUSED[line] in said
    elif any(word in line for word in LASTING):
        assert done.returncode == 124, said
        assert "error:" not in done.stderr, said
    else:
        assert done.returncode == 0, said
