"""What doctor says of agents' command lines, with programs of the test's own on PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.queries.doctor import programs


def test_versions_are_read_and_what_hangs_or_fails_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {
        "claude": "echo '2.1.330 (Claude Code)'",
        "codex": "echo codex-cli 0.169.0",
        "gemini": "exec sleep 600",
        "tmux": "printf 'tmux 3.3a\\n'",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(programs, "ANSWER_S", 1.0)
    agents, tmux = programs.program_rows()
    assert agents == ("agents", "claude 2.1.330, codex 0.169.0, gemini unknown", "ok", "")
    assert tmux == ("tmux", "3.3a", "ok", "")


def test_none_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [row[2] for row in programs.program_rows()] == ["ok", "ok"]
