"""What integration tests share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.integration.test_engine_ground import Bus


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    """A bus on the session's Redis, in the namespace of the test."""
    made = Bus(redis_url, namespace)
    yield made
    await made.close()
