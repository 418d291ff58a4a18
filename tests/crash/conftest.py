"""What crash tests share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.sentinels import Sentinels


@pytest.fixture
def sentinels(tmp_path: Path) -> Generator[Sentinels]:
    """A primary with a replica, and who watches them: to be killed."""
    made = Sentinels(tmp_path / "sentinels").start()
    yield made
    made.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    """Three primaries with a replica each: to be killed."""
    made = Cluster(tmp_path / "cluster")
    try:
        yield made.start()
    finally:
        made.stop()
