"""The measuring of the delegator: what it prints, and what it says about a bad file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.delegator.evaluate import main, read_labelled

GOOD = (
    "route\tkind\ttext\tsource\n"
    "comet\tui\tThe dialog is misaligned\tacme/web#1\n"
    "haiku/sonnet\tresearch\tWhat is a lease?\tacme/web#2\n"
    "sonnet\tanalysis\tThe dialog is blue\tacme/core#3\n"
)


def test_it_prints_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tasks.tsv"
    file.write_text(GOOD, encoding="utf-8")
    assert main([str(file)]) == 0
    out = capsys.readouterr().out
    assert "right routes: 2 of 3 (66.7 %)" in out
    assert "the mean over 2 repositories: 50.0 %, 1 of them" in out
    assert "misses: 1\n  The dialog is blue\n    sonnet, not comet:" in out
    assert "µs" in out
    table = out.partition("found (columns)\n")[2].partition("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1, "the columns are not aligned"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("text\tsort\n", "line 1 must name"), (GOOD + "comet\tui\n", "line 5 has no text")],
)
def test_a_bad_file_is_named(
    content: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tasks.tsv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_labelled(file)
    assert main([str(file)]) == 2
    assert complaint in capsys.readouterr().err


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main(["no/such/file.tsv"]) == 2
    assert "cannot evaluate" in capsys.readouterr().err
