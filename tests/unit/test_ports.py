"""Ports that tests are given: never one twice, whichever process of tests asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ports


def test_no_two_processes_of_tests_are_given_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ports.free_port()
    monkeypatch.setattr(ports, "PORTS", range(ours, ours + 1))
    with pytest.raises(AssertionError, match="no port is free"):
        ports.free_port()
    code = f"from tests import ports; ports.PORTS = range({ours}, {ours} + 1); ports.free_port()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no port is free" in done.stderr


def test_no_network_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    number = ports.free_network().rpartition(".")[2]
    monkeypatch.setattr(ports, "NETWORKS", range(int(number), int(number) + 1))
    with pytest.raises(AssertionError, match="no network is free"):
        ports.free_network()
