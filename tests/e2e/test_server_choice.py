"""Which server `asb up` starts, as a newcomer meets it: an activated environment, an old folder."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from services.store.data_folder import record_of
from services.store.redis_server import find_server, wheel_server
from tests.e2e.cli import Up, asb


@pytest.fixture
def up(tmp_path: Path) -> Generator[Up]:
    made = Up(tmp_path)
    yield made
    made.end()


@pytest.fixture
def in_environment(tmp_path: Path) -> Path:
    """A server that a wheel put into an environment; it says that it is new, and serves nothing."""
    program = tmp_path / "venv" / "bin" / "redis-server"
    program.parent.mkdir(parents=True)
    brand = find_server().identity.brand.capitalize()  # the one that a new folder gets
    program.write_text(f"#!/bin/sh\necho '{brand} server v=99.0.0 sha=0'\n")
    program.chmod(0o755)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    return program


def activate(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_folder_opens_again_after_activation(
    tmp_path: Path, in_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's own "look into it again", with its environment activated in between."""
    done = asb("demo", f"--data-dir={tmp_path}", "--speed", "50", "--tasks", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = record_of(tmp_path / "demo")
    up = Up(tmp_path)
    up.data = tmp_path / "demo"
    activate(in_environment, monkeypatch)
    try:
        up.start()
        assert up.ask("status")["tasks"]["completed"] >= 4
        after = record_of(up.data)
        assert before is not None
        assert after is not None
        assert after.identity == before.identity
        assert up.stop() == 0
    finally:
        up.end()


def test_doctor_names_the_server_and_what_was_passed_over(
    up: Up, in_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(in_environment, monkeypatch)
    up.start()
    rows = up.run("doctor").stdout
    runs = record_of(up.data)
    assert runs is not None
    assert runs.program == str(find_server().path)
    assert f"{runs.identity.shown}, {runs.origin}: {runs.program}" in rows
    environment = in_environment.parent.parent
    assert f"{in_environment} belongs to the Python environment {environment}" in rows
    assert up.stop() == 0


def test_a_folder_of_another_brand_is_refused_with_the_way_out(tmp_path: Path) -> None:
    wheel = wheel_server()
    if wheel is None:
        pytest.skip("there is no wheel with a server for this machine")
    data = tmp_path / "data"
    data.mkdir()
    (data / "appendonly.aof").write_bytes(b"REDIS0009\xfa\tredis-ver\x066.2.14\xfa\n")
    done = asb("up", f"--data-dir={data}", "--server", str(wheel), cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: {data} was written by Redis 6.2.14" in done.stderr
    assert "hint: name a Redis 6.2.14 or newer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_is_refused_before_anything_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = asb("up", f"--data-dir={data}", "--workers", "2", "--", "claudee", cwd=tmp_path)
    assert done.returncode == 1
    assert "the command 'claudee' cannot be found" in done.stderr
    assert "asb is up" not in done.stderr
    assert not data.exists()
