"""asb archive and asb replay --verify, as commands on a bus at work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.cli import AGENT, Up


@pytest.mark.timeout(600)
def test_an_archive_is_verified_with_the_log_and_a_flipped_byte_is_named(tmp_path: Path) -> None:
    """Given a bus that did some work, then its log can be archived and is verified with it; once a
    byte of the archive is flipped, both commands say which file, and end with 1."""
    (tmp_path / "agent.py").write_text(AGENT)
    up = Up(tmp_path, "--workers=1", "--", sys.executable, str(tmp_path / "agent.py")).start()
    try:
        assert up.run("archive", "--verify").stdout.startswith("nothing is archived yet")
        assert up.run("submit", "Write a page", "Write more", "--wait").returncode == 0
        made = up.ask("archive")
        [segment] = made["segments"]
        assert up.run("archive", "--verify").stdout.startswith(f"verified: {segment['entries']}")
        checks = {c["name"]: c for c in up.ask("replay", "--verify")["checks"]}
        assert checks["archive"]["good"]
        [row] = [c for c in up.ask("doctor")["checks"] if c["name"] == "archive"]
        assert row["value"].startswith(f"1 segment up to {segment['last']}, without words")
        path = Path(made["folder"]) / segment["file"]
        data = bytearray(path.read_bytes())
        data[40] ^= 4
        path.write_bytes(bytes(data))
        broken = up.run("archive", "--verify")
        assert broken.returncode == 1
        assert f"{path}: segment 1" in broken.stderr
        verdict = up.run("replay", "--verify", "--json")
        assert verdict.returncode == 1
        [check] = [c for c in json.loads(verdict.stdout)["checks"] if c["name"] == "archive"]
        assert not check["good"]
        assert "was changed" in check["value"]
    finally:
        up.end()
