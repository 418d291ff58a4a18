"""Log lines for programs."""

from __future__ import annotations

import json
import logging

from services.runtime.logs import JsonLines


def test_a_line_names_its_ids_and_stays_one_line() -> None:
    words = "the log went back from %s to %s\nand %s"
    ids = ("1795331025498-0", "1795331025490-2", "\x1b[2J")
    record = logging.LogRecord("asb", logging.WARNING, "x.py", 1, words, ids, None)
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "\x1b" not in text
    line = json.loads(text)
    assert line["ids"] == ["1795331025498-0", "1795331025490-2"]
    assert line["level"] == "warning"
