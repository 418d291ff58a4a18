"""These properties run small in every test run, and large behind ``make prove``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.strategies import PROVING

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """When proving, the same tests carry the mark that ``make prove`` selects."""
    if PROVING:
        for item in items:
            if item.path.parent == HERE:
                item.add_marker(pytest.mark.prove)
                item.add_marker(pytest.mark.timeout(3_600))
