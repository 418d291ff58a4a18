"""The delegator: right routes on examples, a reason a person understands, the same every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.delegator.classify import DEFAULT_ROUTES, KINDS, Delegator, Route
from services.delegator.evaluate import LabelledText, confusion, evaluate, read_labelled, report
from services.task_delegator import get_delegator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tests" / "data" / "delegation-examples.tsv"
# Real titles which lie beside the checkout on some machines; measured where they are. They train
# nothing, so the bar is that of tasks never seen.
BESIDE = ROOT.parent / "shared" / "data" / "tasks-labelled.tsv"
FILES = [(EXAMPLES, 95), *([(BESIDE, 90)] if BESIDE.exists() else [])]


@pytest.fixture(scope="module")
def delegator() -> Delegator:
    return Delegator()


def examples() -> list[LabelledText]:
    return read_labelled(EXAMPLES)


@pytest.mark.parametrize(("path", "percent"), FILES, ids=[path.stem for path, _ in FILES])
def test_routes_are_right(path: Path, percent: int, delegator: Delegator) -> None:
    outcomes = evaluate(read_labelled(path), delegator)
    right = sum(outcome.right for outcome in outcomes)
    assert len(outcomes) >= 80
    assert 100 * right >= percent * len(outcomes), "\n" + report(outcomes)


@pytest.mark.parametrize("route", ["comet", "codex", "haiku", "sonnet"])
def test_no_route_is_neglected(route: str, delegator: Delegator) -> None:
    """A scorer that sends everything to one route would do well on a lopsided file."""
    outcomes = [o for o in evaluate(examples(), delegator) if route in o.task.routes]
    assert len(outcomes) >= 25
    assert 10 * sum(o.right for o in outcomes) >= 9 * len(outcomes), "\n" + confusion(outcomes)


def test_examples_are_varied() -> None:
    tasks = examples()
    assert len(tasks) >= 150
    assert {task.kind for task in tasks} == set(KINDS) - {"unknown"}
    assert len({task.text for task in tasks}) == len(tasks)
    assert sum(not task.text.isascii() for task in tasks) >= 40
    assert sum(task.text.count(". ") >= 1 for task in tasks) >= 10


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Audit the backup workflow", "analysis"),
        ("Document the audit workflow", "documentation"),
        ("Add an audit log", "coding"),
        ("Add an audit log to the docs", "documentation"),
        ("What does the audit log contain?", "research"),
        ("Audit log viewer: rows overlap", "ui"),
        ("Audit log: KeyError when a user was deleted", "debugging"),
        ("[Docs] modal component", "documentation"),
        ("fix(modal): wrong z-index", "ui"),
        ("Can you fix the login?", "debugging"),
        ("Can I use this with a proxy?", "research"),
        ("As a shop owner, I want a report on slow pages so that I can act", "analysis"),
    ],
)
def test_the_same_words_in_other_places_mean_other_work(
    text: str, kind: str, delegator: Delegator
) -> None:
    found = delegator.delegate(text)
    routes = {DEFAULT_ROUTES[found.kind], DEFAULT_ROUTES[kind]}
    assert len(routes) == 1, found


def test_the_request_decides_not_the_story_around_it(delegator: Delegator) -> None:
    story = (
        "The new dialog went live on Monday. The buttons look great and the colours are ours. "
        "Translate the user guide of the dialog into Greek. Keep the headings."
    )
    assert delegator.delegate(story).kind == "documentation"


def test_only_the_beginning_of_a_long_text_is_read(delegator: Delegator) -> None:
    title = "Fix a typo in the handbook.\n"
    long = delegator.delegate(title + "crash exception traceback " * 400_000)
    assert long.kind in KINDS
    assert long.estimated_tokens > 2_000_000
    filler = "nothing to see here " * 100
    assert delegator.delegate(filler + "button layout css") == delegator.delegate(
        filler + "crash segfault leak"
    )


def test_figures_of_a_delegation(delegator: Delegator) -> None:
    found = delegator.delegate("Write a tutorial for first-time users")
    assert (found.kind, found.agent, found.model) == ("documentation", "claude", "haiku")
    assert found.estimated_tokens == len("Write a tutorial for first-time users") // 4 + 1000
    assert found.complexity in {"low", "medium", "high"}
    assert found.candidates[0].kind == found.kind
    scores = [candidate.score for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is int for score in scores)


@pytest.mark.parametrize(
    ("text", "complexity"),
    [
        ("Fix a typo in the handbook", "low"),
        ("Add an option for the output folder", "medium"),
        ("Migrate the whole authentication to the new protocol", "high"),
    ],
)
def test_complexity(text: str, complexity: str, delegator: Delegator) -> None:
    assert delegator.delegate(text).complexity == complexity


@pytest.mark.parametrize("task", examples(), ids=lambda task: task.text[:30])
def test_the_reason_names_the_kind_and_quotes_the_text(
    task: LabelledText, delegator: Delegator
) -> None:
    found = delegator.delegate(task.text)
    assert found.reason.startswith(f"reads as {found.kind}: ")
    quoted = found.reason.partition('"')[2].rpartition('"')[0]
    lowered = task.text.lower()
    assert quoted
    assert all(word.lower() in lowered for part in quoted.split(" … ") for word in part.split())
    assert "\n" not in found.reason


def test_text_that_tells_nothing_goes_to_the_safe_route(delegator: Delegator) -> None:
    found = delegator.delegate("Xyzzy plugh 17")
    assert (found.kind, found.agent) == ("unknown", "codex")
    assert "Xyzzy plugh" in found.reason
    assert delegator.delegate("").kind == "unknown"


def test_a_kind_given_wins_over_the_text(delegator: Delegator) -> None:
    found = delegator.delegate("Button colours are wrong", kind="research")
    assert (found.kind, found.agent, found.model) == ("research", "claude", "haiku")
    assert found.candidates[0].kind == "research"
    assert "ui" in {candidate.kind for candidate in found.candidates}


def test_routes_are_the_users() -> None:
    own = Delegator({"ui": Route("gemini", "flash")})
    ui = own.delegate("Align the buttons of the dialog")
    assert (ui.agent, ui.model) == ("gemini", "flash")
    assert "flash" in ui.reason
    assert own.delegate("Memory leak in the decoder").agent == "codex"
    with pytest.raises(ValueError, match="cooking"):
        Delegator({"cooking": Route("a", "b")})


def test_the_hash_seed_changes_nothing() -> None:
    code = (
        "import json, sys, msgspec\n"
        "from services.delegator.classify import Delegator\n"
        "d = Delegator()\n"
        "texts = json.load(sys.stdin)\n"
        "print(json.dumps([msgspec.to_builtins(d.delegate(t)) for t in texts]))\n"
    )
    texts = json.dumps([task.text for task in examples()])
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=texts,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(answers) == 1


def test_the_first_name_still_works() -> None:
    delegator = get_delegator()
    assert get_delegator() is delegator
    result = delegator.delegate_task("Your task here")
    assert (result["agent"], result["model"]) == (result.agent, result.model)
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert set(result) == set(plain)
    assert len(result) == len(plain)
    assert dict(result)["reason"] == result.reason
    assert delegator.delegate_task("Your task here", kind="ui")["agent"] == "comet"
