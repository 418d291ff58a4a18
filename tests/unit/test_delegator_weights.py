"""The weights: learnt from the rows in the repository, and used as they were learnt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.task import KINDS
from services.delegator import rows, train, weights
from services.delegator.classify import DEFAULT_ROUTES, Delegator, Route, shipped_weights
from services.delegator.features import FAMILIES, family, features
from services.delegator.learn import Plan, learn
from services.delegator.sentences import Words
from services.delegator.vocabulary import default_vocabulary

ROOT = Path(__file__).resolve().parents[2]
DELEGATOR = Delegator()
WORDS = Words(default_vocabulary())


@pytest.mark.timeout(600)  # eight seconds of work; the machine may be busy
def test_the_shipped_weights_are_what_the_rows_give() -> None:
    assert train.learnt(rows.counted(rows.training_rows())) == train.FILE.read_text("utf-8")


def test_what_judges_never_trains() -> None:
    for name, digest in rows.DIGESTS.items():
        assert rows.digest(name) == digest, f"{name} has changed"
    assert set(rows.DIGESTS) == {*rows.GIVEN, rows.JUDGE}
    trained = {row.text for row in rows.training_rows()}
    assert trained.isdisjoint(row.text for row in rows.rows_of(rows.JUDGE))


def test_own_rows_repeat_nothing_that_judges() -> None:
    judges = {row.text.lower() for name in rows.DIGESTS for row in rows.rows_of(name)}
    own = [row.text.lower() for name in rows.OWN for row in rows.rows_of(name)]
    assert judges.isdisjoint(own)
    assert len(set(own)) == len(own)
    assert len(own) >= 1_000


def test_rows_that_never_trained_are_routed_right() -> None:
    judged = rows.rows_of(rows.JUDGE)
    routes = [DELEGATOR.delegate(row.text) for row in judged]
    right = sum(
        Route(route.agent, route.model) == DEFAULT_ROUTES[row.kind]
        for route, row in zip(routes, judged, strict=True)
    )
    assert 100 * right >= 92 * len(judged), f"{right} of {len(judged)}"


def added_up(text: str) -> list[int]:
    """What the reference says: every feature by name, its weights from the file."""
    points = [0] * len(KINDS)
    for name, count in features(text, WORDS).items():
        for kind, weight in weights.parse(shipped_weights().get(name, "")).items():
            points[kind] += weight * count
    return points


def fast(text: str) -> list[int]:
    evidence = DELEGATOR.evidence(text)
    assert len(evidence.values) == len(evidence.quotes)
    return weights.unpack(DELEGATOR.bias + sum(evidence.values))


def test_the_fast_way_adds_up_the_very_features_that_were_learnt() -> None:
    texts = [row.text for name in (rows.JUDGE, "train-2.tsv") for row in rows.rows_of(name)][::3]
    different = [text for text in texts if fast(text) != added_up(text)]
    assert different == []


PIECES = [
    *"[:].,?-",
    "fix(ui):",
    "Docs",
    "button",
    "错误",
    "l'été",
    "KeyError",
    "17",
    "dark",
    "mode",
]


@given(st.lists(st.sampled_from(PIECES)))
def test_the_fast_way_agrees_on_any_words(words: list[str]) -> None:
    text = " ".join(words)
    assert fast(text) == added_up(text)


def test_the_same_rows_give_the_same_weights_whatever_the_hash_seed() -> None:
    code = (
        "from services.delegator import rows, weights\n"
        "from services.delegator.learn import Plan, learn\n"
        "some = rows.counted(rows.rows_of('own.tsv')[:300])\n"
        "print(weights.write(learn(some, Plan(rounds=2, orders=1))))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("0", "4242")
    }
    assert len(answers) == 1
    assert "\t" in answers.pop()


def test_learning_finds_what_tells_two_kinds_apart() -> None:
    some = rows.counted([("ui", "blue button"), ("api", "new endpoint")] * 20)
    learnt = learn(some, Plan(rounds=5, orders=1))
    ui, api = KINDS.index("ui"), KINDS.index("api")
    assert learnt["button"][ui] > 0 > learnt["button"].get(api, 0)
    assert learnt["endpoint"][api] > 0 > learnt["endpoint"].get(ui, 0)


def test_the_file_is_sorted_readable_and_read_back() -> None:
    text = train.FILE.read_text("utf-8")
    header, *lines = text.splitlines()
    assert header == weights.HEADER
    names = [line.split("\t")[0] for line in lines]
    assert names == sorted(set(names))
    assert {family(name) for name in names} == {*FAMILIES, "always"}
    taken = {name: weights.parse(points) for name, points in weights.read(text).items()}
    assert weights.write(taken) == text


@given(st.dictionaries(st.integers(0, len(KINDS) - 1), st.integers(-30_000, 30_000)))
def test_packed_weights_are_unpacked(points: dict[int, int]) -> None:
    total = weights.pack(points)
    assert weights.unpack(total) == [points.get(kind, 0) for kind in range(len(KINDS))]
    assert weights.unpack(total + total) == [2 * points.get(kind, 0) for kind in range(len(KINDS))]


def test_weights_for_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="other kinds"):
        weights.read("# a=soup\nbutton\ta+1\n")
