"""Learn the weights that ship with the project.   python -m services.delegator.train [--check]

Reads ``training/``, writes ``weights.txt``; the same rows give the same bytes on every machine.
``--check`` only says whether the file is what would be written (exit 1 when it is not).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.delegator import weights
from services.delegator.learn import Plan, Row, learn
from services.delegator.rows import counted, training_rows

FILE: Final = Path(__file__).with_name("weights.txt")
PLAN: Final = Plan()


def learnt(rows: Sequence[Row]) -> str:
    """The file of weights that rows give."""
    return weights.write(learn(rows, PLAN))


def main(arguments: Sequence[str]) -> int:
    """The command. 0 done, 1 the file differs, 2 wrong use."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m services.delegator.train [--check]\n")
        return 2
    text = learnt(counted(training_rows()))
    same = FILE.exists() and FILE.read_text("utf-8") == text
    if arguments:
        sys.stdout.write("as learnt\n" if same else f"{FILE.name} is not what the rows give\n")
        return 0 if same else 1
    FILE.write_text(text, encoding="utf-8", newline="\n")
    sys.stdout.write(f"{text.count(chr(10)) - 1:,} features, {len(text.encode()):,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
