"""Other machines: network, process and host namespaces of their own, with clocks of their own.

Each is joined to this machine by a cable (a veth pair) that a test can pull. Only root can make
them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.ports import free_network
from tests.shifted import library


class ElsewhereHost:
    """A machine called ``name`` whose clock is ours and as much more as ``clock`` says: ``+30s``.

    ``address`` is this machine's, as it is reached from there; ``there`` is its own.
    """

    def __init__(self, name: str, clock: str = "+0s") -> None:
        missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
        if missing or os.geteuid():
            pytest.skip(f"no other machines here: {', '.join(missing) or 'only root makes them'}")
        self._name, self._clock = name, clock
        self._network = f"asb-{secrets.token_hex(3)}"
        self._cable, self._nowhere = f"v{self._network[4:]}", f"n{self._network[4:]}"
        subnet = free_network()
        self.address, self.there = f"{subnet}.1", f"{subnet}.2"
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self._network)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns",
            self._network)  # fmt: skip
        _ip("addr", "add", f"{self.address}/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        # With the cable pulled what is sent there is lost. The way to everywhere else must not take
        # it along: somebody may answer (a proxy with HTTP did).
        _ip("link", "add", self._nowhere, "type", "veth", "peer", "name", "nowhere", "netns",
            self._network)  # fmt: skip
        _ip("link", "set", self._nowhere, "arp", "off", "up")
        _ip("route", "add", f"{subnet}.0/24", "dev", self._nowhere, "metric", "4096")
        for words in (
            ("addr", "add", f"{self.there}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self._network, *words)

    def start(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        shifted: bool = True,
    ) -> subprocess.Popen[bytes]:
        """A program there, in the folder of ``log``, which gets all it writes. ``shifted``: it
        sees that clock."""
        clock = {
            "LD_PRELOAD": library(),
            "FAKETIME": self._clock,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with log.open("ab") as file:
            process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self._network),
                    *("unshare", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"),
                    *("sh", "-c", 'hostname "$0" && exec "$@"', self._name),
                    *("env", *(f"{k}={v}" for k, v in (clock if shifted else {}).items())),
                    *command,
                ],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent,
                env=dict(environment), start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def pull(self) -> None:
        """Pull the cable: nothing arrives, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        """The cable is back."""
        _ip("link", "set", self._cable, "up")

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait()
        _ip("link", "del", self._cable)
        _ip("link", "del", self._nowhere)
        _ip("netns", "del", self._network)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
