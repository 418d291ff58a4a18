"""ops/reference.md says what the code says."""

from __future__ import annotations

from tests.reference_page import PAGE, page


def test_the_reference_is_that_of_this_code() -> None:
    wanted = page()
    assert PAGE.read_text(encoding="utf-8") == wanted, "run: python -m tests.reference_page"
    for word in ("asb submit", "tasks.lease_s", "asb:events", "task.dispatched", "asb_holds"):
        assert f"`{word}" in wanted
