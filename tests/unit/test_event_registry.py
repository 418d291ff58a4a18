"""Every process knows every type of event, whatever it imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def declared() -> set[str]:
    """The wire names that stand in the sources of events/, by ``@wire("…")``."""
    return {
        decorator.args[0].value
        for path in (ROOT / "events").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and ast.unparse(decorator.func) == "wire"
        and isinstance(decorator.args[0], ast.Constant)
        and isinstance(decorator.args[0].value, str)
    }


def test_a_process_that_imports_only_the_envelope_reads_every_type() -> None:
    """Given a fresh interpreter, when it imports nothing but decode, then no type is unknown to
    it. A process that knew only some ended at the first event of another, unseen."""
    program = "from events.envelope import known_types; print(*known_types())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(declared()) >= 25
    assert set(done.stdout.split()) == declared()
