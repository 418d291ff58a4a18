"""Under ``make prove`` (ASB_TEST_PROVE=1) the very same tests run, with large counts."""

from __future__ import annotations

import pytest

from tests.budget.ground import PROVING


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``make prove`` chooses by mark."""
    for item in items:
        if PROVING and "tests/budget" in item.path.as_posix():
            item.add_marker(pytest.mark.prove)
