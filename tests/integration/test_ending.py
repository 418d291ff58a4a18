"""Who says that it is up can be stopped in order from that moment on."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from services import assembly
from services.running.bus import run_bus
from tests.integration.test_engine_ground import settings_for

pytestmark = pytest.mark.anyio


async def test_a_signal_right_behind_the_banner_ends_a_bus_in_order(
    redis_url: str, namespace: str
) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGINT)

    def banner(_specs: object) -> str:
        return "it is up"

    with anyio.fail_after(20):
        await run_bus(settings_for(namespace), redis_url, assembly.SERVICES, say, banner=banner)
    assert said == ["it is up"]
