"""Tasks pulled from other systems: files, lists and streams, once each, nothing lost in a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.keys import Keys
from services.cli import main, submit
from services.client.importers import fitting, shaped, taking_key
from services.client.markdown import open_items
from services.concurrent_task_manager import ConcurrentTaskManager
from services.store.client import SyncClient

TODO = """\
# Sprint
- [ ] Build the login
  - [x] sketch it
  - [ ] write the form
    with validation
  1. [ ] test it
- [x] done already
  * [ ] but this part is not

```
- [ ] an example, not a task
```
- a plain item
  - [ ] Write documentation
"""


@pytest.fixture
def redis(redis_url: str) -> Generator[SyncClient]:
    with contextlib.closing(SyncClient(redis_url)) as client:
        yield client


class Shell:
    """`asb submit` on the namespace of the test."""

    def __init__(self, url: str, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.keys, self._capsys = url, keys, capsys
        self.client = SyncClient(url)

    def submit(self, *words: str, code: int = 0) -> list[str]:
        found = 0
        try:
            main.main(
                ["submit", *words, f"--redis={self.url}", f"--namespace={self.keys.namespace}"]
            )
        except SystemExit as ended:
            found = int(ended.code or 0)
        captured = self._capsys.readouterr()
        assert found == code, captured.err
        return captured.out.split() if code == 0 else [captured.err]

    def entries(self) -> list[dict[str, Any]]:
        """What stands at the shared intake: data and idempotency key."""
        found: list[dict[str, Any]] = []
        for _, flat in self.client.call("XRANGE", self.keys.main_intake, "-", "+"):
            names = dict(zip(flat[::2], flat[1::2], strict=True))
            data = msgspec.json.decode(names[b"data"])
            found.append({**data, "key": names.get(b"id", b"").decode()})
        return found

    def texts(self) -> list[str]:
        return [entry["text"] for entry in self.entries()]


@pytest.fixture
def shell(redis_url: str, keys: Keys, capsys: pytest.CaptureFixture[str]) -> Generator[Shell]:
    made = Shell(redis_url, keys, capsys)
    yield made
    made.client.close()


@pytest.fixture
def foreign(redis: SyncClient, keys: Keys) -> Generator[str]:
    """A key of another system, gone afterwards with all beside it."""
    key = f"other-{keys.namespace}"
    yield key
    redis.call("DEL", key, taking_key(key))


# -- files -----------------------------------------------------------------------------------------


def test_a_to_do_list_gives_its_open_items_in_order() -> None:
    assert [(item.line, item.text) for item in open_items(TODO)] == [
        (2, "Build the login"),
        (4, "write the form\nwith validation\n\nPart of: Build the login"),
        (6, "test it\n\nPart of: Build the login"),
        (8, "but this part is not\n\nPart of: done already"),
        (14, "Write documentation\n\nPart of: a plain item"),
    ]


@pytest.mark.parametrize(
    "text", ["", "- [ ]", "- [ ] ", "- []x", "-[ ] x", "[ ] x", "```\n- [ ] x", "\t", "- [y] x"]
)
def test_what_is_no_open_item_gives_none(text: str) -> None:
    assert open_items(text) == []


def test_a_to_do_list_is_submitted_once_however_often_it_is_read(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "TODO.md"
    file.write_text(TODO + "- [ ] twice\n- [ ] twice\n")
    first = shell.submit("--from", f"md:{file}", "--priority", "high")
    assert len(set(first)) == 7  # two equal items are two tasks
    assert {entry["priority"] for entry in shell.entries()} == {"high"}
    file.write_text(file.read_text().replace("- [ ] Build", "- [x] Build") + "- [ ] new\n")
    again = shell.submit("--from", f"md:{file}", "--priority", "high")
    assert len(set(again) - set(first)) == 1
    keys = [(entry["key"], entry["text"]) for entry in shell.entries()]
    assert len(set(keys)) == 8  # the repeats carry the keys of the first time


def test_json_lines_keep_their_fields_and_ids(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(
        '{"id": "a", "content": "first", "priority": "low", "ticket": 7}\n'
        "\n"
        '{"text": "second", "timeout": 60}\n'
        '{"id": 3, "task": "third thing"}\n'
    )
    assert shell.submit("--from", f"jsonl:{file}")[0] == "a"
    first, second, third = shell.entries()
    assert (first["text"], first["priority"], first["ticket"], first["key"]) == (
        *("first", "low", 7, "a"),
    )
    assert (second["text"], second["timeout_s"], second["key"]) == ("second", 60, "")
    assert (third["text"], third["key"]) == ("third thing", "3")


def test_a_broken_line_lets_nothing_in_unless_told_to_skip_it(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"text": "good"}\nnot json\n{"text": ""}\n')
    [error] = shell.submit("--from", f"jsonl:{file}", code=1)
    assert "line 2: not a JSON object" in error
    assert "line 3: text is empty" in error
    assert shell.entries() == []
    shell.submit("--from", f"jsonl:{file}", "--on-error", "skip", code=1)
    assert shell.texts() == ["good"]


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "csv:x"),
        ("--from", "md:"),
        ("--take",),
        ("--from", "md:x", "--take"),
        ("--from", "list:redis://h/0"),
    ],
    ids=" ".join,
)
def test_what_is_no_source_is_said_so(shell: Shell, words: tuple[str, ...]) -> None:
    shell.submit(*words, code=2)


def test_a_file_that_is_not_there_is_an_error(shell: Shell) -> None:
    assert "cannot read /nowhere/x" in shell.submit("--from", "md:/nowhere/x", code=1)[0]


# -- lists -----------------------------------------------------------------------------------------


def test_a_list_is_read_and_left_as_it_is(shell: Shell, redis: SyncClient, foreign: str) -> None:
    redis.call("RPUSH", foreign, "plain text", '{"content": "as json", "id": 17}', "plain text")
    first = shell.submit("--from", f"list:{foreign}")
    assert shell.texts() == ["plain text", "as json", "plain text"]
    assert first[1] == f"{foreign}.17"
    assert shell.submit("--from", f"list:{foreign}") == first
    assert redis.call("LLEN", foreign) == 3


def test_what_is_taken_leaves_the_list_once_it_is_in(
    shell: Shell, redis: SyncClient, foreign: str
) -> None:
    redis.call("RPUSH", foreign, *(f"task {n}" for n in range(1_200)))
    shell.submit("--from", f"list:{foreign}", "--take")
    assert shell.texts() == [f"task {n}" for n in range(1_200)]
    assert redis.call("EXISTS", foreign) == 0
    assert redis.call("XLEN", taking_key(foreign)) == 0


@pytest.mark.parametrize("kind", ["list", "stream"])
def test_a_crash_after_submitting_and_before_acknowledging_loses_and_doubles_nothing(
    shell: Shell, redis: SyncClient, foreign: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        if kind == "list":
            redis.call("RPUSH", foreign, f"task {n}")
        else:
            redis.call("XADD", foreign, "*", "content", f"task {n}")

    def crash(_self: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(submit.Source, "done", crash)
        shell.submit("--from", f"{kind}:{foreign}", "--take", code=9)
    if kind == "list":
        redis.call("RPUSH", foreign, "task 0")  # an equal one that is new
    shell.submit("--from", f"{kind}:{foreign}", "--take")
    keys = [(entry["key"], entry["text"]) for entry in shell.entries()]
    assert len(keys) == (7 if kind == "list" else 6)
    assert len(set(keys)) == (4 if kind == "list" else 3)
    shell.submit("--from", f"{kind}:{foreign}", "--take")
    assert len(shell.entries()) == len(keys)  # acknowledged: nothing is left


def test_what_cannot_be_a_task_stays_where_it_was_taken_to(
    shell: Shell, redis: SyncClient, foreign: str
) -> None:
    redis.call("RPUSH", foreign, "good", b"\xff\xfe", "")
    shell.submit("--from", f"list:{foreign}", "--take", "--on-error", "skip", code=1)
    assert shell.texts() == ["good"]
    assert redis.call("XLEN", taking_key(foreign)) == 2


def test_a_key_of_another_type_is_an_error(shell: Shell, redis: SyncClient, foreign: str) -> None:
    redis.call("SET", foreign, "x", "EX", 60)
    for kind in ("list", "stream"):
        for take in ([], ["--take"]):
            [error] = shell.submit("--from", f"{kind}:{foreign}", *take, code=1)
            assert foreign in error


# -- streams ---------------------------------------------------------------------------------------


def test_a_stream_is_read_with_its_ids_as_keys(
    shell: Shell, redis: SyncClient, foreign: str
) -> None:
    redis.call("XADD", foreign, "5-0", "content", "flat", "priority", "low", "timeout_s", "60")
    redis.call("XADD", foreign, "6-0", "payload", '{"prompt": "as json", "id": 4}')
    assert shell.submit("--from", f"stream:{foreign}") == [f"{foreign}.5-0", f"{foreign}.6-0"]
    flat, nested = shell.entries()
    assert (flat["text"], flat["priority"], flat["timeout_s"]) == ("flat", "low", 60)
    assert (nested["text"], nested["key"]) == ("as json", f"{foreign}.6-0")


def test_another_redis_is_named_by_its_url(
    shell: Shell, redis: SyncClient, redis_url: str, foreign: str
) -> None:
    redis.call("RPUSH", foreign, "from over there")
    shell.submit("--from", f"list:{redis_url}#{foreign}")
    assert shell.texts() == ["from over there"]


# -- shapes ----------------------------------------------------------------------------------------


def test_other_names_of_the_text_are_understood() -> None:
    assert shaped({"content": "x", "id": 1}) == {"text": "x", "id": 1}
    assert shaped({"text": "x", "content": "y"}) == {"text": "x", "content": "y"}
    assert shaped({"task": "do it"}) == {"text": "do it"}
    assert shaped({"task": "t1", "prompt": "do it"}) == {"task": "t1", "text": "do it"}


def test_keys_of_others_become_ids_and_stay_different() -> None:
    assert fitting("queue.5-0") == "queue.5-0"
    assert fitting("a b") != fitting("a_b")
    assert len(fitting("x" * 1000)) <= 200
    assert fitting("x" * 1000) != fitting("x" * 1001)


# -- the seed's loop -------------------------------------------------------------------------------


def test_the_loop_of_the_seed_pulls_tasks_from_another_queue(
    redis_url: str, keys: Keys, shell: Shell
) -> None:
    def get_pending_tasks() -> list[dict[str, str]]:
        return [{"content": "Create a login"}, {"content": "Write documentation"}]

    manager = ConcurrentTaskManager(redis_url, keys.namespace)
    tasks = get_pending_tasks()

    for task in tasks:
        manager.add_task(task["content"])
        manager.distribute_tasks()

    manager.close()
    assert shell.texts() == ["Create a login", "Write documentation"]
