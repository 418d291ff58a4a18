"""The benchmark page, ops/benchmarks.md: written by ``make bench`` without arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.measures import Figure
from tests.bench.table import number, spread

CAVEATS = """\
# Benchmarks

**Caveats first.** These are the figures of one run on one small machine, whose load stands in
each row: client, engine, worker and server share its cores, and whatever else ran there at the
time. Compare ratios, never figures of two runs. R is what synchronous redis-py appends in
pipelines of 100, taken before and after each repeat; H is a bare hand-off of one entry between
two processes (`tests/bench/reference.py`, frozen). A task here does nothing: an agent takes
seconds to minutes. All services run, every text is distinct, the default kinds of limits are
looked at and do not bind, everything is kept on the log. The peers keep nothing: huey with one
thread, taskiq's stream broker with a hundred tasks at once, each with one worker process; they
neither route nor admit, nor can they be replayed.

Where the load is above the number of cores the machine was busy with other work: then latencies,
and rates that need several processes at once, say little, and CPU time a task says more.

**Where the limit is.** One engine decides everything on one core, in Python. Hot, alone and in
memory it takes what the row `turns` says, which is about a million instructions a task. End to end
the same code takes half as long again, since it shares the caches of two cores with client, worker
and Redis, and speaking to Redis comes on top. Its time by what it does, sampled with py-spy in
end-to-end waves on a busy machine:

| | % of the engine |
|---|---|
| reading texts (the delegator) | 21 |
| folds | 16 |
| Redis: arguments, packing, parsing, the intakes read | 14 |
| judging what came in | 11 |
| encoding, marks, masks, reading back what was encoded | 10 |
| the loop and its system calls | 8 |
| notes for inboxes, views, other projectors | 6 |
| admission and placement | 4 |
| turns, look-ups, journal, host | 10 |

By their own time: the loop 8, `packed` 5, `encode`, `sentences.read` and `_add_words` 4 each,
`Wire.ask` and `Journal.touch` 3, `quoted` 2.5, `as_read` 2; every other function less than 2. There
is no place left where much is lost: less would have to be decided, or in another language.

- *End to end*: engine, worker, client and Redis share the machine's cores. The engine's CPU a task
  (the note of e2e) is the bound: in four waves it worked 0.87 of the time and waited 0.11 of it for
  a core that another had. At 188 µs a core has 5,300 tasks/s, 0.045 R where R is 119,000; in a slow
  hour it is 295 µs at 74,000. 0.055 R would be 153 µs, and that is out of reach of this program
  whatever else runs: the row `turns`, without Redis and without neighbours, is 130, and speaking to
  Redis with the loop, 22 % of the engine, 41 more. On cores of its own it would have 0.049 R.
- *Flat*: in memory a task behind 110,000 others takes 1 % more, in 24 pairs: its block is packed
  and, later, forgotten. As a bus it was 0 to 9 % of the engine's CPU in six runs of 12 pairs, and
  0.91 to 1.03 of the rate, the median 0.99; single pairs lie between 0.6 and 1.35. What is left is
  larger memory in Redis and engine, and the snapshot's process beside them: 1.4 s instead of 0.5,
  each 50,000 events.
- *Submission to start*: two hops through Redis and a turn between them. Medians of 16 takes, in
  µs: from the client to the engine 437, until its turn begins 155, the turn 725, arguments and
  packing 86, from there to the handler 620; a bare hop (H) took 740. 2.3 H would leave 400 for that
  turn, which takes 150 hot and four to six times that after 20 ms of nothing: see the rows of `a
  lone turn`, where nothing else runs. By then the machine's other guests have had the caches; code
  and data of 355 calls of 202 functions come from memory again, and a loop that needs no memory at
  all loses a quarter, too. Redis is as cold: the script that appends takes 170 µs then (a bare XADD
  within a script 76). Tried: twenty calls fewer gained nothing that 8 pairs could tell;
  the interpreter's memory on huge pages, 14 of 2 MB, 8 % of the turn, 0 to 5 % of the whole in 16
  pairs; folds compiled with Cython, nothing hot and half as much again cold. A core that keeps
  spinning would do, and an idle bus is to cost nothing. The p99 is the same turn.
- *Replay*: alone, in memory and hot a task's four events take 21 µs to fold and 8 to decode; 1 R on
  this machine is 34 to 44 µs for reading, decoding and folding them. Of the folds 67 % is the end
  (four scopes, two buckets each; cells; the outcome), 16 a dispatch, 11 a submission, 5 a route.
  A batch has to fit into the cache of a core and the buffer of a socket: with 1,000 entries instead
  of 250, each followed by a question of its own about the archive, reading took twice as long.
- *Decisions through a bus*: every turn looks at the head of every queue anew (137 here, each of
  another project or size: 6 µs each hot, twice that here), since no refusal is remembered. A
  submission waits for such a turn that is under way, and for its own.
"""


def page(figures: Sequence[Figure], machine: Mapping[str, Any], command: str) -> str:
    """The page, as Markdown."""
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    rows = [
        "| measure | min / median / max | unit | ratio, median | aim | | load |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [_row(figure) for figure in figures]
    notes = [f"- {f.name}: {f.notes}" for f in figures if f.notes]
    return "\n".join((CAVEATS, f"Written by `{command}`. {about}.", "", *rows, "", *notes, ""))


def _row(f: Figure) -> str:
    against = "H" if f.unit == "µs" else "R"
    ratio = f"{number(f.ratio.median)} {against}" if f.ratio else ""
    judged = f.aim_text not in ("a peer", "printed")
    reached = ("reached" if f.reached else "**missed**") if judged else ""
    cells = (f.name, spread(f.value), f.unit, ratio, f.aim_text, reached, f.load)
    return f"| {' | '.join(cells)} |"
